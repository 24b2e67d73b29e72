"""Puts a judged batch of facts, and what it says about other records, into the stage of a load."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from deid.dates import DatePractice, year_of
from deid.vault import Vault
from node.ingest import cdm_areas
from node.ingest.code_words import CodeWords
from node.ingest.fact_columns import Columns
from node.ingest.fact_concepts import FactConcepts
from node.ingest.fact_dates import Dates, Known
from node.ingest.fact_names import Names
from node.ingest.facts import OPEN_AGAIN, START, START_UNSAID, Kind
from node.omop.fact_loading import FactLoad
from node.omop.stage import Stage

_TAKEN = (  # columns that go into records as the source has them
    "place", "kind", "type_concept_id", "value_number", "value_operator", "unit", "range_low", "range_high",
    "quantity", "days_supply", "refills", "dose", "sex", "charged", "paid", "currency", "precision",
    "utc_offset_min",
)  # fmt: skip

_OF_VISITS = (  # kinds of records that move with the visit that they name
    Kind.CONDITION, Kind.DRUG, Kind.PROCEDURE, Kind.MEASUREMENT, Kind.OBSERVATION, Kind.DEVICE, Kind.NOTE,
    Kind.IMAGE, Kind.COST,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Judged:
    """One batch when everything is known of it but its concepts."""

    columns: Columns
    names: Names
    dates: Dates
    note_text: pa.Array
    value_text: pa.Array
    value_word: pa.Array
    withheld: np.ndarray


def stage_actions(batch: Judged, load: FactLoad) -> None:
    """Stage versions, years, retractions, withdrawals, merges and moves."""
    columns, names, dates = batch.columns, batch.names, batch.dates
    good, person = columns.good, names.person
    versioned = columns.asserts & names.keyed & (person != 0) & ~load.has_left(person)
    groups = np.flatnonzero(versioned)
    visit, partial = _with_visit(batch, groups), _partial(columns).take(pa.array(groups))
    numbers = {
        "group_id": names.group[groups],
        "key_id": names.key_id[groups],
        "base_key_id": names.base_key_id[groups],
        "thing_id": names.thing[groups],
        "whole_id": names.whole[groups],
        "person_id": person[groups],
        "rank": names.rank[groups],
    }
    moments = [part[groups] for part in dates.version]
    fresh = _changing(*numbers.values(), *moments, _numbers(visit), _numbers(partial))
    said = numbers | {"version": _stamps(dates.version, groups), "visit_id": visit, "partial": partial}
    _put(
        load.stage,
        "group",
        pa.table(said).filter(pa.array(fresh)),
        "SELECT * REPLACE (coalesce(version, '-infinity'::TIMESTAMP) AS version) FROM incoming",
    )
    # also what another version replaces: an age that was capped once stays so
    seen = dates.has_start & dates.plausible & (person != 0)
    told = np.flatnonzero(seen & (versioned | (good & columns.asserts)))
    years = {"person_id": person[told], "year": year_of(dates.day[told])}
    _put(
        load.stage,
        "last_year",
        pa.table(years),
        "SELECT person_id, max(year) AS year FROM incoming GROUP BY ALL",
    )
    gone = np.flatnonzero(good & columns.retracts & columns.has("key"))
    _put(
        load.stage,
        "retraction",
        pa.table(
            {
                "key_id": names.key_id[gone],
                "person_id": pa.array(person[gone], mask=person[gone] == 0),
                "version": _stamps((dates.version[0], dates.version[1] & (person != 0)), gone),
                "visit_id": _with_visit(batch, gone),
            }
        ),
    )
    _put(load.stage, "withdrawn", pa.table({"person_id": person[good & columns.withdraws]}))
    if (good & columns.merges).any():
        _stage_merges(batch, load)
    if (good & columns.moves).any():
        _stage_moves(batch, load)


def _with_visit(batch: Judged, there: np.ndarray) -> pa.Array:
    """The visits that records name which move with one."""
    visit = batch.names.visit
    of_visits = np.isin(batch.columns.kind, _OF_VISITS) & (visit != 0)
    return pa.array(visit[there], mask=~of_visits[there])


def _partial(columns: Columns) -> pa.Array:
    """1 and 2 of visits whose start is not said (node.omop.fact_ends), null of everything else."""
    visits = columns.kind == Kind.VISIT
    if not visits.any() or not columns.detailed:
        return pa.nulls(columns.size, pa.int8())
    found = pc.index_in(columns.detail(START), pa.array([START_UNSAID, OPEN_AGAIN]))
    return pc.add(pc.if_else(pa.array(visits), found, None), 1).cast(pa.int8())


def _stage_merges(batch: Judged, load: FactLoad) -> None:
    columns, names, dates = batch.columns, batch.names, batch.dates
    into, shift = names.others()
    columns.drop(columns.merges & (into == 0), "other_patient", "missing-target")
    there = np.flatnonzero(columns.good & columns.merges)
    _put(
        load.stage,
        "alias",
        pa.table(
            {
                "person_id": names.person[there],
                "into_person_id": into[there],
                "days": dates.days_to(shift)[there],
                "version": _stamps(dates.version, there),
                "rank": names.rank[there],
            }
        ),
    )


def _stage_moves(batch: Judged, load: FactLoad) -> None:
    columns, names, dates = batch.columns, batch.names, batch.dates
    into, shift = names.others()
    visit = names.visits(into, columns.facts["other_key"])
    nowhere = (into == 0) | (visit == 0) | (names.visit == 0)
    columns.drop(columns.moves & nowhere, "other_key", "missing-target")
    there = np.flatnonzero(columns.good & columns.moves)
    _put(
        load.stage,
        "visit_move",
        pa.table(
            {
                "visit_id": names.visit[there],
                "person_id": names.person[there],
                "into_visit_id": visit[there],
                "into_person_id": into[there],
                "days": dates.days_to(shift)[there],
                "version": _stamps(dates.version, there),
                "rank": names.rank[there],
            }
        ),
    )


def stage_records(
    batch: Judged,
    load: FactLoad,
    vault: Vault,
    concepts: FactConcepts,
    words: CodeWords,
    practice: DatePractice,
) -> None:
    """Stage the records that the batch's facts give, if any does."""
    columns, names = batch.columns, batch.names
    there = np.flatnonzero(columns.good & columns.asserts)
    if not len(there):
        return
    choices, choice = concepts.choices(columns, "codes", there, words=True)
    words.add(columns.facts, there, choices, choice, names.person[there])
    values, value = concepts.choices(columns, "value_codes", there)
    tables = {"choices": cdm_areas.choices_table(choices), "value_choices": cdm_areas.firsts_table(values)}
    places = {"choice": choice, "value_choice": value}
    for name in ("route", "race", "ethnicity"):
        found, places[f"{name}_choice"] = concepts.coding(columns, name, there)
        tables[f"{name}_choices"] = cdm_areas.firsts_table(found)
    fact = _as_taken(columns, there) | _named(batch, there) | _dated(batch.dates, there) | places
    fact |= _said(batch, vault, there)
    tables["fact"] = pa.table(fact)
    cursor = load.cursor
    visits = pa.table({"visit_id": names.visit[there], "thing_id": names.visit_thing[there]})
    named = _changing(names.visit[there]) & (names.visit[there] != 0)
    _put(load.stage, "visit", visits.filter(pa.array(named)))
    for name, table in tables.items():
        cursor.register(name, table)
    try:
        cursor.register("conversions", concepts.conversions(load))
        cdm_areas.stage(load.stage, year_only=practice is DatePractice.YEAR_ONLY)
    finally:
        for name in (*tables, "conversions"):
            cursor.unregister(name)


Fields = dict[str, pa.Array | np.ndarray]


def _as_taken(columns: Columns, there: np.ndarray) -> Fields:
    facts, take = columns.facts, pa.array(there)
    fields: Fields = {name: facts[name].combine_chunks().take(take) for name in _TAKEN}
    # what a result says besides its value no table has, and a map costs more than all other columns
    unpaid = pc.and_(pc.is_null(facts["charged"]), pc.is_null(facts["paid"])).to_numpy()
    spoken = pa.array(there, mask=((columns.kind == Kind.MEASUREMENT) & unpaid)[there])
    fields["details"] = facts["details"].combine_chunks().take(spoken)
    fields["record"] = columns.record[there]
    return fields


def _named(batch: Judged, there: np.ndarray) -> Fields:
    names = batch.names
    return {
        "person_id": names.person[there],
        "group_id": pa.array(names.group[there], mask=~names.keyed[there]),
        "base_id": names.base[there],
        "key_id": pa.array(names.key_id[there], mask=~names.keyed[there]),
        "other_key_id": pa.array(names.other_key_id[there], mask=~batch.columns.has("other_key")[there]),
        "rank": names.rank[there],
        "visit_id": pa.array(names.visit[there], mask=names.visit[there] == 0),
    }


def _dated(dates: Dates, there: np.ndarray) -> Fields:
    return {
        "version": _stamps(dates.version, there),
        "recorded_at": _stamps(dates.recorded, there),
        "day": pa.array(dates.day[there].astype(np.int32)).cast(pa.date32()),
        "stamp": _stamps(dates.stamp, there),
        "end_day": pa.array(dates.end_day[there].astype(np.int32), mask=~dates.has_end[there]).cast(
            pa.date32()
        ),
        "end_stamp": _stamps(dates.end_stamp, there),
        "born": pa.array(dates.born[0][there], mask=~dates.born[1][there]),
    }


def _said(batch: Judged, vault: Vault, there: np.ndarray) -> Fields:
    take = pa.array(there)
    return {
        "value_text": batch.value_text.take(take),
        "value_word": batch.value_word.take(take),
        "withheld": batch.withheld[there],
        "note_text": batch.note_text.take(take),
        "image_study_uid": _uids(batch.columns, vault, "study_uid").take(take),
        "image_series_uid": _uids(batch.columns, vault, "series_uid").take(take),
    }


def _uids(columns: Columns, vault: Vault, name: str) -> pa.Array:
    """The UIDs of images as the vault has them: readers that know the vault give those themselves."""
    images = columns.kind == Kind.IMAGE
    if not images.any():
        return pa.nulls(columns.size, pa.string())
    made = [
        vault.dicom_uid(uid.removeprefix("urn:oid:")) if uid and image else None
        for uid, image in zip(columns.detail(name).to_pylist(), images, strict=True)
    ]
    return pc.coalesce(columns.detail(f"image_{name}"), pa.array(made, pa.string()))


def _stamps(moments: Known, there: np.ndarray) -> pa.Array:
    return pa.array(moments[0][there], mask=~moments[1][there]).cast(pa.timestamp("us"))


def _changing(*columns: np.ndarray) -> np.ndarray:
    """Which rows differ from the one before: most of those that say the same again stand together."""
    changing = np.ones(len(columns[0]), dtype=bool)
    changing[1:] = np.logical_or.reduce([column[1:] != column[:-1] for column in columns])
    return changing


def _numbers(column: pa.Array) -> np.ndarray:
    """The numbers of a column, 0 for null."""
    found: np.ndarray = pc.fill_null(column, 0).to_numpy(zero_copy_only=False)
    return found


def _put(stage: Stage, name: str, rows: pa.Table, select: str = "FROM incoming") -> None:
    if not rows.num_rows:
        return
    stage.cursor.register("incoming", rows)
    stage.put(name, select)
    stage.cursor.unregister("incoming")
