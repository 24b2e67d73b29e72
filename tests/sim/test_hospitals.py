"""The hospitals that do not exist: same seed, same patients; each writes its own way; the truth is exact."""

import csv
from pathlib import Path

import numpy as np
import pytest

from sim.dialects import DIALECTS, LAKESIDE, SAINT_AUREL, VALLEY
from sim.hospital_files import write_files
from sim.hospitals import COEFFICIENTS, INTERCEPT, RANGES, SIZES, Population, populations


@pytest.fixture(scope="module")
def hospitals() -> tuple[Population, ...]:
    return populations(seed=1)


def auc(outcome: np.ndarray, score: np.ndarray) -> float:
    order = np.argsort(score)
    ranks = np.empty(len(score))
    ranks[order] = np.arange(1, len(score) + 1)
    positives = int(outcome.sum())
    return float((ranks[outcome].sum() - positives * (positives + 1) / 2) / (positives * (~outcome).sum()))


def test_same_seed_same_patients_and_another_seed_others() -> None:
    once, again, other = (populations(seed=seed, sizes=(50, 20)) for seed in (3, 3, 4))
    assert all(np.array_equal(a.scaled(), b.scaled()) for a, b in zip(once, again, strict=True))
    assert not np.array_equal(once[0].scaled(), other[0].scaled())


def test_sizes_are_what_was_asked(hospitals: tuple[Population, ...]) -> None:
    assert tuple(people.patients for people in hospitals) == SIZES
    with pytest.raises(ValueError, match="at least one patient"):
        populations(seed=0, sizes=())


def test_true_coefficients_predict_the_outcome_with_an_auc_of_about_eight_tenths(
    hospitals: tuple[Population, ...],
) -> None:
    beta = np.array([COEFFICIENTS[name] for name in RANGES])
    scores = np.concatenate([people.scaled() @ beta + INTERCEPT for people in hospitals])
    outcome = np.concatenate([people.outcome for people in hospitals])
    assert 0.77 < auc(outcome, scores) < 0.87
    assert not 0.77 < auc(outcome, -scores) < 0.87
    assert 0.2 < outcome.mean() < 0.4


def test_outcome_follows_the_index_day_within_a_year(hospitals: tuple[Population, ...]) -> None:
    for people in hospitals:
        days = (people.outcome_day - people.index_day)[people.outcome].astype(int)
        assert days.min() > 0
        assert days.max() < 365


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def written(hospitals: tuple[Population, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hospitals")
    for people, dialect in zip(hospitals, DIALECTS, strict=True):
        write_files(people, dialect, root / dialect.slug, rng=np.random.default_rng(people.hospital))
    return root


def test_each_hospital_writes_its_own_way(written: Path) -> None:
    heads = {d.slug: tuple(rows(written / d.slug / "patients.csv")[0]) for d in DIALECTS}
    assert len(set(heads.values())) == len(DIALECTS)
    assert "patientennummer" in heads[SAINT_AUREL.slug]
    labs = {d.slug: tuple(rows(written / d.slug / "labs.csv")[0]) for d in DIALECTS}
    assert "chol_total" in labs[LAKESIDE.slug]  # one column per lab
    units = {row["unit"] for row in rows(written / VALLEY.slug / "labs.csv")}
    assert "kPa" in units
    assert "mmHg" not in units


def test_files_hold_direct_identifiers_so_that_removing_them_can_be_shown(written: Path) -> None:
    first = rows(written / "northgate" / "patients.csv")[0]
    assert {"mrn", "name", "address", "phone"} <= set(first)
    assert all(first[name] for name in ("mrn", "name", "address", "phone"))


def test_what_was_recorded_is_the_truth_up_to_rounding_and_gaps(
    hospitals: tuple[Population, ...], tmp_path: Path
) -> None:
    people = hospitals[3]
    recorded = write_files(people, VALLEY, tmp_path, rng=np.random.default_rng(0))
    true = people.visits.values["sbp_mmhg"]
    assert np.nanmax(np.abs(recorded.labs["sbp_mmhg"] - true)) <= 0.05 / 0.133322 + 1e-9  # kPa, one decimal
    assert np.isnan(recorded.labs["cholesterol_mg_dl"]).all()  # never recorded there
    assert 0.2 < np.isnan(recorded.labs["hba1c_percent"]).mean() < 0.3


def test_dirty_rows_are_added_and_counted(written: Path) -> None:
    labs = rows(written / "northgate" / "labs.csv")
    impossible = [row for row in labs if row["value"] == "99999" or row["date"] == "00/00/0000"]
    assert len(impossible) > 10
