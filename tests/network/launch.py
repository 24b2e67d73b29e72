"""A coordinator or a node as a process of its own, without Flower; a node may stop at a named moment.

A node that was told to pause does nothing more from that moment on: it makes the marker file and waits to be
killed. Production code knows nothing of it.
"""

import asyncio
import os
from pathlib import Path

from coordinator.home import CoordinatorHome
from coordinator.server import serve as serve_coordinator
from node.home import NodeHome
from node.running import Parts, RunningNode
from node.serve import serve_until_stopped
from protocols.clock import SystemClock
from protocols.wire import fedtwin_pb2 as pb

FLUSH_S = 0.2  # for the last frame to leave before the marker says so
MOMENTS = {  # frame, and whether it still leaves
    "accepted": ("offer_reply", True),
    "committed": ("sum_input", False),
    "sent": ("sum_input", True),
    "revealed": ("sum_reveal", True),
}


def pausing(moment: str, marker: Path) -> type[RunningNode]:
    """Return a node that stops at `moment`."""
    stops_at, leaves = MOMENTS[moment]

    class PausingNode(RunningNode):
        def __init__(self, parts: Parts) -> None:
            self._paused = False
            super().__init__(parts)

        def send(self, frame: pb.NodeFrame) -> None:
            if self._paused:
                return
            stops = frame.WhichOneof("body") == stops_at
            if leaves or not stops:
                super().send(frame)
            if stops:
                self._paused = True
                asyncio.get_running_loop().call_later(FLUSH_S, marker.touch)

        async def _handle(self, frame: pb.CoordinatorFrame) -> None:
            if self._paused:
                await asyncio.Event().wait()
            await super()._handle(frame)

    return PausingNode


def serve(
    role: str, home: Path, *, out: Path, err: Path, pause_at: str | None = None, marker: Path | None = None
) -> None:
    """Serve until SIGTERM, as what `fedtwin coordinator serve` and `fedtwin node serve` start."""
    _write_to(out, 1)
    _write_to(err, 2)
    clock = SystemClock()
    if role == "coordinator":
        serve_coordinator(CoordinatorHome(home), clock=clock, flower=False)
        return
    make = pausing(pause_at, marker) if pause_at and marker else RunningNode
    asyncio.run(serve_until_stopped(NodeHome(home), clock=clock, flower=False, make=make))


def _write_to(file: Path, descriptor: int) -> None:
    opened = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(opened, descriptor)
    os.close(opened)
