"""The parts of a mapping file (node.ingest.mapping says what they mean), each from its section of the TOML.

Each function closes its section: an unknown key, or two that do not go together, raise MalformedMapping with
the file and the key.
"""

from __future__ import annotations

from enum import StrEnum
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from node.ingest.mapping_parts import Codes, Event, Kind, Moment, Person, Rows, Visit, When
from node.ingest.toml_section import Section
from node.omop.tables import EVENT_TABLES, LOCAL_CONCEPTS_ABOVE

_WITH_VALUE = ("measurement", "observation")


def rows_of(section: Section | None) -> Rows | None:
    """Return which rows of a database, where the mapping is for one."""
    if section is None:
        return None
    rows = Rows(section.text("table", None), section.text("query", None), section.texts("key"))
    if (rows.table is None) == (rows.query is None):
        section.fail("table", "either a table or a query")
    if rows.query is not None and (
        ";" in rows.query or not rows.query.lstrip().lower().startswith(("select", "with"))
    ):
        section.fail("query", "one SELECT without a semicolon")
    if not rows.key or len(set(rows.key)) != len(rows.key):
        section.fail("key", "names the columns that order the rows, each once")
    section.done()
    return rows


def zone_of(source: Section) -> str:
    """Return the time zone of the source's clock, UTC where it does not say."""
    zone: str = source.text("zone", "UTC")
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        source.fail("zone", "is not a time zone of IANA, such as Europe/Berlin")
    return zone


def person_of(section: Section | None) -> Person | None:
    """Return how rows describe persons."""
    if section is None:
        return None
    person = Person(
        age=section.text("age", None),
        year_of_birth=section.text("year_of_birth", None),
        birth_date=moment_of(section.section("birth_date", None)),
        sex=_codes(section.section("sex", None)),
        race=_codes(section.section("race", None)),
        ethnicity=_codes(section.section("ethnicity", None)),
    )
    if sum(value is not None for value in (person.age, person.year_of_birth, person.birth_date)) != 1:
        section.fail("age", "exactly one of age, year_of_birth and birth_date")
    section.done()
    return person


def visit_of(section: Section | None) -> Visit | None:
    """Return how rows name or make visits."""
    if section is None:
        return None
    visit = Visit(
        column=section.text("column", None),
        concept_id=section.concept("concept_id", None),
        end=moment_of(section.section("end", None)),
    )
    if visit.column is None and visit.concept_id is None:
        section.fail("concept_id", "a visit per row needs it")
    section.done()
    return visit


def moment_of(section: Section | None) -> Moment | None:
    """Return where a date stands."""
    if section is None:
        return None
    moment = Moment(
        section.text("column", None), section.text("format", "%Y-%m-%d"), section.day("constant", None)
    )
    if (moment.column is None) == (moment.constant is None):
        section.fail("column", "either a column or a constant date")
    section.done()
    return moment


def _codes(section: Section | None) -> Codes | None:
    if section is None:
        return None
    codes = Codes(section.text("column"), section.concept_map("map"))
    section.done()
    return codes


def _when(section: Section | None) -> When | None:
    if section is None:
        return None
    when = When(section.text("column"), section.texts("values"))
    section.done()
    return when


def event_of(section: Section) -> Event:
    """Return one kind of record that rows give."""
    table = section.text("table")
    if table not in EVENT_TABLES and table != "death":
        section.fail("table", f"one of {', '.join([*EVENT_TABLES, 'death'])}")
    with_value = table in _WITH_VALUE
    kind = section.choice("kind", Kind, Kind.NUMBER if with_value else Kind.PRESENT)
    if not with_value and kind is not Kind.PRESENT:
        section.fail("kind", f"a {table} record is present or not; it has no value")
    if kind is Kind.TEXT and table != "observation":
        section.fail("kind", "text goes into observation")
    concept = _codes(section.section("concept", None))
    event = Event(
        table=table,
        column=section.text("column", concept.column if concept else None)
        or section.fail("column", "is missing"),
        kind=kind,
        concept_id=section.concept("concept_id", None),
        concept=concept,
        name=section.text("name", ""),
        unit_concept_id=section.concept("unit_concept_id", None),
        unit=_codes(section.section("unit", None)),
        scale=section.number("scale", 1.0),
        range=section.interval("range", None),
        whole_row=section.choice("out_of_range", _OutOfRange, _OutOfRange.FIELD) is _OutOfRange.ROW,
        values=section.number_map("values"),
        value_concepts=section.concept_map("value_concepts", {}),
        present=section.texts("present", ()),
        above=section.number("above", None),
        missing=section.texts("missing", ()),
        date=moment_of(section.section("date", None)),
        end=moment_of(section.section("end", None)),
        when=_when(section.section("when", None)),
    )
    _check_event(section, event)
    section.done()
    return event


class _OutOfRange(StrEnum):
    FIELD = "field"
    ROW = "row"


def _check_event(section: Section, event: Event) -> None:
    if (event.concept_id is None) == (event.concept is None):
        section.fail("concept_id", "exactly one of concept_id and concept")
    if event.concept_id is not None and event.concept_id > LOCAL_CONCEPTS_ABOVE and not event.name:
        section.fail("name", "a local concept (above two billion) needs a name")
    numeric = event.kind is Kind.NUMBER
    if not numeric and (event.range is not None or event.scale != 1.0):
        section.fail("range", "range and scale belong to kind = 'number'")
    if event.table not in _WITH_VALUE and (event.unit is not None or event.unit_concept_id is not None):
        section.fail("unit_concept_id", f"a {event.table} record has no unit")
    if (event.kind is Kind.CATEGORY) != bool(event.values or event.value_concepts):
        section.fail("values", "belong to kind = 'category', which needs them")
    if event.kind is not Kind.PRESENT and (event.present or event.above is not None):
        section.fail("present", "present and above belong to kind = 'present'")
    if event.end is not None and EVENT_TABLES.get(event.table, EVENT_TABLES["measurement"]).end is None:
        section.fail("end", f"a {event.table} record has no end")
