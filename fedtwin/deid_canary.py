"""Planting made-up people into what a node reads, and looking for them in everything it leaves behind.

A scratch home with the hospital's own rules about texts takes in a FHIR export, HL7 v2 messages and a table,
all of canaries, in processes of its own: once as they are, once with files that break in the middle, once
killed on the way. Then the store is asked for every value of every column, every file of the home is read as
bytes, and so is all that the processes wrote. Features and the update of a model are computed on top.
"""

from __future__ import annotations

import base64
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deid.canary import Canary, Find, Watch, canaries
from node.home import NodeConfig, NodeHome
from node.keys import NodeKeys
from privacy import private_files
from privacy.rng import SecureBits
from protocols.ids import ConsortiumId, NodeId

PEOPLE = 9
COPIES = 40  # of each person's messages in the load that is killed: long enough to be killed in
KILLED_AFTER_S = (3.0, 6.0)
TIMEOUT_S = 300
LOINC = "http://loinc.org"
_WORDS_ABOUT_WORDS = frozenset(  # of canaries nothing gets there
    ("concept", "concept_ancestor", "concept_relationship", "concept_synonym", "drug_strength")
)
_ALL_TEXTS = '[text]\nvalues = "redacted"\nnotes = "redacted"\n'
_MAPPING = """
[source]
name = "canaries"
version = 1
files = ["canaries.csv"]
[patient]
column = "mrn"
[person]
year_of_birth = "yob"
[date]
column = "day"
format = "%Y-%m-%d"
[[events]]
table = "measurement"
column = "sbp"
kind = "number"
concept_id = 3004249
[columns.name]
identifier = true
[columns.phone]
identifier = true
"""


@dataclass
class Flight:
    """What came of it: where was looked, and what was found there."""

    looked: dict[str, int] = field(default_factory=dict)  # kind of place -> how many of them
    finds: set[Find] = field(default_factory=set)
    loaded: int = 0  # persons in the store: looking where nothing was loaded proves nothing

    def look(self, kind: str, found: set[Find]) -> None:
        self.looked[kind] = self.looked.get(kind, 0) + 1
        self.finds |= found


def fly(home: Path | None, *, bits: SecureBits, told: Callable[[str], None] = lambda words: None) -> Flight:
    """Plant, load, break, kill, train and look. Args: home, whose ingest.toml is used; None: all texts kept.

    Leaves nothing behind. Raises: RuntimeError if the canaries could not be loaded at all.
    """
    people = canaries(PEOPLE, bits=bits)
    watch, flight = Watch(people), Flight()
    with _folder() as folder:
        scratch = _scratch_home(folder / "home", home)
        told("loading canaries")
        flight.look("output", watch.in_bytes(_load(scratch, planted(folder / "whole", people)), "ingest"))
        flight.loaded = _look_into_store(scratch, watch, flight)
        if flight.loaded < PEOPLE:
            raise RuntimeError(f"only {flight.loaded} of {PEOPLE} canaries were loaded: nothing is proven")
        told("loading files that break")
        broken = _broken(folder / "broken", people)
        flight.look("output", watch.in_bytes(_load(scratch, broken), "ingest of broken files"))
        told("killing a load")
        many = planted(folder / "many", people, copies=COPIES)
        for seconds in KILLED_AFTER_S:
            words = _load(scratch, many, killed_after_s=seconds)
            flight.look("crash", watch.in_bytes(words, f"crash after {seconds:g} s"))
        told("computing features and an update")
        _look_at_training(scratch, watch, flight)
        told("looking")
        _look_into_store(scratch, watch, flight)
        for path in sorted(one for one in scratch.rglob("*") if one.is_file()):
            where = str(path.relative_to(scratch))
            flight.look(
                "file", watch.in_bytes(path.read_bytes(), where) | watch.in_values([where], "a file's name")
            )
        for path in folder.glob("core*"):
            flight.look("core dump", watch.in_bytes(path.read_bytes(), path.name))
    return flight


def planted(folder: Path, people: Sequence[Canary], *, copies: int = 1) -> Path:
    """Write the files of a hospital whose patients are all made up; return their folder."""
    folder.mkdir()
    resources = [one for person in people for one in _resources(person, copies)]
    (folder / "export.ndjson").write_text("".join(json.dumps(one) + "\n" for one in resources))
    messages = [one for person in people for copy in range(copies) for one in _messages(person, copy)]
    (folder / "messages.hl7").write_text("\r".join(messages) + "\r")
    rows = [
        f"{one.mrn},{one.given} {one.family},{one.phone},{one.born.year},{one.seen},{120 + one.number}"
        for one in people
    ]
    (folder / "canaries.csv").write_text("mrn,name,phone,yob,day,sbp\n" + "\n".join(rows) + "\n")
    (folder / "canaries.toml").write_text(_MAPPING)
    return folder


def note_of(one: Canary) -> str:
    """Return a note that says who somebody is in the ways in which notes do."""
    return (
        f"Patient: {one.given} {one.family}\nMRN: {one.mrn}\nDOB: {one.born.strftime('%m/%d/%Y')}\n"
        f"SSN: {one.ssn}\nPhone: {one.phone}\nE-mail: {one.email}\n\n"
        f"Mr. {one.family} of {100 + one.number} {one.street} Street was seen on {one.seen.isoformat()} for"
        f" chest pain. Account {one.account}. {one.given} will call. Blood pressure 128/76.\n"
    )


def _resources(one: Canary, copies: int) -> Iterator[dict[str, Any]]:
    patient = {"reference": f"Patient/{one.mrn}", "display": f"{one.given} {one.family}"}
    yield {
        "resourceType": "Patient",
        "id": one.mrn,
        "identifier": [{"type": {"coding": [{"code": "MR"}]}, "value": one.mrn}, {"value": one.ssn}],
        "name": [{"family": one.family, "given": [one.given]}],
        "telecom": [{"value": one.phone}, {"value": one.email}],
        "address": [{"line": [f"{100 + one.number} {one.street} Street"]}],
        "gender": "male",
        "birthDate": one.born.isoformat(),
        "text": {"status": "generated", "div": f"<div>{one.given} {one.family}</div>"},
    }
    for copy in range(copies):
        yield {
            "resourceType": "Observation",
            "id": f"{one.account}-{copy}",
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "8480-6"}], "text": f"of {one.family}"},
            "subject": patient,
            "effectiveDateTime": f"{one.seen.isoformat()}T10:00:00Z",
            "valueQuantity": {"value": 120 + copy % 50, "unit": "mmHg", "code": "mm[Hg]",
                              "system": "http://unitsofmeasure.org"},
            "performer": [{"display": f"Dr. {one.family}"}],
            "note": [{"text": note_of(one)}],
        }  # fmt: skip
        yield {
            "resourceType": "Observation",
            "id": f"w-{one.account}-{copy}",
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "11506-3"}]},
            "subject": patient,
            "effectiveDateTime": f"{one.seen.isoformat()}T11:00:00Z",
            "valueString": f"{one.given} {one.family}, phone {one.phone}, feels well",
        }
        yield {
            "resourceType": "DocumentReference",
            "id": f"n-{one.account}-{copy}",
            "status": "current",
            "type": {"coding": [{"system": LOINC, "code": "11506-3"}]},
            "subject": patient,
            "date": f"{one.seen.isoformat()}T12:00:00Z",
            "content": [
                {
                    "attachment": {
                        "contentType": "text/plain",
                        "title": f"Note on {one.family}",
                        "data": base64.b64encode(note_of(one).encode()).decode(),
                    }
                }
            ],
        }


def _messages(one: Canary, copy: int) -> Iterator[str]:
    when = f"{one.seen.strftime('%Y%m%d')}1300"
    person = (
        f"PID|1||{one.mrn}^^^H^MR||{one.family}^{one.given}||{one.born.strftime('%Y%m%d')}|M|||"
        f"{100 + one.number} {one.street} Street^^{one.street}^VT^05901||{one.phone}"
        f"|||||{one.account}|{one.ssn}"
    )
    yield "\r".join(
        (
            f"MSH|^~\\&|LAB|{one.street}|X|Y|{when}||ORU^R01|{one.account}-{copy}|P|2.5",
            person,
            f"OBR|1|{one.account}|{one.account}|8480-6^BP of {one.family}^LN|||{when}|||{one.family}",
            f"OBX|1|NM|8480-6^BP^LN||{120 + copy % 50}|mm[Hg]|||||F|||{when}",
            f"OBX|2|ST|11506-3^Note^LN||{one.given} {one.family} feels well||||||F|||{when}",
            f"NTE|1||Seen: {one.given} {one.family}, {one.phone}",
        )
    )


def _broken(folder: Path, people: Sequence[Canary]) -> Path:
    """Files of each kind that break off, and hold what no reader expects, in the middle of an identity."""
    whole = planted(folder, people)
    export, messages = whole / "export.ndjson", whole / "messages.hl7"
    lines = export.read_text().splitlines()
    half = lines[0][: lines[0].index(people[0].family) + 3]
    wrong = json.loads(lines[1]) | {"status": people[0].family, "valueQuantity": {"value": people[0].given}}
    export.write_text("\n".join((*lines[1:], json.dumps(wrong), half)))
    text = messages.read_text()
    messages.write_text(text.replace("|NM|", f"|{people[1].family}|") + "MSH|^~\\&|" + people[1].family)
    table = whole / "canaries.csv"
    table.write_text(
        table.read_text() + f"{people[2].family},{people[2].given},x,born,{people[2].family},y\n"
    )
    (whole / "stray.xml").write_text(f"<a>{people[3].given} {people[3].family}")
    return whole


def _load(scratch: Path, folder: Path, *, killed_after_s: float | None = None) -> bytes:
    """Load in a process of its own; return all that it wrote. With a time, kill it so that it dumps."""
    environment = dict(os.environ) | {"FEDTWIN_DEBUG": "1", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-m", "fedtwin", "node", "ingest", str(folder), "--home", str(scratch)]
    allowed = [
        "sh",
        "-c",
        'ulimit -c unlimited 2>/dev/null; exec "$@"',
        "sh",
    ]  # to dump its memory if it would
    process = subprocess.Popen(
        [*allowed, *command, "--replace", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=scratch.parent,
        env=environment | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        if killed_after_s is not None:
            time.sleep(killed_after_s)
            process.send_signal(signal.SIGABRT)
        return process.communicate(timeout=TIMEOUT_S)[0]
    finally:
        process.kill()
        process.wait()


def _look_into_store(scratch: Path, watch: Watch, flight: Flight) -> int:
    """Ask for every value of every column; return how many persons there are."""
    from fedtwin.node_ingest import open_store

    with open_store(scratch, read_only=True) as store:
        cursor = store.cursor()
        columns = cursor.execute(
            "SELECT table_schema, table_name, column_name FROM information_schema.columns"
            " WHERE table_catalog = current_database()"
        ).fetchall()
        for schema, table, column in columns:
            if table in _WORDS_ABOUT_WORDS:
                continue
            values = cursor.execute(f'SELECT DISTINCT "{column}" FROM "{schema}"."{table}"').fetchall()  # noqa: S608 (the store's own names)
            where = f"{table}.{column}"
            flight.look("column", watch.in_values(_flat(row[0] for row in values), where))
        return int(cursor.execute("SELECT count(*) FROM person").fetchall()[0][0])


def _flat(values: Any) -> Iterator[object]:
    for value in values:
        if isinstance(value, dict):
            yield from _flat(value.values())
        elif isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _look_at_training(scratch: Path, watch: Watch, flight: Flight) -> None:
    """Compute the features of every canary and one clipped update of a model, and look at their numbers."""
    from importlib import resources

    from fedtwin.node_ingest import open_store
    from node.features.study_rows import feature_table
    from node.training.gradient import clipped_sums
    from privacy import descent
    from protocols.study import Study

    study = Study.parse(resources.files("sim.studies").joinpath("heart.toml").read_bytes())
    with open_store(scratch, read_only=True) as store:
        table = feature_table(study, store)
    sums = clipped_sums(study, descent.initial(study), table)
    for where, numbers in (("features", table.x), ("outcomes", table.y), ("update", sums.shared)):
        finite = [float(one) for one in numbers.ravel() if math.isfinite(float(one))]
        raw = numbers.tobytes() if hasattr(numbers, "tobytes") else b""
        flight.look("tensor", watch.in_values(finite, where) | watch.in_bytes(raw, where))


def _scratch_home(path: Path, home: Path | None) -> Path:
    """A home that never joins anything, with the rules of `home` about texts."""
    private_files.make_folder(path)
    where = NodeHome(path)
    NodeKeys.generate(bits=SecureBits()).write(where.keys)
    config = NodeConfig(NodeId.new(), "Canary", ConsortiumId.new(), bytes(32), "127.0.0.1:1", "127.0.0.1:2")
    private_files.write(where.config_file, config.to_toml().encode())
    own = home / "ingest.toml" if home is not None else None
    rules = own.read_text(encoding="utf-8") if own is not None and own.is_file() else _ALL_TEXTS
    (path / "ingest.toml").write_text(rules if own is None or own.is_file() else "", encoding="utf-8")
    return path


@contextmanager
def _folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="fedtwin-canary-"))  # 0700
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
