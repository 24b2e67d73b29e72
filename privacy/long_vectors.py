"""How a process through which long vectors pass keeps its memory and shares its interpreter.

A step of a million parameters takes a few megabytes at a time from the allocator, again and again. Given back
to the kernel each time, they come back as new pages, which costs ten times what it takes to fill them. And a
thread that waits for the interpreter while another computes is let in after 5 ms by default: longer than all
messages of a step take.
"""

from __future__ import annotations

import ctypes
import sys

KEPT_BYTES = (
    256 * 2**20
)  # free memory that stays with the process; a node holds more than this at work anyway
LARGEST_KEPT_BYTES = 32 * 2**20  # one vector of four million words; longer ones are mapped and given back
SWITCH_S = 0.0005  # the event loop's turn comes this soon
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of malloc.h


def ready_for_long_vectors() -> bool:
    """Set this process up; return whether its allocator is one that can be told (glibc's). At its start."""
    sys.setswitchinterval(SWITCH_S)
    tell = getattr(ctypes.CDLL(None), "mallopt", None)
    if tell is None:
        return False
    return bool(tell(_M_MMAP_THRESHOLD, LARGEST_KEPT_BYTES)) and bool(tell(_M_TRIM_THRESHOLD, KEPT_BYTES))
