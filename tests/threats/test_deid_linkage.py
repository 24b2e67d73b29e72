"""Somebody with a register of who was at the hospital tries to find them in its store.

The hospital does not exist, so the truth is known: whose record is whose. What the attacker knows is what the
report on risk calls quasi-identifiers; the share of people they find may not exceed what the report states.
"""

import csv
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from deid.risk import plan, risk
from deid.risk_columns import hierarchy_of, of_store
from deid.vault import PseudonymKey, Vault
from fedtwin.deid_canary import _scratch_home
from fedtwin.node_ingest import VAULT, load, open_store
from node.keys import NodeKeys
from node.omop.loading import Again
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from sim.hospitals import populations
from sim.world import write_world

SEED, PATIENTS = 20, 400
MALE = 8507
NAMESPACE = "patient"  # of mappings that name no other


@dataclass(frozen=True)
class Case:
    """What the attacker knows of each person (true values), and what the store holds of each record."""

    true_record: np.ndarray  # of each person, the row of the release that is theirs
    known: dict[str, np.ndarray]
    released: dict[str, list[Any]]


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("linkage")
    world = write_world(folder / "world", seed=SEED, sizes=(PATIENTS,))
    (people,) = populations(seed=SEED, sizes=(PATIENTS,))
    files = world.hospitals[0].files
    home = _scratch_home(folder / "home", None)
    with open_store(home) as store:
        load(home, store, [files], clock=SystemClock(), again=Again.REFUSE)
    with open_store(home, read_only=True) as store:
        cursor = store.cursor()
        names = ("sex", "birth_year", "visits", "days_first_to_last", "first_visit_year")
        released = of_store(cursor, quasi=names)
        rows = cursor.execute("SELECT person_id FROM person ORDER BY person_id").fetchall()
        cursor.execute("SELECT person_id, min(visit_start_date) FROM visit_occurrence GROUP BY 1")
        firsts = dict(cursor.fetchall())
    place = {person: at for at, (person,) in enumerate(rows)}
    released["first_visit"] = [firsts.get(person) for (person,) in rows]
    key = PseudonymKey(NodeKeys.load(home / "keys").pseudonym)
    with next(files.glob("patients.csv")).open(newline="") as file:
        mrns = [row[0] for row in list(csv.reader(file))[1 : PATIENTS + 1]]
    with closing(Vault.open(home / VAULT, key=key, bits=SecureBits())) as vault:
        persons = vault.pseudonyms(mrns, namespace=NAMESPACE).ids.tolist()
    assert set(persons) <= place.keys()
    visits = [people.visits.day[people.visits.person == n] for n in range(PATIENTS)]
    spans = [(days.max() - days.min()) // np.timedelta64(1, "D") if len(days) else -1 for days in visits]
    return Case(
        true_record=np.array([place[person] for person in persons]),
        known={
            "male": people.latent["male"] > 0,
            "birth_year": people.birth_day.astype("datetime64[Y]").astype(int) + 1970,
            "visits": np.array([len(days) for days in visits]),
            "days_first_to_last": np.array(spans),
            "first_visit": np.array(
                [days.min() if len(days) else np.datetime64("NaT") for days in visits], dtype="datetime64[D]"
            ),
        },
        released=released,
    )


def success(case: Case, candidates: np.ndarray) -> float:
    """The share of people found by who picks one of the candidates (people × records) at random."""
    of_each = candidates.sum(axis=1)
    right = candidates[np.arange(len(candidates)), case.true_record]
    return float(np.where(right, 1 / np.maximum(of_each, 1), 0).mean())


def same_sex(case: Case) -> np.ndarray:
    male = np.array([concept == MALE for concept in case.released["sex"]])
    found: np.ndarray = case.known["male"][:, None] == male[None, :]
    return found


def column(case: Case, name: str) -> np.ndarray:
    return np.array([-1 if value is None else int(value) for value in case.released[name]])


def tolerance(stated: float) -> float:
    """Three standard errors of a share of 400 people."""
    return 3 * float(np.sqrt(max(stated, 1 / PATIENTS) / PATIENTS))


def test_who_knows_sex_and_birth_finds_no_more_people_than_stated(case: Case) -> None:
    stated = risk(case.released, quasi=["sex", "birth_year"]).mean
    years, sex = column(case, "birth_year"), same_sex(case)
    for off in (0, 1):  # birth dates move with all dates: the year may be off by one
        close = np.abs(case.known["birth_year"][:, None] - years[None, :]) <= off
        found = success(case, sex & close)
        assert 0 < found <= stated + tolerance(stated), off


def test_who_knows_what_lies_between_visits_finds_many_and_the_report_says_so_if_asked(case: Case) -> None:
    """Moved dates keep intervals. A report on sex and birth alone would understate what these tell."""
    quasi = ["sex", "visits", "days_first_to_last"]
    stated = risk(case.released, quasi=quasi).mean
    candidates = same_sex(case)
    for name in quasi[1:]:
        candidates &= case.known[name][:, None] == column(case, name)[None, :]
    found = success(case, candidates)
    assert found <= stated + tolerance(stated)
    assert found > risk(case.released, quasi=["sex", "birth_year"]).mean + tolerance(stated)


def test_who_knows_the_day_of_the_first_visit_finds_nobody_by_it(case: Case) -> None:
    released = np.array(
        [np.datetime64(day) if day else np.datetime64("NaT") for day in case.released["first_visit"]],
        dtype="datetime64[D]",
    )
    same_day = case.known["first_visit"][:, None] == released[None, :]
    by_chance = 1 / PATIENTS
    assert success(case, same_day) <= by_chance + tolerance(by_chance)
    # the attack is a real one: on days that had not been moved it finds most people
    own = replace(case, true_record=np.arange(PATIENTS))
    unmoved = case.known["first_visit"]
    assert success(own, unmoved[:, None] == unmoved[None, :]) > 0.5


def test_who_looks_into_a_table_that_has_k_finds_at_most_one_in_k(case: Case) -> None:
    k, quasi = 5, ("sex", "birth_year", "visits", "days_first_to_last")
    made = plan(
        case.released,
        {name: hierarchy_of(name, case.released[name]) for name in quasi},
        k=k,
        most_suppressed=0.1,
    )
    assert made is not None
    # the strongest attacker: knows the record as it was released, and all that was done to it
    stay = ~made.suppressed
    rows = list(zip(*made.columns.values(), strict=True))
    sizes = {
        row: sum(one == row for one, there in zip(rows, stay, strict=True) if there) for row in set(rows)
    }
    chances = [1 / sizes[row] if there else 0.0 for row, there in zip(rows, stay, strict=True)]
    assert max(chances) <= 1 / k
    before = risk(case.released, quasi=list(quasi))
    assert before.highest > 1 / k  # there was something to do
