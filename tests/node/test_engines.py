"""What an engine promises, on each kind of database: each member once, rules passed, the time limit kept."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import duckdb
import ibis
import pytest

from node.omop.errors import NoSuchTable
from node.queries.engine import CdmEngine, Warehouse
from node.queries.exact_count import counted
from node.queries.limits import Limits
from node.queries.shape import shape_of
from protocols.circe import CirceCohort
from protocols.cohort import Cohort
from protocols.refusal import RefusalCode, Refused
from tests.circe_forms import concept_set, definition, rule
from tests.node.engines import CONDITIONS, LIMITS, MEASUREMENTS, PARENT, PERSONS, REMARK

YEAR_BEFORE = {"Start": {"Days": 365, "Coeff": -1}, "End": {"Days": 0, "Coeff": 1}}
YEAR_AFTER = {"Start": {"Days": 1, "Coeff": 1}, "End": {"Days": 365, "Coeff": 1}}
SETS = [
    concept_set(0, CONDITIONS),
    concept_set(1, MEASUREMENTS),
    concept_set(2, [PARENT], descendants=True),
]
HIGH = {"Measurement": {"CodesetId": 1, "ValueAsNumber": {"Op": "gt", "Value": 95.5}}}
LATER = {"ConditionOccurrence": {"CodesetId": 2}}


def every_event(**more: Any) -> CirceCohort:
    """All events of a condition, each of them in the cohort, with what `more` adds."""
    value = definition({"ConditionOccurrence": {"CodesetId": 0}}, sets=SETS, **more)
    value["PrimaryCriteria"]["PrimaryCriteriaLimit"] = {"Type": "All"}
    value["QualifiedLimit"] = value["ExpressionLimit"] = {"Type": "All"}
    return CirceCohort.parse(json.dumps(value))


def ours(**more: Any) -> Cohort:
    return Cohort.parse({"index": {"kind": "condition", "concepts": CONDITIONS}, **more})


RULES = every_event(
    InclusionRules=[
        rule(HIGH, at_least=1, window=YEAR_BEFORE),
        rule(LATER, at_least=1, window=YEAR_AFTER),
        rule(HIGH, at_least=1, window=YEAR_AFTER),
    ]
)


def listed(concepts: list[int]) -> str:
    return ", ".join(map(str, concepts))


def by_sql(path: Path, sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(path), read_only=True) as opened:
        return sorted(opened.execute(sql).fetchall())


def rows_of(engine: CdmEngine, expression: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row.values()) for row in engine.rows(expression).to_pylist())


FIRST_OBSERVED = f"""
    SELECT c.person_id, min(condition_start_date) FROM condition_occurrence c JOIN observation_period o
      ON o.person_id = c.person_id
     AND condition_start_date BETWEEN observation_period_start_date AND observation_period_end_date
    WHERE condition_concept_id IN ({listed(CONDITIONS)}) GROUP BY c.person_id"""


def test_our_form_yields_each_person_once_with_the_first_day(engine: CdmEngine, generated: Path) -> None:
    expected = by_sql(generated, FIRST_OBSERVED)
    assert 50 < len(expected) < PERSONS
    with engine.members(ours()) as members:
        assert dict(members.schema()) == {
            "person_id": ibis.dtype("!int64"),
            "index_date": ibis.dtype("!date"),
        }
        assert rows_of(engine, members) == expected


def test_circe_yields_each_person_once_with_the_earliest_of_their_days(
    engine: CdmEngine, generated: Path
) -> None:
    with engine.members(every_event()) as members:
        assert dict(members.schema()) == {
            "person_id": ibis.dtype("!int64"),
            "index_date": ibis.dtype("!date"),
        }
        assert rows_of(engine, members) == by_sql(generated, FIRST_OBSERVED)


def test_two_cohorts_can_be_open_at_once_and_joined_with_the_cdm(engine: CdmEngine) -> None:
    women = ours(include=[{"kind": "sex", "concepts": [8532]}])
    high = every_event(InclusionRules=[rule(HIGH, at_least=2, window=YEAR_BEFORE)])
    with engine.members(every_event()) as every, engine.members(high) as some, engine.members(women) as ours_:
        persons = {row[0] for row in rows_of(engine, every)}
        with_high = {row[0] for row in rows_of(engine, some)}
        female = {row[0] for row in rows_of(engine, ours_)}
        assert 0 < len(with_high & female) < len(with_high) < len(persons)
        assert female < persons
        assert len(rows_of(engine, some.semi_join(ours_, "person_id"))) == len(with_high & female)
        born = some.inner_join(engine.table("person"), "person_id").select("person_id", "year_of_birth")
        assert {row[0] for row in rows_of(engine, born)} == with_high
    with engine.members(high) as again:
        assert {row[0] for row in rows_of(engine, again)} == with_high


def passed_by_hand(path: Path) -> dict[int, int]:
    """What RULES means, record by record."""
    conditions = by_sql(
        path,
        "SELECT c.person_id, condition_start_date, condition_concept_id, observation_period_start_date,"
        " observation_period_end_date FROM condition_occurrence c JOIN observation_period USING (person_id)",
    )
    highs = by_sql(
        path,
        "SELECT person_id, measurement_date FROM measurement"
        f" WHERE value_as_number > 95.5 AND measurement_concept_id IN ({listed(MEASUREMENTS)})",
    )
    best: dict[int, int] = {}
    for person, day, concept, start, end in conditions:
        if concept not in CONDITIONS or not start <= day <= end:
            continue
        own = [found for who, found in highs if who == person and start <= found <= end]
        later = [
            found
            for who, found, what, *_ in conditions
            if who == person and what in CONDITIONS[:3] and start <= found <= end
        ]
        satisfied = (
            sum(-365 <= (found - day).days <= 0 for found in own) >= 1,
            sum(1 <= (found - day).days <= 365 for found in later) >= 1,
            sum(1 <= (found - day).days <= 365 for found in own) >= 1,
        )
        passed = satisfied.index(False) if False in satisfied else len(satisfied)
        best[person] = max(passed, best.get(person, 0))
    return best


def test_passed_rules_are_those_of_the_best_event(engine: CdmEngine, generated: Path) -> None:
    expected = passed_by_hand(generated)
    assert set(expected.values()) == {0, 1, 2, 3}
    with engine.passed_rules(RULES) as passed:
        assert dict(rows_of(engine, passed)) == expected
    with engine.members(RULES) as members:
        persons = {row[0] for row in rows_of(engine, members)}
    assert persons == {person for person, rules in expected.items() if rules == 3}


def test_without_rules_everybody_with_an_event_passed_none(engine: CdmEngine, generated: Path) -> None:
    with engine.passed_rules(every_event()) as passed:
        assert rows_of(engine, passed) == [(row[0], 0) for row in by_sql(generated, FIRST_OBSERVED)]


def test_a_shape_is_compiled_once_and_counts_what_its_own_numbers_say(engine: CdmEngine) -> None:
    compiled = []

    def asked(concepts: list[int]) -> int:
        cohort = Cohort.parse({"index": {"kind": "condition", "concepts": concepts}})
        shape, parameters = shape_of(cohort)

        def build() -> Any:
            compiled.append(shape)
            with engine.members(shape) as members:
                return members.aggregate(persons=members.count())

        count = int(engine.rows_of_shape(shape, build, parameters)["persons"][0].as_py())
        assert count == counted(cohort, engine)
        return count

    assert asked(CONDITIONS[:3]) != asked(CONDITIONS[7:10])
    assert len(compiled) == 1


def endless(engine: CdmEngine) -> Any:
    """A relation whose one row takes hours."""
    one = engine.table("measurement").select(a="measurement_id")
    two = engine.table("measurement").select(b="measurement_id")
    three = engine.table("condition_occurrence").select(c="condition_occurrence_id")
    every = one.cross_join(two).cross_join(three)
    return every.aggregate(total=((every.a + every.b * every.c) % 7).sum())


def test_a_question_ends_at_its_time_limit(warehouse: Warehouse) -> None:
    with closing(warehouse.engine(Limits(time_s=0.5))) as engine:
        began = time.monotonic()
        with pytest.raises(Refused) as refused:
            engine.rows(endless(engine))
        assert refused.value.code is RefusalCode.DEADLINE
        assert time.monotonic() - began < 10
        with pytest.raises(Refused):
            counted(ours(), engine)
    with closing(warehouse.engine(LIMITS)) as engine:
        assert counted(ours(), engine) > 0


def test_a_question_ends_when_another_thread_interrupts_it(warehouse: Warehouse) -> None:
    with closing(warehouse.engine(LIMITS)) as engine:
        began = time.monotonic()
        threading.Timer(0.3, engine.interrupt).start()
        with pytest.raises(Refused) as refused:
            engine.rows(endless(engine))
        assert refused.value.code is RefusalCode.DEADLINE
        assert time.monotonic() - began < 10


def test_concurrent_questions_do_not_disturb_each_other(warehouse: Warehouse) -> None:
    questions = [RULES, every_event(), ours(), ours(include=[{"kind": "sex", "concepts": [8532]}])]

    def ask(question: Cohort | CirceCohort) -> int:
        with closing(warehouse.engine(LIMITS)) as engine:
            return counted(question, engine)

    alone = [ask(question) for question in questions]
    assert len(set(alone)) == 3  # the second and the third mean the same
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(ask, questions * 4))
    assert together == alone * 4


def test_a_cdm_without_what_is_asked_for_says_so(engine: CdmEngine) -> None:
    assert not engine.has("dose_era")
    with pytest.raises(NoSuchTable, match="dose_era"):
        engine.table("dose_era")
    era = CirceCohort.parse(json.dumps(definition({"DoseEra": {}}, sets=[])))
    with pytest.raises(NoSuchTable, match="dose_era"), engine.members(era):
        pass


def test_a_text_is_bound_and_not_compiled(engine: CdmEngine, generated: Path) -> None:
    value = definition({"ConditionOccurrence": {"StopReason": {"Op": "endsWith", "Text": REMARK}}}, sets=[])
    sql = f"""SELECT c.person_id, min(condition_start_date) FROM condition_occurrence c
              JOIN observation_period o ON o.person_id = c.person_id
               AND condition_start_date BETWEEN observation_period_start_date AND observation_period_end_date
              WHERE condition_concept_id = {CONDITIONS[5]} GROUP BY c.person_id"""
    with engine.members(CirceCohort.parse(json.dumps(value))) as members:
        assert rows_of(engine, members) == by_sql(generated, sql) != []
