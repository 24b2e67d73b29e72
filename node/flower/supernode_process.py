"""`flower-supernode` as the node starts it: a process that ends when one of its threads does.

In flwr 1.41 a SuperNode whose key the SuperLink does not know (it came back with an empty database) loses its
heartbeat thread to HTTP 401 and may then hang in its own clean-up: alive and deaf. Here an exception in any
thread ends the process at once, and the supervisor starts a new one, which is let in.

It also looks every half second only whether the runner beside it has left a reply: with several hospitals a
round would wait for the last of these looks. Here it looks again after 20 ms; nothing else is changed.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback

BROKEN = 70  # EX_SOFTWARE of sysexits.h
REPLY_POLL_S = 0.5  # Flower's own pause between two looks for a reply, in the one module that is changed
REPLY_SOON_S = 0.02


class _Pauses:
    """What that module sees as `time`: pauses for a reply are short, others as long as they were."""

    @staticmethod
    def sleep(seconds: float) -> None:
        """Wait."""
        time.sleep(REPLY_SOON_S if seconds == REPLY_POLL_S else seconds)

    def __getattr__(self, name: str) -> object:
        return getattr(time, name)


def main() -> None:
    """Run Flower's own command with the arguments of this process."""
    from flwr.supernode import start_client_internal
    from flwr.supernode.cli import flower_supernode

    start_client_internal.time = _Pauses()  # type: ignore[assignment, attr-defined]  # private; flwr is pinned
    threading.excepthook = _end
    sys.argv[0] = "flower-supernode"
    flower_supernode()


def _end(failed: threading.ExceptHookArgs) -> None:
    """Say which error, without its text, and leave without clean-up: that is what hangs."""
    name = failed.exc_type.__name__
    frames = traceback.extract_tb(failed.exc_traceback)
    place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "?"
    sys.stderr.write(f"a thread ended with {name} at {place}: the SuperNode starts anew\n")
    sys.stderr.flush()
    os._exit(BROKEN)


if __name__ == "__main__":
    main()
