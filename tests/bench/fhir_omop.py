"""FHIR bulk ndjson into OMOP and a timeline, with every rule on, beside bare SQL and beside pyomop.

In one run, of the same files: our whole ingest (pseudonyms, moved dates, states, versions, mapping, units,
quality of dates, provenance, periods, eras, the copy that timelines are read from); DuckDB's own SQL with
none of that, but the same rows and columns (tests.bench.fhir_bare; tests/node/ingest/test_fhir_floor.py holds
it to that); and pyomop, of a slice, where FEDTWIN_PYOMOP names a Python with it
(`python -m venv V && V/bin/pip install pyomop`; it is under the GPL and never part of this project). Each is
measured by the processor, which other work on the machine does not slow, and by the clock.
Goals: a third of bare SQL, fifty times pyomop.
"""

import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import duckdb

from deid.vault import PseudonymKey, Vault
from node.ingest.pipeline import Pipeline
from node.omop import starter
from node.omop.store import OmopStore
from node.timeline_copy import copy_events
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from tests.bench import fhir_bare, fhir_bulk
from tests.bench.figure import Figure

PYOMOP = "FEDTWIN_PYOMOP"
PYOMOP_RECORDS = 200  # of each type: it reads about 150 a second
TURNS = 2  # the faster one of each is taken


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield what the three do in a second, with the ratios of ours to the others."""
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as name:
        home = Path(name)
        folder = home / "files"
        folder.mkdir()
        size = fhir_bulk.write(folder, patients=100 if quick else 1_500, copies=1 if quick else 30)
        bare, ours = Measured(), Measured()
        for turn in range(1 if quick else TURNS):
            with bare_store(home / f"bare-{turn}.duckdb") as con:
                bare.take(partial(_bare, con, folder))
            with our_store(home / str(turn)) as (store, vault):
                ours.take(partial(_ours, store, vault, folder))
        made = f"{size / 1e6:.0f} MB, {ours.records} resources, {ours.events} events"
        against = f"bare SQL ({bare.events} events); goal: 1/3"
        whole = f"FHIR to OMOP and timeline, {made}"
        yield Figure(f"{whole}: CPU", ours.events / ours.cpu_s, "events/s", bare.events / bare.cpu_s, against)
        rate = bare.events / bare.clock_s
        yield Figure(f"{whole}: clock", ours.events / ours.clock_s, "events/s", rate, against)
        pyomop = _pyomop(folder, home)
        if pyomop is not None:
            records, cpu_s, clock_s = pyomop
            against = f"pyomop ({records} of these resources); goal: 50"
            rate = ours.records / ours.cpu_s
            yield Figure("FHIR to OMOP: CPU", rate, "resources/s", records / cpu_s, against)
            rate = ours.records / ours.clock_s
            yield Figure("FHIR to OMOP: clock", rate, "resources/s", records / clock_s, against)


@dataclass(slots=True)
class Measured:
    """The fastest of the runs of one contender."""

    records: int = 0
    events: int = 0
    cpu_s: float = math.inf
    clock_s: float = math.inf

    def take(self, work: Callable[[], tuple[int, int]]) -> None:
        """Run `work`, which returns how many resources it read and how many events are stored."""
        cpu_s, clock_s = _cpu_s(), time.perf_counter()
        self.records, self.events = work()
        self.cpu_s = min(self.cpu_s, _cpu_s() - cpu_s)
        self.clock_s = min(self.clock_s, time.perf_counter() - clock_s)


def _cpu_s() -> float:
    """Processor seconds of this process, and of those that read for it and have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


@contextmanager
def our_store(home: Path) -> Iterator[tuple[OmopStore, Vault]]:
    """A new store with the starter vocabulary, and its vault."""
    home.mkdir()
    key = PseudonymKey(b"bench only " + bytes(21))
    with (
        closing(Vault.open(home / "vault.sqlite", key=key, bits=SecureBits())) as vault,
        OmopStore.open(home / "ours.duckdb") as store,
    ):
        starter.ensure(store, now=SystemClock().now())
        yield store, vault


def _ours(store: OmopStore, vault: Vault, folder: Path) -> tuple[int, int]:
    """What `fedtwin node ingest` does with a folder."""
    report = Pipeline(store, vault, SystemClock()).ingest([folder])
    copy_events(store)
    with closing(store.cursor()) as cursor:
        cursor.execute("CHECKPOINT")
    counts = store.counts()
    events = sum(counts[table] for table in (*fhir_bare.KINDS, "observation"))
    return sum(source.records_in for source in report.sources), events


@contextmanager
def bare_store(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """The tables of a CDM, and the same vocabulary."""
    filled = path.with_suffix(".vocabulary")
    with OmopStore.open(filled) as store:
        starter.ensure(store, now=SystemClock().now())
    with duckdb.connect(str(path)) as con:
        fhir_bare.make_tables(con)
        con.execute(f"ATTACH '{filled}' AS vocabulary (READ_ONLY)")
        for table in ("concept", "concept_relationship"):
            con.execute(f"INSERT INTO {table} FROM vocabulary.{table}")
        con.execute("DETACH vocabulary")
        yield con


def _bare(con: duckdb.DuckDBPyConnection, folder: Path) -> tuple[int, int]:
    found = fhir_bare.to_cdm(con, folder), fhir_bare.to_timeline(con)
    con.execute("CHECKPOINT")
    return found


def _pyomop(folder: Path, home: Path) -> tuple[int, float, float] | None:
    """How many resources pyomop took in, in how many seconds of the processor and of the clock."""
    python = os.environ.get(PYOMOP)
    if not python or subprocess.run([python, "-c", "import pyomop"], capture_output=True).returncode:
        sys.stderr.write(f"# pyomop is not installed: {PYOMOP} names no Python that has it\n")
        return None
    some = home / "some"
    some.mkdir()
    records = 0
    for kind in fhir_bulk.TYPES:
        path = folder / f"{kind}.000.ndjson"
        if path.is_file():
            with path.open("rb") as stream:
                lines = list(islice(stream, PYOMOP_RECORDS))
            (some / path.name).write_bytes(b"".join(lines))
            records += len(lines)
    command = [
        python,
        "-m",
        "pyomop",
        "--create",
        "--dbtype",
        "sqlite",
        "--name",
        str(home / "pyomop.sqlite"),
    ]
    before, clock_s = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*command, "--input", str(some)], capture_output=True, check=True, cwd=home)
    clock_s = time.perf_counter() - clock_s
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return records, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, clock_s
