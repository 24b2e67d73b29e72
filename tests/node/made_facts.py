"""A reader of facts that tests write, and a vocabulary of concepts that are nobody's."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deid.vault import PseudonymKey, Vault
from node.ingest.facts import SCHEMA, FactBatch, TurnedAway, table_of
from node.ingest.pipeline import Pipeline, Report
from node.ingest.registry import Entry
from node.omop import vocabulary
from node.omop.store import OmopStore
from protocols.clock import FixedClock
from tests.node import athena
from tests.privacy.seeded_bits import SeededBits

CLOCK = FixedClock(datetime(2026, 6, 1, tzinfo=UTC))
THREADS = 1  # on a few rows a second one only waits busily: a fifth to a third of the time of these tests
SYSTEM = "Made"  # an OMOP vocabulary_id is a system too
HEART, HEART_VALUE, LAB, DRUG, INGREDIENT, STENT, SMOKES = (
    "heart", "finding with a value", "lab", "pill", "substance", "stent", "smokes",
)  # fmt: skip
# code -> (concept id, domain, class, standard, maps to)
CONCEPTS: dict[str, tuple[int, str, str, str, tuple[int, ...]]] = {
    HEART: (5_000_010, "Condition", "Disorder", "S", ()),
    "old heart": (5_000_011, "Condition", "Code", "", (5_000_010,)),
    "two": (5_000_012, "Condition", "Code", "", (5_000_010, 5_000_013)),
    "seen": (5_000_013, "Observation", "Finding", "S", ()),
    HEART_VALUE: (5_000_014, "Observation", "Code", "", (5_000_013,)),
    "yes": (5_000_015, "Meas Value", "Answer", "S", ()),
    LAB: (3004501, "Measurement", "Test", "S", ()),  # glucose: its canonical unit is mg/dL
    DRUG: (5_000_017, "Drug", "Clinical Drug", "S", ()),
    INGREDIENT: (5_000_018, "Drug", "Ingredient", "S", ()),
    STENT: (5_000_019, "Device", "Device", "S", ()),
    SMOKES: (5_000_020, "Observation", "Finding", "S", ()),
    "dead end": (5_000_021, "Procedure", "Code", "", ()),
}
VALUE_OF = {5_000_014: 5_000_015}


def load_vocabulary(store: OmopStore, folder: Path) -> None:
    """Load the made vocabulary."""
    rest = "19700101\t20991231\t"
    files: dict[str, list[str]] = {name: [lines[0]] for name, lines in athena.FILES.items()}
    for code, (concept, domain, kind, standard, targets) in CONCEPTS.items():
        files["CONCEPT.csv"].append(
            f"{concept}\t{code}\t{domain}\t{SYSTEM}\t{kind}\t{standard}\t{code}\t{rest}"
        )
        files["CONCEPT_RELATIONSHIP.csv"] += [
            f"{concept}\t{target}\tMaps to\t{rest}" for target in targets or ((concept,) if standard else ())
        ]
    files["CONCEPT_RELATIONSHIP.csv"] += [
        f"{concept}\t{value}\tMaps to value\t{rest}" for concept, value in VALUE_OF.items()
    ]
    files["CONCEPT_ANCESTOR.csv"] += ["5000018\t5000017\t1\t1", "5000018\t5000018\t0\t0"]
    files["VOCABULARY.csv"] = athena.FILES["VOCABULARY.csv"]
    download = athena.download(folder, **{name.removesuffix(".csv"): lines for name, lines in files.items()})
    vocabulary.load(download, store, now=CLOCK.now())


class JsonFacts:
    """One record a line: a list of facts, or `{"away": reason}`."""

    name = "made"
    version = "1"
    marks_parts = True

    def reads(self, path: Path) -> bool:
        return path.name.endswith(".facts")

    def read(self, path: Path, *, batch_records: int) -> Iterator[FactBatch]:
        lines = path.read_text().splitlines()
        for start in range(0, len(lines), batch_records):
            rows: list[dict[str, object]] = []
            away = []
            chunk = lines[start : start + batch_records]
            for number, line in enumerate(chunk, start + 1):
                record = json.loads(line)
                if isinstance(record, dict):
                    away.append(TurnedAway(number, "*", record["away"], True))
                else:
                    rows += [_typed(fact) | {"record": number} for fact in record]
            yield FactBatch(table_of(rows), away, len(chunk), bytes_done=0)


ENTRIES = (Entry("made", __name__, "JsonFacts"),)


def _typed(fact: dict[str, Any]) -> dict[str, object]:
    found: dict[str, object] = {"place": "", "action": "assert", "patient_namespace": "mrn"} | fact
    for name in ("start", "end", "version"):
        if found.get(name):
            moment = datetime.fromisoformat(str(found[name]))
            found[name] = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    if found.get("birth"):
        found["birth"] = date.fromisoformat(str(found["birth"]))
    for name in ("codes", "value_codes"):
        if name in found:
            found[name] = [
                {"system": SYSTEM, "code": code} if isinstance(code, str) else code
                for code in found[name]  # type: ignore[attr-defined]
            ]
    if "details" in found:
        found["details"] = list(found["details"].items())  # type: ignore[attr-defined]
    assert found.keys() <= set(SCHEMA.names)
    return found


def person(patient: str, **more: Any) -> dict[str, Any]:
    """A description of a patient."""
    return {"kind": "person", "patient": patient, "birth": "1960-05-05", "sex": "female"} | more


def event(kind: str, patient: str, code: str, start: str = "2020-03-01T10:00", **more: Any) -> dict[str, Any]:
    """Something that happened to a patient."""
    return {"kind": kind, "patient": patient, "codes": [code], "start": start} | more


@dataclass
class Hospital:
    """A folder of files, a store and a vault."""

    folder: Path
    store: OmopStore
    vault: Vault
    options: dict[str, Any] = field(default_factory=dict)

    def write(self, name: str, *records: list[dict[str, Any]] | dict[str, Any]) -> Path:
        path = self.folder / f"{name}.facts"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        return path

    def take(self, *paths: Path, **options: Any) -> Report:
        settings = {"readers": ENTRIES} | self.options | options
        return Pipeline(self.store, self.vault, CLOCK, **settings).ingest(list(paths) or [self.folder])

    def rows(self, statement: str) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = self.store.connection.con.execute(statement).fetchall()
        return found

    def person_id(self, patient: str, namespace: str = "mrn") -> int:
        return int(self.vault.pseudonyms([patient], namespace=namespace).ids[0])


@cache
def _empty_store(words: bool) -> bytes:
    """The file of a store without patients, made once."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "omop.duckdb"
        with OmopStore.open(path) as store:
            if words:
                load_vocabulary(store, Path(folder) / "athena")
        return path.read_bytes()


def hospital(where: Path, *, words: bool = True) -> Hospital:
    """Make one; its vault draws the same secrets each time. The caller closes `store` and `vault`."""
    (where / "in").mkdir(parents=True)
    vault = Vault.open(where / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(3))
    (where / "omop.duckdb").write_bytes(_empty_store(words))
    store = OmopStore.open(where / "omop.duckdb", threads=THREADS)
    return Hospital(where / "in", store, vault)


def reopened(where: Path) -> Hospital:
    """Open a hospital that was made before, as another process does."""
    vault = Vault.open(where / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SeededBits(5))
    return Hospital(where / "in", OmopStore.open(where / "omop.duckdb", threads=THREADS), vault)
