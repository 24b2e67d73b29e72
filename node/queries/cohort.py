"""Cohort questions as Ibis: which persons of this store are in, and how many.

Guarantee: membership of a person follows from that person's records alone; dropping any other person from
the store never changes it. This is what makes the sensitivity of a count 1 per site.
"""

from __future__ import annotations

from typing import Protocol

from ibis import _
from ibis.expr.types import BooleanValue, Table

from node.omop.store import OmopStore
from node.omop.tables import EVENT_TABLES, EventTable
from protocols.cohort import AgeCriterion, Cohort, Criterion, EventCriterion, Kind, SexCriterion

TABLE_OF_KIND: dict[Kind, EventTable] = {
    Kind.CONDITION: EVENT_TABLES["condition_occurrence"],
    Kind.DRUG: EVENT_TABLES["drug_exposure"],
    Kind.PROCEDURE: EVENT_TABLES["procedure_occurrence"],
    Kind.MEASUREMENT: EVENT_TABLES["measurement"],
    Kind.OBSERVATION: EVENT_TABLES["observation"],
}


class CdmTables(Protocol):
    """The tables of one CDM as Ibis relations: those of an open store, or by name only (PostgreSQL)."""

    def table(self, name: str) -> Table:
        """Return a table. Raises: NoSuchTable."""
        ...

    def has(self, name: str) -> bool:
        """Return whether there is a table of this name."""
        ...


def tables(cohort: Cohort) -> frozenset[str]:
    """Return the CDM tables that answering `cohort` reads: what a policy allows or refuses."""
    names = {"person", "observation_period"} if cohort.index is None else set()
    for criterion in (cohort.index, *cohort.include, *cohort.exclude):
        if isinstance(criterion, EventCriterion):
            names.add(TABLE_OF_KIND[criterion.kind].name)
        elif criterion is not None:
            names.add("person")
    return frozenset(names)


def count(cohort: Cohort, store: OmopStore) -> int:
    """Return the exact number of persons in the cohort. Not for anyone outside before noise is added.

    For an open store at hand; questions are answered by node.queries.vector.
    Raises: NoSuchTable if the store lacks a table that the question needs.
    """
    return int(persons(cohort, store).count().to_pyarrow().as_py())


def persons(cohort: Cohort, store: CdmTables) -> Table:
    """Return the cohort as a lazy relation with one column, `person_id`, each person once.

    The relation belongs to the calling thread's connection.
    """
    members = indexed_persons(cohort, store)
    return members.select("person_id")


def indexed_persons(cohort: Cohort, store: CdmTables) -> Table:
    """Return the cohort with each person's `index_date`."""
    indexed = members = index_events(cohort.index, store)
    for criterion in cohort.include:
        members = members.semi_join(satisfying(criterion, indexed, store), "person_id")
    for criterion in cohort.exclude:
        members = members.anti_join(satisfying(criterion, indexed, store), "person_id")
    return members


def index_events(criterion: EventCriterion | None, store: CdmTables) -> Table:
    """Each person with an index event, and the date of the first one."""
    if criterion is None:
        periods = store.table("observation_period").semi_join(store.table("person"), "person_id")
        return periods.group_by("person_id").aggregate(index_date=_.observation_period_start_date.min())
    start = TABLE_OF_KIND[criterion.kind].start
    matching = _records(criterion, store)
    if criterion.at_least == 1:
        return matching.group_by("person_id").aggregate(index_date=_[start].min())
    counted = matching.group_by("person_id").aggregate(index_date=_[start].min(), records=_.count())
    return counted.filter(_.records >= criterion.at_least).select("person_id", "index_date")


def satisfying(criterion: Criterion, indexed: Table, store: CdmTables) -> Table:
    """The persons who satisfy one criterion, among `indexed` where the index date matters."""
    if isinstance(criterion, SexCriterion):
        return store.table("person").filter(_.gender_concept_id.isin(criterion.concepts)).select("person_id")
    if isinstance(criterion, AgeCriterion):
        born = store.table("person").select("person_id", "year_of_birth")
        aged = indexed.inner_join(born, "person_id").mutate(age=_.index_date.year() - _.year_of_birth)
        return aged.filter(_between(aged.age, criterion.years.minimum, criterion.years.maximum)).select(
            "person_id"
        )
    records = _records(criterion, store)
    if criterion.window is not None:
        start = TABLE_OF_KIND[criterion.kind].start
        joined = records.inner_join(indexed, "person_id")
        days = joined[start].delta(joined.index_date, unit="day")
        records = joined.filter(days.between(criterion.window.from_days, criterion.window.to_days))
    if criterion.at_least == 1:
        return records.select("person_id")
    counted = records.group_by("person_id").aggregate(records=_.count())
    return counted.filter(_.records >= criterion.at_least).select("person_id")


def _records(criterion: EventCriterion, store: CdmTables) -> Table:
    """The records of one domain that match concept, value and unit: the columns that counting needs."""
    shape = TABLE_OF_KIND[criterion.kind]
    table = store.table(shape.name)
    concept = table[shape.concept]
    wanted = concept.isin(criterion.concepts)
    if criterion.descendants and store.has("concept_ancestor"):
        ancestors = store.table("concept_ancestor")
        below = ancestors.filter(ancestors.ancestor_concept_id.isin(criterion.concepts))
        wanted = wanted | concept.isin(below.descendant_concept_id)
    conditions = [wanted]
    if criterion.value is not None:
        conditions.append(_between(table.value_as_number, criterion.value.minimum, criterion.value.maximum))
    if criterion.value_concepts:
        conditions.append(table.value_as_concept_id.isin(criterion.value_concepts))
    if criterion.unit is not None:
        conditions.append(table.unit_concept_id == criterion.unit)
    return table.filter(conditions).select("person_id", shape.start)


def _between(value, low: float | None, high: float | None) -> BooleanValue:  # type: ignore[no-untyped-def]
    if low is None:
        return value <= high
    return value >= low if high is None else value.between(low, high)
