"""A load takes the memory of a batch, whatever the size of its file, from the file to the CDM."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pytest

from node.ingest.intake import Progress
from node.omop.fact_loading import HELD_FACTS
from node.omop.store import OmopStore
from tests.bench.fhir import lines
from tests.node.made_facts import LAB, event, hospital

ROOT = Path(__file__).parents[3]
# VmHWM and not ru_maxrss, which a process inherits from the one that started it
LOAD = """
import os, re, sys
from pathlib import Path
from deid.vault import PseudonymKey, Vault
from node.ingest.pipeline import Pipeline
from node.omop.store import OmopStore
from tests.node.made_facts import CLOCK
from tests.privacy.seeded_bits import SeededBits
home, limit, batch, held, processes, *files = sys.argv[1:]

def peak(of):
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path(f"/proc/{of}/status").read_text())[1]) // 1024

apart = {}
def look(now):
    for child in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
        apart[child] = peak(child)

vault = Vault.open(Path(home) / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(3))
with OmopStore.open(Path(home) / "omop.duckdb", memory_limit=limit, threads=2) as store:
    options = {"batch_records": int(batch), "held_facts": int(held), "processes": int(processes)}
    pipeline = Pipeline(store, vault, CLOCK, progress=look, **options)
    report = pipeline.ingest([Path(file) for file in files])
    (source,) = report.sources
    (rows,) = store.connection.con.execute(
        "SELECT (SELECT count(*) FROM fedtwin_waiting_measurement) + (SELECT count(*) FROM measurement)"
    ).fetchone()
assert source.records_in == source.stored, source
print(source.stored, rows, peak("self") + sum(apart.values()))
"""


def loaded(
    home: Path, file: Path, *, limit: str, batch: int, held: int = HELD_FACTS, processes: int = 1
) -> tuple[int, int, int]:
    """Return how many records and measurements were stored, and the most memory of all processes, in MB."""
    home.mkdir()
    said = subprocess.run(
        [sys.executable, "-c", LOAD, str(home), limit, str(batch), str(held), str(processes), str(file)],
        capture_output=True,
        check=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
    )
    stored, rows, megabytes = said.stdout.split()
    return int(stored), int(rows), int(megabytes)


def written(path: Path, some: bytes, times: int) -> Path:
    """Write the same Observations several times, each time under other ids."""
    with path.open("wb") as stream:
        for number in range(times):
            stream.write(re.sub(rb'"id": "o', b'"id": "o%d-' % number, some))
    return path


def test_nothing_of_a_batch_stays_in_memory_after_it(tmp_path: Path) -> None:
    """A history: what batches registered and drafted stayed until the one transaction of the load ended."""
    site = hospital(tmp_path)
    records = [
        [event("measurement", f"P{n % 50}", LAB, value_number=float(n), unit="mmol/L", key=f"k{n}")]
        for n in range(8_000)
    ]
    held: list[int] = []

    def look(_: Progress) -> None:
        with closing(site.store.cursor()) as cursor:
            (drafts,) = cursor.execute(
                "SELECT sum(memory_usage_bytes + temporary_storage_bytes) FROM duckdb_memory()"
                " WHERE tag = 'IN_MEMORY_TABLE'"
            ).fetchall()[0]
        held.append(int(drafts) + pa.total_allocated_bytes())

    site.take(site.write("a", *records), batch_records=200, held_facts=200, progress=look)
    assert len(held) == 40
    early, late = max(held[4:12]), max(held[30:])
    assert late < 1.3 * early, held
    site.store.close()
    site.vault.close()


@pytest.mark.parametrize(("limit", "log"), [("80MB", "15.2 MiB"), ("1GB", "59.1 MiB"), ("8GB", "122.0 MiB")])
def test_the_log_grows_with_what_the_store_may_hold_in_memory(tmp_path: Path, limit: str, log: str) -> None:
    with (
        OmopStore.open(tmp_path / "omop.duckdb", memory_limit=limit) as store,
        closing(store.cursor()) as cursor,
    ):
        assert cursor.execute("SELECT current_setting('checkpoint_threshold')").fetchone() == (log,)


def test_a_file_ten_times_as_large_takes_no_more_than_what_the_database_may_hold(tmp_path: Path) -> None:
    some = b"".join(lines(5_000))
    small = written(tmp_path / "Observation.1.ndjson", some, 1)
    large = written(tmp_path / "Observation.2.ndjson", some, 10)
    few = loaded(tmp_path / "small", small, limit="80MB", batch=1000, held=1000)
    many = loaded(tmp_path / "large", large, limit="80MB", batch=1000, held=1000)
    assert few[:2] == (5_000, 6_000)  # one in five has two components
    assert many[:2] == (50_000, 60_000)
    assert many[2] - few[2] < 120, (few, many)


@pytest.mark.slow
@pytest.mark.timeout(4 * 3600)
def test_five_gigabytes_load_in_less_than_two(tmp_path: Path) -> None:
    if shutil.disk_usage(tmp_path).free < 25e9:
        pytest.skip("needs 25 GB of disk")
    some = b"".join(lines(50_000))
    path = written(tmp_path / "Observation.ndjson", some, -(-5_000_000_000 // len(some)))
    assert path.stat().st_size > 5_000_000_000
    stored, rows, megabytes = loaded(tmp_path / "home", path, limit="1GB", batch=20_000, processes=3)
    assert rows == stored * 6 // 5
    print(f"5 GB took {megabytes} MB")  # shown by `pytest -s`
    assert megabytes < 2_000
