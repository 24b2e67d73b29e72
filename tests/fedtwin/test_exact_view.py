"""What people see of studies without noise: results, releases, and that no epsilon is claimed."""

from pathlib import Path

import numpy as np
import pytest

from fedtwin import exact_view
from fedtwin.screen import Exit, Stop
from node.features.table import FeatureTable
from privacy.budget import Account
from privacy.exact_result import ExactResult
from privacy.ledger import Ledger
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from protocols.study import Study
from sim.federation import Noise, federate
from tests.fedtwin.conftest import Fedtwin
from tests.protocols.exact_forms import exact_form, exact_study

EXAMPLES = Path(__file__).parents[2] / "sim" / "studies"


def people(count: int, columns: int, *, days: bool = False, seed: int = 0) -> FeatureTable:
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1.0, 1.0, (count, columns)).astype(np.float32)
    y = (rng.random(count) < 0.4).astype(np.float32)
    if days:
        y = np.column_stack([rng.integers(1, 300, count), y]).astype(np.float32)
    return FeatureTable(np.arange(count), x, np.ones(x.shape, dtype=bool), y)


def of(study: Study, tables: list[FeatureTable]) -> ExactResult:
    run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
    found = exact_view.of_run(study, tuple(run.params.tolist()))
    assert found is not None
    return found


def test_coefficients_are_shown_with_their_ratios(capsys: pytest.CaptureFixture[str]) -> None:
    found = of(exact_study("logistic", columns=2), [people(80, 2, seed=s) for s in range(3)])
    exact_view.show(found)
    said = capsys.readouterr().out
    for words in ("The fit converged.", "240", "3 hospitals", "odds ratio", "f1", "(intercept)"):
        assert words in said
    exact_view.require_answer(found)


def test_a_curve_is_shown_with_its_median_and_a_long_one_fits_a_screen(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = of(
        exact_study("kaplan-meier", every_days=1), [people(90, 0, days=True, seed=s) for s in range(3)]
    )
    exact_view.show(found)
    said = capsys.readouterr().out
    assert f"day {found.median_day}" in said
    assert len(said.splitlines()) < 60
    assert "300" in said
    assert len(found.to_json()["curve"]) == 300


def test_a_run_without_an_answer_ends_in_words_and_not_in_numbers() -> None:
    study = exact_study("logistic", columns=2)
    tables = [people(60, 2, seed=s) for s in range(3)]
    apart = [FeatureTable(t.person_ids, t.x, t.mask, (t.x[:, 0] > 0).astype(np.float32)) for t in tables]
    found = of(study, apart)
    with pytest.raises(Stop, match="tells the outcome without fail") as stopped:
        exact_view.require_answer(found)
    assert stopped.value.code == Exit.REFUSED
    assert found.to_json()["verdict"] == "separated"
    assert found.to_json()["coefficients"] == []


def test_a_coefficient_is_said_for_one_unit_of_its_feature() -> None:
    form = exact_form("linear")
    form["features"] = [form["features"][0]]  # age, from 30 to 90 on a scale of 2; the outcome from 90 to 190
    study = Study.from_json(form)
    rng = np.random.default_rng(1)
    age = rng.uniform(30, 90, 300)
    pressure = 100.0 + 0.5 * age
    x = ((age - 60.0) / 30.0)[:, None].astype(np.float32)
    y = ((pressure - 140.0) / 50.0).astype(np.float32)
    whole = FeatureTable(np.arange(300), x, np.ones(x.shape, dtype=bool), y)
    found = of(study, [whole.rows(np.arange(300) % 3 == k) for k in range(3)])
    assert found.coefficients[0].per_unit == pytest.approx(0.5, abs=1e-5)
    assert found.coefficients[0].ratio is None
    assert found.coefficients[1].per_unit is None


def test_another_kind_of_run_has_no_such_result() -> None:
    assert exact_view.of_run(Study.parse((EXAMPLES / "heart_failure.toml").read_bytes()), (0.0,)) is None
    assert exact_view.of_run(exact_study("cox"), ()) is None


@pytest.mark.parametrize("name", ["exact", "cox", "survival"])
def test_the_examples_are_exact_studies(name: str) -> None:
    study = Study.parse((EXAMPLES / f"heart_failure_{name}.toml").read_bytes())
    assert study.exact is not None
    assert study.training.mode == "exact"


def test_the_budget_shows_exact_releases_beside_it(fedtwin: Fedtwin, hospital: Path) -> None:
    fedtwin("node", "policy", "init", "demo", "--home", hospital)
    assert fedtwin("node", "budget", "--home", hospital, "--json").json["exact_releases"] == {}
    assert "exact releases" not in fedtwin("node", "budget", "--home", hospital).out
    with Ledger(hospital / "ledger.sqlite", clock=SystemClock()) as ledger:
        for step in range(4):
            ledger.release_exact("exact/s-1", account=Account("demo", "ada"), study="a" * 64, step=step)
    said = fedtwin("node", "budget", "--home", hospital, "--json").json
    assert said["exact_releases"] == {"a" * 64: 4}
    assert said["spent"] == {"epsilon": 0.0, "events": 0}
    shown = fedtwin("node", "budget", "--home", hospital).out
    assert "exact releases: 4" in shown
    assert "No epsilon covers them" in shown


def test_a_hospital_is_told_what_to_write_and_no_epsilon(fedtwin: Fedtwin, hospital: Path) -> None:
    plan = EXAMPLES / "heart_failure_exact.toml"
    said = fedtwin("node", "approve", plan, "--home", hospital)
    digest = Study.parse(plan.read_bytes()).plan_hash().hex()
    assert said.code == Exit.OK
    assert digest in said.out + said.err
    assert "without noise" in said.out + said.err
    assert fedtwin("node", "studies", "--home", hospital, "--json").json["studies"][0]["epsilon"] is None
    assert "none holds" in fedtwin("node", "studies", "--home", hospital).out


def test_there_is_no_claim_to_audit(fedtwin: Fedtwin) -> None:
    said = fedtwin("audit", EXAMPLES / "heart_failure_exact.toml")
    assert said.code == Exit.USAGE
    assert "no claim" in said.err
