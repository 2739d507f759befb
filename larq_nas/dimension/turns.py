"""Which epochs train weights and which the means, and how sigma falls."""

from dataclasses import dataclass

__all__ = ["Turns"]


@dataclass(frozen=True)
class Turns:
    """Epochs in turns: some that train the weights, then one that trains the means.

    # Arguments
        count: number of turns.
        weight_epochs: epochs of each that train the weights.
        scale: sigma in the first turn.
        final_scale: sigma in the last one; between them it falls by the same factor each turn.
    """

    count: int
    weight_epochs: int
    scale: float
    final_scale: float

    @property
    def epochs(self) -> int:
        """Number of all epochs."""
        return self.count * (self.weight_epochs + 1)

    def trains_means(self, epoch: int) -> bool:
        """Return whether an epoch, the first being 0, trains the means."""
        return epoch % (self.weight_epochs + 1) == self.weight_epochs

    def next(self, epoch: int) -> int:
        """Return the number of the turn that comes after an epoch, the first being 0."""
        return (epoch + 1) // (self.weight_epochs + 1)

    def scale_of(self, turn: int) -> float:
        """Return sigma in a turn, the first being 0."""
        if self.count == 1:
            return self.scale
        factor: float = (self.final_scale / self.scale) ** (1 / (self.count - 1))
        return self.scale * factor**turn
