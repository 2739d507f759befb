"""How fast candidates are costed: all at once, one by one, and by building each network."""

import random
import statistics
import time

import larq_nas
from larq_nas.cost import QUANTITIES, SpaceCosts, profile
from larq_nas.spaces import ResNet18

from record import record, timed  # isort: skip  (beside this file)

SHAPE, CLASSES, CANDIDATES, ONE_BY_ONE, BUILT, REPEATS = (224, 224, 3), 1000, 1000, 100, 5, 5


def main() -> None:
    space = ResNet18()
    start = time.perf_counter()
    costs = SpaceCosts(space, SHAPE, CLASSES)
    once = time.perf_counter() - start
    draw = random.Random(0)
    candidates = [
        {name: draw.choice(asked.ratios) for name, asked in costs.expansions.items()}
        for _ in range(CANDIDATES)
    ]
    architectures = [
        larq_nas.Architecture(space.name, space.settings(), values) for values in candidates[:BUILT]
    ]
    models = [architecture.build(SHAPE, CLASSES) for architecture in architectures]
    for values, model in zip(candidates, models, strict=False):
        built = profile(model).summary()
        assert costs.exact(values) == {name: built[name] for name in QUANTITIES}
    measured = {
        "one_build_for_all": [once],
        "1000_at_once": timed(lambda: costs.exact_many(candidates), REPEATS),
        "100_one_by_one": timed(lambda: [costs.exact(c) for c in candidates[:ONE_BY_ONE]], REPEATS),
        "5_built": timed(lambda: [a.build(SHAPE, CLASSES) for a in architectures], 1),
        "5_profiled_once_built": timed(lambda: [profile(model) for model in models], REPEATS),
    }
    seconds = {name: statistics.median(times) for name, times in measured.items()}
    per_second = {
        "at_once": CANDIDATES / seconds["1000_at_once"],
        "one_by_one": ONE_BY_ONE / seconds["100_one_by_one"],
        "built": BUILT / seconds["5_built"],
    }
    for name, rate in per_second.items():
        print(f"{name}: {rate:,.0f} candidates per second")
    print(f"at once over built: {per_second['at_once'] / per_second['built']:,.0f}")
    settings = {"space": space.name, "shape": SHAPE, "candidates": CANDIDATES, "seed": 0}
    record("candidates", settings, {"seconds": measured, "per_second": per_second})


if __name__ == "__main__":
    main()
