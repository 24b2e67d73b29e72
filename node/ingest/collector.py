"""Python's search for cycles, put off while a batch is read.

A batch makes hundreds of thousands of objects that all live until it is taken, and none of them in a cycle:
looking through them again and again costs a tenth of a load. Guarantee: afterwards, and when something is
raised, the collector is as it was before; what a batch left behind is found between batches.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Look for no cycles within the block. Of the whole process: meant for the length of a batch."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
