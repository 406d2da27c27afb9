"""How a process that forks, or lives for long, does its imports."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Look for no garbage meanwhile, and never in what is there at the end.

    To import torch and the methods makes half a million objects. Next to none of them is garbage,
    and to look at them again and again takes a fifth of the time of a start. Forks of the process
    share the memory of what nobody looks at.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
