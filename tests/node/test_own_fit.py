"""A hospital keeps as much of an own part as its own patients show need of, and it costs nothing more."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.features.table import FeatureTable
from node.training import models
from node.training.own_fit import fitted
from node.training.own_part import OwnParts
from privacy import descent, study_noise, walks
from privacy.rng import SecureBits
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from sim.federation import Noise, federate
from tests.node.hub import Hospitals
from tests.node.test_rounds import fill_all
from tests.protocols.study_forms import study_form

PLAIN = Study.from_json(study_form())
WIDTH = len(PLAIN.columns)


def plan(kept: str = "earned", trained: str = "after", **changes: Any) -> Study:
    changes = {"study__local": "intercept"} | changes
    return Study.from_json(study_form(own_part={"kept": kept, "trained": trained}, **changes))


EARNED, ALWAYS = plan(), plan("always")


def model(study: Study) -> np.ndarray:
    """A shared model that is right about the first column, and about nothing else."""
    params = np.zeros(study.parameters)
    params[0] = 2.0
    return params


def patients(seed: int, many: int, *, shift: float = 0.0, slope: float = 0.0) -> FeatureTable:
    """Patients to whom the shared model applies but for a level, and a column, of this hospital only."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (many, WIDTH)).astype(np.float32)
    logits = 2.0 * x[:, 0] + shift + slope * x[:, 1]
    y = rng.random(many) < 1 / (1 + np.exp(-logits))
    return FeatureTable(np.arange(many), x, np.ones(x.shape, bool), y.astype(np.float32))


def loss(study: Study, table: FeatureTable, own: np.ndarray) -> float:
    logits = models.outputs(study, model(study), table, own=own)[:, 0]
    return float((np.logaddexp(0.0, logits) - table.y * logits).mean())


def right(study: Study, table: FeatureTable, own: np.ndarray) -> float:
    logits = models.outputs(study, model(study), table, own=own)[:, 0]
    return float(((logits > 0) == (table.y > 0.5)).mean())


@pytest.mark.parametrize("kept", ["always", "earned"])
def test_a_site_whose_base_rate_differs_keeps_its_intercept_and_gains(kept: str) -> None:
    study, test = plan(kept), patients(99, 20_000, shift=2.0)
    nothing = np.zeros(1)
    for seed in range(5):
        own = fitted(study, model(study), patients(seed, 200, shift=2.0))
        assert 0.7 < own[0] < 3.0
        assert loss(study, test, own) < loss(study, test, nothing) - 0.1
        assert right(study, test, own) > right(study, test, nothing) + 0.05


def test_a_site_whose_base_rate_does_not_differ_keeps_the_shared_model() -> None:
    kept = [fitted(EARNED, model(EARNED), patients(seed, 200))[0] for seed in range(8)]
    always = [fitted(ALWAYS, model(ALWAYS), patients(seed, 200))[0] for seed in range(8)]
    assert sum(own != 0.0 for own in kept) <= 1
    assert all(own != 0.0 for own in always), "the other rule follows chance"
    test = patients(98, 20_000)
    lost = [loss(EARNED, test, np.array([own])) - loss(EARNED, test, np.zeros(1)) for own in (*kept, *always)]
    assert np.mean(lost[:8]) < 0.2 * np.mean(lost[8:])


def test_a_small_difference_is_believed_at_a_large_site_only_and_then_by_half() -> None:
    few = fitted(EARNED, model(EARNED), patients(1, 60, shift=0.4))
    many = fitted(EARNED, model(EARNED), patients(1, 5_000, shift=0.4))
    assert few[0] == 0.0
    assert 0.1 < many[0] < fitted(ALWAYS, model(ALWAYS), patients(1, 5_000, shift=0.4))[0]


def test_a_head_is_kept_where_a_column_means_something_else() -> None:
    earned, always = plan(study__local="head"), plan("always", study__local="head")
    other, test = patients(3, 400, slope=3.0), patients(97, 20_000, slope=3.0)
    own = fitted(earned, model(earned), other)
    assert own[1] > 1.0
    assert loss(earned, test, own) < loss(earned, test, np.zeros(own.size)) - 0.1
    same = patients(4, 100)
    assert not fitted(earned, model(earned), same).any()
    assert fitted(always, model(always), same).any()


def test_a_fit_is_the_same_twice_and_finite_for_any_number_of_patients() -> None:
    for many in (0, 1, 2, 9, 30):
        sick = patients(5, many)
        sick = FeatureTable(sick.person_ids, sick.x, sick.mask, np.ones(many, np.float32))
        own = fitted(EARNED, model(EARNED), sick)
        assert own.shape == (1,)
        assert np.isfinite(own).all()
        assert own[0] == 0.0 if many < 2 else own[0] >= 0.0
        assert np.array_equal(own, fitted(EARNED, model(EARNED), sick))
    assert own[0] > 1.0, "thirty, all of them sick"


@pytest.mark.parametrize("kind", ["class", "amount", "time"])
def test_other_outcomes_are_fitted_by_their_own_loss(kind: str) -> None:
    outcome: dict[str, Any] = {"kind": kind, "table": "condition_occurrence", "concept_id": 316139}
    if kind == "class":
        outcome |= {"table": "observation", "categories": [1, 2, 3]}
    if kind == "amount":
        outcome |= {"table": "measurement", "unit_concept_id": 8876, "range": [0, 1]}
    if kind == "time":
        outcome |= {"edges": [100, 200, 300]}
    study, rng = plan(outcome=outcome), np.random.default_rng(6)
    table = patients(6, 300)
    y: np.ndarray = rng.normal(0.8, 0.1, 300)
    if kind == "class":
        y = rng.choice(3, 300, p=(0.1, 0.1, 0.8))
    if kind == "time":
        y = np.stack([rng.choice(3, 300, p=(0.8, 0.1, 0.1)), np.ones(300)], axis=1)
    own = fitted(study, descent.initial(study), FeatureTable(table.person_ids, table.x, table.mask, y))
    assert own.shape == (study.own_parameters,)
    assert np.abs(own).max() > 0.3


# ---- a part that comes after the shared model ----


def test_a_part_that_comes_after_costs_the_shared_model_nothing() -> None:
    tables = [patients(seed, 80, shift=seed - 1.0) for seed in range(3)]
    after, plain = (federate(s, tables, noise=Noise.NONE, bits=SecureBits()) for s in (EARNED, PLAIN))
    along = federate(plan(trained="along"), tables, noise=Noise.NONE, bits=SecureBits())
    assert np.array_equal(after.params, plain.params)
    assert not np.array_equal(along.params, plain.params)
    assert [own.size for own in after.own] == [0, 0, 0]
    assert study_noise.event(EARNED, steps=1) == study_noise.event(PLAIN, steps=1)
    assert (EARNED.local_parameters, EARNED.own_parameters) == (0, 1)


def test_a_plan_that_says_nothing_of_it_keeps_its_hash_and_one_that_does_gets_another() -> None:
    silent = Study.from_json(study_form(study__local="intercept"))
    assert plan("always", "along").plan_hash() == silent.plan_hash()
    hashes = {plan(k, t).plan_hash() for k in ("always", "earned") for t in ("along", "after")}
    assert len(hashes) == 4
    assert Study.from_json(EARNED.to_json()) == EARNED
    for form in (
        study_form(own_part={"kept": "earned"}),
        study_form(study__local="intercept", own_part={"kept": "sometimes"}),
        study_form(study__local="intercept", own_part={"ridge": 1.0}),
    ):
        with pytest.raises(MalformedStudy, match="own_part"):
            Study.from_json(form)


def test_hospitals_fit_their_parts_at_the_end_and_send_what_they_send_without_them(tmp_path: Path) -> None:
    with Hospitals(tmp_path, 3) as network:
        fill_all(network, (40, 25, 10))
        network.approve(EARNED)
        carried = walks.initial(EARNED)
        summed = study_noise.private_plan(EARNED, participants=3, tolerance=EARNED.sites.tolerance)
        for number in (1, 2):
            parts = [
                OwnParts(hospital.home / "own_parts").load(EARNED, final=True) for hospital in network.all
            ]
            assert parts == [None] * 3
            replies = network.round(EARNED, carried, round=number)
            walk = walks.begin(EARNED, carried)
            for step in range(3):
                sent = [vector for _, vector in network.hub.vectors[-9:][3 * step : 3 * step + 3]]
                assert {len(vector) for vector in sent} == {PLAIN.parameters}
                walk.apply(summed.decode(np.sum(sent, axis=0, dtype=np.uint64)))
            carried = walk.carried
            assert {reply.parameters_digest for reply in replies} == {descent.digest(carried)}
        for hospital in network.all:
            part = OwnParts(hospital.home / "own_parts").load(EARNED, final=True)
            assert part is not None
            assert part == pytest.approx(
                fitted(EARNED, walk.params, hospital.trainer._split(EARNED).training), abs=1e-9
            )
            [event] = {e.event.times(1) for e in hospital.ledger.entries() if e.event is not None}
            assert event == study_noise.event(PLAIN, steps=1).times(1)
