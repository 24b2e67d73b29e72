"""The source catalogue: each format and mapping that data came by, how much, how fresh and how complete.

What only people know, `sources.toml` in the node's home may say, one table per source; what no table
speaks of is null:

    [sources.fhir]
    owner = "Clinical informatics"
    refresh = "nightly"

Completeness is the share of the source's records that have a date (not the first of a year or month for want
of better), a standard concept, and a value with a unit where it is a measurement.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from node.ingest.errors import MalformedMapping
from node.ingest.toml_section import Section
from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES

_DATED = "count(*) FILTER (coalesce(p.precision, 'day') NOT IN ('year', 'month'))"


@dataclass(frozen=True, slots=True)
class About:
    """What the hospital says of a source."""

    owner: str | None = None
    refresh: str | None = None


@dataclass(frozen=True, slots=True)
class CataloguedSource:
    """One source. Shares are from 0 to 1, null where there is nothing to have a share of."""

    source: str
    format: str
    owner: str | None
    refresh: str | None
    files: int
    first_load: datetime
    last_load: datetime
    records_in: int
    stored: int
    quarantined: int
    records: dict[str, int]
    dated: float | None
    mapped: float | None
    valued: float | None
    with_unit: float | None


def read_about(path: Path) -> dict[str, About]:
    """Return what `sources.toml` says, nothing if there is none. Raises: MalformedMapping."""
    if not path.is_file():
        return {}
    try:
        whole = Section(path.name, "", tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError):
        raise MalformedMapping(path.name, "$", "is not TOML") from None
    sources = whole.table("sources")
    whole.done()
    found = {}
    for name, value in sources.items():
        section = Section(path.name, f"sources.{name}", value)
        found[name] = About(section.text("owner", None), section.text("refresh", None))
        section.done()
    return found


def catalogue(store: OmopStore, about: dict[str, About]) -> list[CataloguedSource]:
    """Return the sources of a store's records, the most recently loaded first; those never loaded last."""
    cursor = store.connection.con
    shares = _shares(store)
    found = []
    for row in cursor.execute(
        "SELECT mapping_name, any_value(coalesce(format, 'delimited')), count(*), min(loaded_at),"
        " max(loaded_at), sum(rows), sum(coalesce(records_quarantined, 0)) FROM fedtwin_load"
        " GROUP BY mapping_name ORDER BY max(loaded_at) DESC, mapping_name"
    ).fetchall():
        name = row[0]
        said = about.get(name, About())
        records, events, dated, mapped, measured, valued, unit = shares.get(name, ({}, 0, 0, 0, 0, 0, 0))
        found.append(
            CataloguedSource(
                source=name,
                format=row[1],
                owner=said.owner,
                refresh=said.refresh,
                files=row[2],
                first_load=row[3].replace(tzinfo=UTC),
                last_load=row[4].replace(tzinfo=UTC),
                records_in=int(row[5]),
                stored=int(row[5] - row[6]),
                quarantined=int(row[6]),
                records=records,
                dated=_share(dated, events),
                mapped=_share(mapped, events),
                valued=_share(valued, measured),
                with_unit=_share(unit, measured),
            )
        )
    return found


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _shares(store: OmopStore) -> dict[str, tuple[dict[str, int], int, int, int, int, int, int]]:
    """By source: records per table; events, with a date, a concept; measurements, with a value, a unit."""
    cursor = store.connection.con
    records: dict[str, dict[str, int]] = {}
    for name, table, count in cursor.execute(
        "SELECT mapping_name, table_name, count(*) FROM fedtwin_provenance JOIN fedtwin_load USING (load_id)"
        " GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        records.setdefault(name, {})[table] = count
    counts = {name: [0] * 6 for name in records}
    for shape in EVENT_TABLES.values():
        value, unit = "0", "0"
        if shape.name == "measurement":
            value = "count(*) FILTER (coalesce(value_as_number, value_as_concept_id) IS NOT NULL)"
            unit = "count(*) FILTER (unit_concept_id IS NOT NULL AND unit_concept_id <> 0)"
        whole = "count(*)" if shape.name == "measurement" else "0"
        rows = cursor.execute(
            f"SELECT mapping_name, count(*), {_DATED}, count(*) FILTER ({shape.concept} <> 0), {whole},"  # noqa: S608 (our names)
            f" {value}, {unit} FROM {shape.name} e JOIN fedtwin_provenance p"
            f" ON p.table_name = '{shape.name}' AND p.record_id = e.{shape.id}"
            " JOIN fedtwin_load USING (load_id) GROUP BY mapping_name"
        ).fetchall()
        for name, *numbers in rows:
            counts[name] = [old + new for old, new in zip(counts[name], numbers, strict=True)]
    return {name: (records[name], *counts[name]) for name in records}  # type: ignore[misc]
