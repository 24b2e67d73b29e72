"""What a process of this test holds in memory: where a secret would lie that is on no disk."""

import re
from pathlib import Path

_REGION = re.compile(r"([0-9a-f]+)-([0-9a-f]+) rw")
MOST_BYTES = 2**31  # of one region; what is longer is mapped and not filled


def holds(pid: int, *wanted: bytes) -> list[bool]:
    """Return which of these stand in what a process may write. Needs to be its ancestor, as a test is."""
    found = [False] * len(wanted)
    with (Path("/proc") / str(pid) / "mem").open("rb", buffering=0) as memory:
        for line in (Path("/proc") / str(pid) / "maps").read_text().splitlines():
            region = _REGION.match(line)
            if region is None:
                continue
            start, end = (int(part, 16) for part in region.groups())
            if end - start > MOST_BYTES:
                continue
            memory.seek(start)
            try:
                content = memory.read(end - start)
            except OSError:  # mapped, and not there
                continue
            found = [there or text in content for there, text in zip(found, wanted, strict=True)]
    return found
