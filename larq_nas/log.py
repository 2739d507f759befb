"""Log of what larq_nas does, on standard output.

A program that handles logs itself takes it over as any other:

```python
log = logging.getLogger("larq_nas")
log.handlers.clear()
log.propagate = True
```
"""

import logging

__all__ = ["counted", "log"]


class _StandardOutput(logging.Handler):
    """Prints to where `print` does: in a notebook, and where output is captured, that changes."""

    def emit(self, record: logging.LogRecord) -> None:
        print(self.format(record), flush=True)


log = logging.getLogger("larq_nas")
"""The log; `verbose=0` of a function leaves its lines out."""
# Without, a program that has a handler of its own would show each line twice.
log.propagate = False
log.setLevel(logging.INFO)
if not log.handlers:
    log.addHandler(_StandardOutput())


def counted(number: int, what: str) -> str:
    """Return a number of things, such as `1 epoch` or `1,600 candidates`."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
