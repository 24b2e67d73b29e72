"""Ports of loopback for servers of tests."""

import itertools
import os
import socket
from collections.abc import Iterator

# Below the ports that the system hands out by itself (32768 and up on Linux): between the look and the server
# no other process gets one of these. Each worker of pytest-xdist has a lane of its own.
FIRST, LANES, LANE = 20_000, 8, 1_500


def _lane() -> Iterator[int]:
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    return itertools.count(FIRST + worker % LANES * LANE + os.getpid() * 7 % LANE)


_next = _lane()


def free_ports(count: int) -> list[int]:
    """Return ports of loopback that nobody listens on, none of which was returned before in this process."""
    found: list[int] = []
    while len(found) < count:
        port = next(_next)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        found.append(port)
    return found
