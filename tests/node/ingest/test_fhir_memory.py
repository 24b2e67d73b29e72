"""A file ten times as large takes no more memory: what is kept is a batch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.node.ingest.fhir_resources import observation

# VmHWM and not ru_maxrss, which a process inherits from the one that started it
PEAK = """
import re, sys
from pathlib import Path
from node.ingest.readers.fhir import FhirReader
records = sum(batch.records for batch in FhirReader().read(Path(sys.argv[1]), batch_records=1000))
peak = re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())
print(records, int(peak[1]) // 1024)
"""


def peak_mb(path: Path) -> tuple[int, int]:
    """Return how many records were read, and the most memory that it took."""
    said = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, check=True, text=True)
    records, megabytes = said.stdout.split()
    return int(records), int(megabytes)


def test_memory_is_a_batch_and_not_the_file(tmp_path: Path) -> None:
    small, large = tmp_path / "small.ndjson", tmp_path / "large.ndjson"
    lines = "".join(json.dumps(observation(id=f"o{i}", note="x" * 2000)) + "\n" for i in range(3000))
    small.write_text(lines)
    with large.open("w") as stream:
        for _ in range(10):
            stream.write(lines)
    assert large.stat().st_size > 70_000_000
    few, at_first = peak_mb(small)
    many, at_last = peak_mb(large)
    assert (few, many) == (3000, 30_000)
    assert at_last - at_first < 20


def test_large_records_end_a_batch_early(tmp_path: Path) -> None:
    path = tmp_path / "notes.ndjson"
    with path.open("w") as stream:
        for i in range(60):
            stream.write(json.dumps(observation(id=f"o{i}", note="x" * (2 << 20))) + "\n")
    records, megabytes = peak_mb(path)
    assert records == 60
    assert megabytes < 300  # of 120 MB, with Python, Arrow and numpy
