"""Small CDMs as plain Python: people drawn by hypothesis, written to DuckDB, and read back from any store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import strategies as st

from node.omop.store import OmopStore
from node.queries.duckdb_engine import DuckDbWarehouse
from node.queries.engine import CdmEngine
from node.queries.limits import Limits
from tests.circe_forms import NEW_CONCEPT

DAY_0 = date(2019, 12, 1)  # days run over a leap year's end of February and over two new years
CONDITIONS, DRUGS, LABS = (1, 2, 3), (11, 12), (21, 22)
PARENT, LAB_PARENT = 9, 20  # of the conditions 1 and 2; of both labs
ANCESTORS = ((PARENT, 1), (PARENT, 2), (PARENT, PARENT), (LAB_PARENT, 21), (LAB_PARENT, 22))
UNITS = (8840, 8876)
TABLES = {"condition": "condition_occurrence", "drug": "drug_exposure"}
TYPE = 32817


@dataclass(frozen=True)
class Lab:
    concept: int
    day: date
    value: float | None
    unit: int | None


@dataclass(frozen=True)
class Human:
    """All records of one person. `rows` are (sex, year of birth) in `person`: one of them, if all is well."""

    person_id: int
    rows: tuple[tuple[int, int], ...] = ((8507, 1960),)
    periods: tuple[tuple[date, date], ...] = ((date(2019, 1, 1), date(2021, 12, 31)),)
    conditions: tuple[tuple[int, date], ...] = ()
    drugs: tuple[tuple[int, date], ...] = ()
    labs: tuple[Lab, ...] = field(default=())


days = st.integers(0, 500).map(lambda offset: DAY_0 + timedelta(days=offset))
# eighths are exact in floats and in millionths; the rest is what dirty stores hold
numbers = st.one_of(
    st.integers(0, 64).map(lambda n: n / 8),
    st.sampled_from([None, float("nan"), float("inf"), -1e300, -3.5, 1e15, -1e15, 1e16]),
)
labs = st.builds(
    Lab, st.sampled_from(LABS), days, numbers, st.one_of(st.none(), st.sampled_from(UNITS), st.just(UNITS[0]))
)
periods = st.tuples(days, st.integers(0, 300)).map(lambda pair: (pair[0], pair[0] + timedelta(days=pair[1])))


def humans(person_id: int, *, dirty: bool = True) -> st.SearchStrategy[Human]:
    """One person. `dirty`: perhaps without or with two rows in `person`, with none or overlapping periods."""
    row = st.tuples(st.sampled_from([8507, 8532, 8551]), st.integers(1955, 2006))
    whole = st.just(((date(2019, 1, 1), date(2021, 12, 31)),))
    return st.builds(
        Human,
        st.just(person_id),
        st.lists(row, min_size=0 if dirty else 1, max_size=2 if dirty else 1).map(tuple),
        st.one_of(whole, st.lists(periods, max_size=2).map(tuple)) if dirty else whole,
        st.lists(st.tuples(st.sampled_from(CONDITIONS), days), min_size=1, max_size=6).map(tuple),
        st.lists(st.tuples(st.sampled_from(DRUGS), days), max_size=4).map(tuple),
        st.lists(labs, min_size=1, max_size=8).map(tuple),
    )


@st.composite
def people(draw: st.DrawFn, *, least: int = 4, most: int = 9, dirty: bool = True) -> list[Human]:
    """People with ids from 1."""
    return [
        draw(humans(person_id, dirty=dirty)) for person_id in range(1, draw(st.integers(least, most)) + 1)
    ]


windows = st.tuples(st.integers(-400, 400), st.integers(0, 400)).map(
    lambda ends: {"from_days": ends[0], "to_days": ends[0] + ends[1]}
)


@st.composite
def events(draw: st.DrawFn, *, indexed: bool) -> dict[str, Any]:
    """An event criterion; `indexed` ones have no window."""
    kind = draw(st.sampled_from(["condition", "condition", "condition", "drug", "measurement"]))
    concepts = {"condition": (*CONDITIONS, PARENT), "drug": DRUGS, "measurement": (*LABS, LAB_PARENT)}[kind]
    form: dict[str, Any] = {
        "kind": kind,
        "concepts": draw(st.lists(st.sampled_from(concepts), min_size=1, max_size=2, unique=True)),
        "descendants": draw(st.booleans()),
        "at_least": draw(st.sampled_from([1, 1, 1, 2])),
    }
    if kind == "measurement":
        more = {"value": st.sampled_from([{"min": 4}, {"max": 2.5}, {"min": 1, "max": 6}])}
        form |= draw(st.fixed_dictionaries({}, optional=more | {"unit": st.sampled_from(UNITS)}))
    if not indexed and draw(st.booleans()):
        form["window"] = draw(windows)
    return form


criteria = st.one_of(
    events(indexed=False),
    events(indexed=False),
    st.sampled_from([[8507], [8532, 8551]]).map(lambda found: {"kind": "sex", "concepts": found}),
    st.integers(15, 60).map(lambda age: {"kind": "age", "min_years": age}),
    st.integers(15, 60).map(lambda age: {"kind": "age", "max_years": age}),
)


@st.composite
def forms(draw: st.DrawFn) -> dict[str, Any]:
    """A cohort in our own form."""
    form: dict[str, Any] = {
        "include": draw(
            st.sampled_from([0, 0, 1, 2]).flatmap(lambda n: st.lists(criteria, min_size=n, max_size=n))
        ),
        "exclude": draw(
            st.sampled_from([0, 0, 1]).flatmap(lambda n: st.lists(criteria, min_size=n, max_size=n))
        ),
    }
    if draw(st.integers(0, 4)) or not (form["include"] or form["exclude"]):
        form["index"] = draw(events(indexed=True))
    return form


def cleared(connection: duckdb.DuckDBPyConnection, found: Iterable[Human]) -> None:
    """Replace all people of a store by these. The connection is the caller's."""
    rows: dict[str, list[tuple[Any, ...]]] = {name: [] for name in _COLUMNS}
    for human in found:
        who = human.person_id
        rows["person"] += [(who, sex, born, 0, 0) for sex, born in human.rows]
        rows["observation_period"] += [(0, who, *ends, TYPE) for ends in human.periods]
        rows["condition_occurrence"] += [(0, who, *event, TYPE) for event in human.conditions]
        rows["drug_exposure"] += [(0, who, *event, event[1], TYPE) for event in human.drugs]
        rows["measurement"] += [
            (0, who, lab.concept, lab.day, TYPE, lab.value, lab.unit) for lab in human.labs
        ]
    connection.execute("BEGIN")
    for name, columns in _COLUMNS.items():
        connection.execute(f"DELETE FROM {name}")
        if rows[name]:
            marks = ", ".join("?" * len(columns))
            values = ", ".join([f"({marks})"] * len(rows[name]))
            flat = [value for row in rows[name] for value in row]
            connection.execute(f"INSERT INTO {name} ({', '.join(columns)}) VALUES {values}", flat)
    connection.execute("COMMIT")


_COLUMNS = {
    "person": (
        "person_id",
        "gender_concept_id",
        "year_of_birth",
        "race_concept_id",
        "ethnicity_concept_id",
    ),
    "observation_period": (
        "observation_period_id",
        "person_id",
        "observation_period_start_date",
        "observation_period_end_date",
        "period_type_concept_id",
    ),
    "condition_occurrence": (
        "condition_occurrence_id",
        "person_id",
        "condition_concept_id",
        "condition_start_date",
        "condition_type_concept_id",
    ),
    "drug_exposure": (
        "drug_exposure_id",
        "person_id",
        "drug_concept_id",
        "drug_exposure_start_date",
        "drug_exposure_end_date",
        "drug_type_concept_id",
    ),
    "measurement": (
        "measurement_id",
        "person_id",
        "measurement_concept_id",
        "measurement_date",
        "measurement_type_concept_id",
        "value_as_number",
        "unit_concept_id",
    ),
}


@dataclass(frozen=True)
class Hospital:
    """A store to be filled again and again. What has been compiled is kept, as at a node."""

    store: OmopStore
    warehouse: DuckDbWarehouse

    @contextmanager
    def with_people(self, found: Iterable[Human]) -> Iterator[CdmEngine]:
        """Open an engine on the store after replacing everyone in it."""
        with closing(self.store.cursor()) as cursor:
            cleared(cursor, found)
        with closing(self.warehouse.engine(Limits(time_s=60))) as engine:
            yield engine


@contextmanager
def small_hospital(folder: Path) -> Iterator[Hospital]:
    """Make a hospital without people in a new folder, with the concepts above as its vocabulary."""
    with empty_store(folder / "omop.duckdb") as store:
        add_vocabulary(store)
        yield Hospital(store, DuckDbWarehouse(store))


def empty_store(path: Path) -> OmopStore:
    """Make a store without people and with the few ancestors of the concepts above. The caller closes it."""
    store = OmopStore.open(path, threads=1)
    with closing(store.cursor()) as cursor:
        cursor.executemany("INSERT INTO concept_ancestor VALUES (?, ?, 1, 1)", ANCESTORS)
    return store


def add_vocabulary(store: OmopStore) -> None:
    """Make the concepts above known, as Circe needs."""
    known = {*CONDITIONS, *DRUGS, *LABS, PARENT, LAB_PARENT}
    with closing(store.cursor()) as cursor:
        cursor.executemany(NEW_CONCEPT, [[concept] for concept in sorted(known)])


def read_back(path: Path) -> list[Human]:
    """Return the people of a store, as far as a `Human` holds what they have."""
    with duckdb.connect(str(path), read_only=True) as made:

        def of(table: str, *columns: str) -> dict[int, tuple[Any, ...]]:
            found: dict[int, list[Any]] = {}
            for who, *values in made.execute(
                f"SELECT person_id, {', '.join(columns)} FROM {table}"
            ).fetchall():
                found.setdefault(who, []).append(tuple(values))
            return {who: tuple(rows) for who, rows in found.items()}

        rows = of("person", "gender_concept_id", "year_of_birth")
        seen = of("observation_period", "observation_period_start_date", "observation_period_end_date")
        conditions = of("condition_occurrence", "condition_concept_id", "condition_start_date")
        drugs = of("drug_exposure", "drug_concept_id", "drug_exposure_start_date")
        labs = of(
            "measurement", "measurement_concept_id", "measurement_date", "value_as_number", "unit_concept_id"
        )
    return [
        Human(
            who,
            rows[who],
            seen.get(who, ()),
            conditions.get(who, ()),
            drugs.get(who, ()),
            tuple(Lab(*lab) for lab in labs.get(who, ())),
        )
        for who in rows
    ]
