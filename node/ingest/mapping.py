"""What the columns of a hospital's table mean, as a TOML file. One file per kind of source table.

    [source]                     # what the file looks like
    name = "labs"                # of the mapping; with `version` it is what provenance shows
    version = 1
    files = ["labs*.csv"]        # patterns for the file's name: delimited text, or Parquet by .parquet
    delimiter = ","              # default ","
    encoding = "utf-8"           # default "utf-8"
    header = true                # default true; if false, `columns` names them in order
    columns = ["a", "b"]
    missing = ["", "?", "-9"]    # codes for "no value"; "-9" also means -9.0. Default [""]
    zone = "Europe/Berlin"       # whose clock moments with a zone are read on (Parquet, SQL). Default "UTC"
    sql = { table = "lab.results", key = ["id"] }   # or query = "SELECT …": rows of a database, besides files
    #                              or instead of them; the key orders them, and no two rows have the same one
    type_concept_id = 32817      # OMOP type concept: where the record comes from. Default 32817, EHR

    [patient]
    column = "mrn"               # the patient's id; or `row = true`: each row is another patient
    namespace = "mrn"            # default "patient": ids of one namespace mean the same patient everywhere

    [person]                     # only where the table describes persons
    age = "age"                  # years at the row's date; or year_of_birth = "yob";
    # birth_date = { column = "dob", format = "%d/%m/%Y" }
    sex = { column = "sex", map = { M = 8507, F = 8532 } }     # race and ethnicity alike

    [date]                       # default date of the row's records
    column = "taken_at"
    format = "%Y-%m-%d"          # default; with %H the time of day is kept. Or: constant = 1988-07-01

    [visit]                      # optional
    concept_id = 9202            # makes a visit_occurrence; without it the column only refers to one
    column = "encounter"         # without it each row is a visit
    end = { column = "discharged", format = "%Y-%m-%d" }

    [columns.name]
    identifier = true            # a direct identifier: never stored. Or ignore = true: known, not needed

    [[events]]                   # a record per row, if `column` has a value (see `kind`)
    table = "measurement"        # observation, condition_occurrence, drug_exposure,
                                 # procedure_occurrence, death
    column = "value"
    kind = "number"              # category | present | text (observation only, redacted first)
    concept_id = 3004249         # or concept = { column = "code", map = { "8480-6" = 3004249 } }; others: 0
    name = "Systolic blood pressure"
    unit_concept_id = 8876       # or unit = { column = "unit", map = { "mm[Hg]" = 8876 } }
    scale = 1.0                  # the value is multiplied by this; then
    range = [0, 400]             # both ends allowed; outside: quarantined
    out_of_range = "field"       # default: this value only; or "row": nothing of the row is stored
    when = { column = "status", values = ["final"] }           # other rows have no such record

`category` takes `values = { A = 1, B = 2 }` (kept as a number), `value_concepts = { A = 45876467 }`, or both;
`present` takes `present = ["1", "yes"]` or `above = 0`, otherwise any value counts. Unknown keys are errors.
"""

from __future__ import annotations

import hashlib
import tomllib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import resources
from pathlib import Path
from typing import Any

from node.ingest.errors import MalformedMapping
from node.ingest.mapping_parts import Event, Moment, Person, Rows, Visit
from node.ingest.mapping_sections import event_of, moment_of, person_of, rows_of, visit_of, zone_of
from node.ingest.toml_section import REQUIRED, Section
from node.omop.loading import LocalConcept
from node.omop.tables import LOCAL_CONCEPTS_ABOVE
from protocols import canonical

EHR_TYPE_CONCEPT_ID = 32817  # OMOP type concept "EHR"
MAX_MAPPING_BYTES = 1_000_000  # a thousand codes fit twenty times over
_DOMAIN = {
    "condition_occurrence": "Condition",
    "drug_exposure": "Drug",
    "procedure_occurrence": "Procedure",
    "measurement": "Measurement",
    "observation": "Observation",
    "death": "Observation",
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """One mapping file, checked."""

    name: str
    version: int
    files: tuple[str, ...]
    delimiter: str
    encoding: str
    header: bool
    columns: tuple[str, ...]
    missing: tuple[str, ...]
    type_concept_id: int
    patient_column: str | None
    namespace: str
    person: Person | None
    date: Moment | None
    visit: Visit | None
    events: tuple[Event, ...]
    identifiers: frozenset[str]
    ignored: frozenset[str]
    sha256: str
    zone: str = "UTC"
    sql: Rows | None = None

    def fits(self, file_name: str) -> bool:
        """Return whether a file of this name is this mapping's."""
        return any(fnmatchcase(file_name, pattern) for pattern in self.files)

    def used_columns(self) -> frozenset[str]:
        """Return the columns that something is made of."""
        codes = [self.person.sex, self.person.race, self.person.ethnicity] if self.person else []
        moments = [self.date, self.person.birth_date if self.person else None]
        names: list[str | None] = [self.patient_column]
        if self.person:
            names += [self.person.age, self.person.year_of_birth]
        if self.visit:
            names.append(self.visit.column)
            moments.append(self.visit.end)
        for event in self.events:
            names += [event.column, event.when.column if event.when else None]
            codes += [event.concept, event.unit]
            moments += [event.date, event.end]
        names += [code.column for code in codes if code]
        names += [moment.column for moment in moments if moment]
        return frozenset(name for name in names if name is not None)

    def local_concepts(self) -> tuple[LocalConcept, ...]:
        """Return the site's own concepts that the mapping names."""
        found = {
            event.concept_id: LocalConcept(event.concept_id, event.name, _DOMAIN[event.table])
            for event in self.events
            if event.concept_id is not None and event.concept_id > LOCAL_CONCEPTS_ABOVE
        }
        return tuple(found.values())


def packaged() -> tuple[Mapping, ...]:
    """Return the mappings that come with fedtwin."""
    folder = resources.files("node.ingest").joinpath("mappings")
    entries = sorted(
        (entry for entry in folder.iterdir() if entry.name.endswith(".toml")), key=lambda e: e.name
    )
    return tuple(parse_mapping(entry.read_bytes(), file=entry.name) for entry in entries)


def read_mapping(path: Path | str) -> Mapping:
    """Return the mapping in a file. Raises: MalformedMapping, OSError."""
    return parse_mapping(Path(path).read_bytes(), file=Path(path).name)


def parse_mapping(data: bytes, *, file: str) -> Mapping:
    """Return the mapping that `data` holds.

    Args:
        file: what errors call it.
    Raises: MalformedMapping, naming file and key.
    """
    if len(data) > MAX_MAPPING_BYTES:
        raise MalformedMapping(file, "$", f"at most {MAX_MAPPING_BYTES} bytes")
    try:
        value = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise MalformedMapping(file, "$", f"not TOML: {error}") from None
    root = Section(file, "", value)
    source = root.section("source")
    patient = root.section("patient")
    column = patient.text("column", None)
    if patient.flag("row", False) == (column is not None):
        patient.fail("column", "either a column or `row = true`")
    namespace = patient.text("namespace", "patient")
    patient.done()
    roles = {name: Section(file, f"columns.{name}", body) for name, body in root.table("columns").items()}
    identifiers = frozenset(name for name, role in roles.items() if role.flag("identifier", False))
    ignored = frozenset(name for name, role in roles.items() if role.flag("ignore", False))
    for role in roles.values():
        role.done()
    sql = rows_of(source.section("sql", None))
    mapping = Mapping(
        name=source.text("name"),
        version=source.integer("version"),
        files=source.texts("files", () if sql else REQUIRED),
        delimiter=source.text("delimiter", ","),
        encoding=source.text("encoding", "utf-8"),
        header=source.flag("header", True),
        columns=source.texts("columns", ()),
        missing=source.texts("missing", ("",)),
        type_concept_id=source.concept("type_concept_id", EHR_TYPE_CONCEPT_ID),
        patient_column=column,
        namespace=namespace,
        person=person_of(root.section("person", None)),
        date=moment_of(root.section("date", None)),
        visit=visit_of(root.section("visit", None)),
        events=tuple(event_of(section) for section in root.sections("events")),
        identifiers=identifiers,
        ignored=ignored,
        sha256=hashlib.sha256(canonical.encode(_plain(value))).hexdigest(),
        zone=zone_of(source),
        sql=sql,
    )
    source.done()
    root.done()
    _check(mapping, file)
    return mapping


def _check(mapping: Mapping, file: str) -> None:
    if len(mapping.delimiter) != 1:
        raise MalformedMapping(file, "source.delimiter", "one character")
    if mapping.header == bool(mapping.columns):
        raise MalformedMapping(file, "source.columns", "names the columns exactly where `header = false`")
    if not mapping.events and mapping.person is None and mapping.visit is None:
        raise MalformedMapping(file, "events", "the mapping makes nothing")
    for name in sorted(mapping.used_columns() & (mapping.identifiers | mapping.ignored)):
        if name != mapping.patient_column:
            raise MalformedMapping(file, f"columns.{name}", "is an identifier or ignored, and used elsewhere")
    if mapping.columns:
        known = set(mapping.columns)
        for name in sorted((mapping.used_columns() | mapping.identifiers | mapping.ignored) - known):
            raise MalformedMapping(file, f"columns.{name}", "is not among `source.columns`")
    if mapping.person and mapping.person.age and mapping.date is None:
        raise MalformedMapping(file, "date", "an age needs the date at which it was true")
    makes_visits = mapping.visit is not None and mapping.visit.concept_id is not None
    dateless = [place for place, event in enumerate(mapping.events) if event.date is None]
    if mapping.date is None and (makes_visits or dateless):
        where = f"events[{dateless[0]}].date" if dateless else "date"
        raise MalformedMapping(file, where, "a record needs a date")


def _plain(value: Any) -> Any:
    """TOML's dates as text, so that the whole has one encoding."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.isoformat() if hasattr(value, "isoformat") else value
