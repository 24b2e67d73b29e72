"""Files that other processes read give the same store, whatever becomes of those processes."""

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from node.ingest.errors import ReaderLost
from node.ingest.facts import FactBatch, TurnedAway, table_of
from node.ingest.intake import Progress
from node.ingest.pipeline import SourceReport
from node.ingest.reading_apart import ReadingApart, usable_processes
from node.ingest.registry import READERS, Entry, reader
from tests.bench.fhir import lines
from tests.node.ingest.fhir_resources import PATIENT, observation, resource
from tests.node.made_facts import Hospital, hospital

ROOT = Path(__file__).parents[3]
HL7 = (
    "MSH|^~\\&|LAB|H|N|H|20200301100000||ORU^R01|{n}|P|2.5\rPID|1||P{n}^^^mrn^MR||Made^Up||19600505|F\r"
    "OBR|1|||1234-5^Glucose^LN\rOBX|1|NM|2345-7^Glucose^LN||{n}|mg/dL|||||F|||20200301100000\r"
)


def children() -> list[int]:
    """The processes that this one has started and that have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            command = (stat.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if int(parent) == os.getpid() and state != "Z" and b"node.ingest.reader_process" in command:
            found.append(int(stat.parent.name))
    return found


def export(folder: Path) -> None:
    """An export with all that may be wrong with one, and a file of messages."""
    people = [resource("Patient", id=f"p{n}", gender="female", birthDate="1960-05-05") for n in range(3)]
    _write(folder / "Patient.ndjson", *people, {"resourceType": "Patient", "birthDate": 7})
    some = b"".join(lines(300))
    broken = [b'{"resourceType": "Observation"', b"\xff\xfe", b"[]", b"", b'{"resourceType": "Nothing"}']
    (folder / "Observation.1.ndjson").write_bytes(some + b"\n".join(broken) + b"\n" + some[: len(some) // 2])
    long = [observation(id=f"o{n}", subject=PATIENT, note="x" * 100_000) for n in range(40)]
    cut_off = gzip.compress("".join(json.dumps(one) + "\n" for one in long).encode())
    (folder / "Observation.2.ndjson.gz").write_bytes(cut_off[: len(cut_off) // 2])
    late = observation(id="late", subject=PATIENT, effectiveDateTime="2020-13-45", issued=None)
    note = {"contentType": "text/plain", "data": "bm90ZQ=="}
    _write(folder / "Observation.3.ndjson", late, observation(id="kept", subject=PATIENT))
    _write(folder / "DocumentReference.ndjson", _document(note), _document(note | {"data": "!"}))
    (folder / "Observation.4.ndjson").write_bytes((folder / "Observation.3.ndjson").read_bytes())
    (folder / "messages.hl7").write_text("".join(HL7.format(n=n) for n in range(40)))


def _document(attachment: dict[str, str]) -> dict[str, Any]:
    content = [{"attachment": attachment}]
    return resource("DocumentReference", id=f"d{len(attachment['data'])}", status="current", subject=PATIENT,
                    content=content)  # fmt: skip


def _write(path: Path, *resources: dict[str, Any]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in resources))


def loaded(where: Path, processes: int) -> tuple[Hospital, list[SourceReport]]:
    site = hospital(where)
    export(site.folder)
    report = site.take(readers=READERS, processes=processes, apart_from_bytes=0, batch_records=50)
    return site, [replace(source, seconds=0.0) for source in report.sources]


def test_any_number_of_processes_gives_the_same_store_and_the_same_quarantine(tmp_path: Path) -> None:
    alone, reports = loaded(tmp_path / "1", 1)
    turned_away = (
        "SELECT source_name, source_row, field, reason, whole_row FROM fedtwin_quarantine ORDER BY ALL"
    )
    expected = alone.rows(turned_away)
    assert {"malformed", "unknown-resource", "bad-date"} <= {row[3] for row in expected}
    assert sum(source.unreadable is not None for source in reports) == 1
    assert sum(source.unchanged for source in reports) == 1  # the same bytes under another name
    for processes in (2, 3):
        site, others = loaded(tmp_path / str(processes), processes)
        assert others == reports
        assert site.rows(turned_away) == expected
        assert site.store.content_hash() == alone.store.content_hash()
        close(site)
    assert children() == []
    close(alone)


def test_files_are_read_by_processes_and_those_that_are_loaded_by_none(tmp_path: Path) -> None:
    seen: list[int] = []
    site = hospital(tmp_path / "site")
    _large(site.folder)

    def look(_: Progress) -> None:
        seen.append(len(children()))

    options: dict[str, Any] = {"readers": READERS, "processes": 3, "batch_records": 100, "progress": look}
    site.take(**options)
    assert set(seen) == {0}  # too few bytes
    site.store.close()
    (tmp_path / "other").mkdir()
    site = hospital(tmp_path / "other" / "site")
    _large(site.folder)
    seen.clear()
    site.take(**options | {"apart_from_bytes": 1})
    assert max(seen) == 2
    seen.clear()
    site.take(**options | {"apart_from_bytes": 1})
    assert seen == []
    assert children() == []
    close(site)


def _large(folder: Path) -> None:
    some = b"".join(lines(600))
    for number in range(3):
        (folder / f"Observation.{number}.ndjson").write_bytes(
            re.sub(rb'"id": "o', b'"id": "o%d-' % number, some)
        )


def test_a_killed_process_is_an_error_and_the_next_ingest_goes_on(tmp_path: Path) -> None:
    whole, site = hospital(tmp_path / "whole"), hospital(tmp_path / "killed")
    for one in (whole, site):
        _large(one.folder)
        for patient in ("p0", "p1"):  # so that both vaults draw their secrets in one order
            one.person_id(patient, "fhir")
    whole.take(readers=READERS, processes=1)

    def kill(now: Progress) -> None:
        if now.source == "Observation.1.ndjson":
            for child in children():
                os.kill(child, signal.SIGKILL)

    options = {"readers": READERS, "processes": 2, "apart_from_bytes": 0, "batch_records": 50}
    with pytest.raises(ReaderLost, match="signal 9"):
        site.take(progress=kill, **options)
    assert children() == []
    assert site.rows("SELECT source_name FROM fedtwin_load") == [("Observation.0.ndjson",)]
    site.take(**options)
    assert site.store.content_hash() == whole.store.content_hash()
    close(site)
    close(whole)


class Failing:
    """A reader whose file says how it fails."""

    name = "failing"
    version = "1"
    apart: ClassVar[dict[str, str]] = {}

    def reads(self, path: Path) -> bool:
        return path.suffix == ".failing"

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        yield FactBatch(table_of([]), [TurnedAway(1, "", "nothing", True)], records=1)
        if path.read_text() == "exit":
            os._exit(3)
        raise ValueError("Jane Doe")


@pytest.mark.parametrize(("how", "said"), [("exit", "exit code 3"), ("raise", "ValueError")])
def test_what_goes_wrong_there_is_told_without_what_was_read(tmp_path: Path, how: str, said: str) -> None:
    site = hospital(tmp_path)
    path = site.folder / "a.failing"
    path.write_text(how)
    entries = (Entry("failing", __name__, "Failing"),)
    with pytest.raises(ReaderLost, match=said) as caught:
        site.take(path, readers=entries, processes=2, apart_from_bytes=0)
    assert "Jane" not in str(caught.value)
    assert site.rows("SELECT count(*) FROM fedtwin_load") == [(0,)]
    assert children() == []
    close(site)


def test_a_file_that_is_gone_meanwhile_is_the_error_that_it_is_here(tmp_path: Path) -> None:
    _large(tmp_path)
    files = [(path, reader(READERS[0])) for path in sorted(tmp_path.iterdir())]
    options: dict[str, Any] = {"batch_records": 100, "processes": 2, "from_bytes": 0}
    with ReadingApart(files, wanted=lambda *_: True, **options) as apart:
        files[0][0].unlink()
        with pytest.raises(FileNotFoundError):
            next(apart.batches(*files[0]))
        left = apart.batches(*files[1])
        assert next(left).records == 100
        left.close()  # whoever stops in the middle of a file may still ask for the next
        assert sum(batch.records for batch in apart.batches(*files[2])) == 600
    assert children() == []


def test_ctrl_c_leaves_no_process(tmp_path: Path) -> None:
    site = hospital(tmp_path)
    _large(site.folder)

    def stop(_: Progress) -> None:
        assert children()
        for child in children():
            os.kill(child, signal.SIGINT)  # a terminal sends it to all of them
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        site.take(readers=READERS, processes=2, apart_from_bytes=0, batch_records=100, progress=stop)
    assert children() == []
    assert site.rows("SELECT count(*) FROM fedtwin_load") == [(0,)]
    close(site)


KILLED = """
import os, signal, sys
from pathlib import Path
from node.ingest.registry import READERS, reader
from node.ingest.reading_apart import ReadingApart
files = [(path, reader(READERS[0])) for path in sorted(Path(sys.argv[1]).iterdir())]
with ReadingApart(files, wanted=lambda *_: True, batch_records=50, processes=2, from_bytes=0) as apart:
    next(apart.batches(*files[0]))
    print(apart._processes[0]._process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_they_end_when_who_started_them_is_killed(tmp_path: Path) -> None:
    _large(tmp_path)
    said = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, text=True, cwd=ROOT, env=_env()
    )
    assert said.returncode == -signal.SIGKILL, said.stderr
    pid = int(said.stdout)
    until = time.monotonic() + 20
    while _runs(pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(pid)


def _runs(pid: int) -> bool:
    try:
        return b"node.ingest.reader_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def _env() -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}


def test_such_a_process_has_no_store_no_vault_and_no_models() -> None:
    code = (
        "import sys, node.ingest.reader_process, node.ingest.readers.fhir, node.ingest.readers.hl7v2;"
        "print({'torch', 'duckdb', 'spacy', 'deid.vault', 'sqlite3'} & sys.modules.keys() or 'none')"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, text=True, cwd=ROOT, env=_env()
    )
    assert said.stdout.strip() == "none"


def test_each_process_holds_batches_and_not_files(tmp_path: Path) -> None:
    some = b"".join(lines(4_000))
    peaks = []
    for times in (1, 10):
        path = tmp_path / f"Observation.{times}.ndjson"
        with path.open("wb") as stream:
            for number in range(times):
                stream.write(re.sub(rb'"id": "o', b'"id": "o%d-' % number, some))
        files, highest = [(path, reader(READERS[0]))], 0
        options: dict[str, Any] = {"batch_records": 1_000, "processes": 2, "from_bytes": 0}
        with ReadingApart(files, wanted=lambda *_: True, **options) as apart:
            for _ in apart.batches(*files[0]):
                (child,) = children()
                found = re.search(rb"VmHWM:\s+(\d+) kB", Path(f"/proc/{child}/status").read_bytes())
                highest = max(highest, int(found[1]) // 1024 if found else 0)
        peaks.append(highest)
    assert 0 < peaks[0] < 300
    assert peaks[1] - peaks[0] < 30, peaks


def test_by_default_no_more_processes_than_processors() -> None:
    assert 1 <= usable_processes() <= len(os.sched_getaffinity(0))


def close(site: Hospital) -> None:
    site.store.close()
    site.vault.close()
