"""Rounds of local training and of samples at hospitals: what is charged, what leaves, what a crash wastes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from privacy import descent, study_noise, study_releases
from privacy.accountant import SampledGaussianEvent, epsilon
from privacy.server_step import ServerStep
from privacy.walks import begin
from protocols.refusal import RefusalCode
from protocols.round import RoundReply
from protocols.study import Study
from tests.node.hub import POLICY, Hospitals
from tests.node.test_rounds import audit_lines, codes, fill_all
from tests.protocols.study_forms import study_form

LOCAL = {"local_steps": 4, "sampling_rate": 0.5, "update_clip": 0.5}
FORMS = {
    "local": study_form(training__mode="local") | {"local": LOCAL},
    "scaffold": study_form(training__mode="local") | {"local": LOCAL | {"aggregator": "scaffold"}},
    "sampled": study_form(training__sampling_rate=0.5),
    "adapting": study_form(training__sampling_rate=0.5) | {"clipping": {"quantile": 0.5}},
}
PER_SUM = {"local": 4, "scaffold": 4, "sampled": 1, "adapting": 1}


@pytest.fixture(
    params=[
        "local",
        "sampled",
        pytest.param("scaffold", marks=pytest.mark.slow),
        pytest.param("adapting", marks=pytest.mark.slow),
    ]
)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def study(mode: str) -> Study:
    return Study.from_json(FORMS[mode])


@pytest.fixture
def network(tmp_path: Path, study: Study) -> Iterator[Hospitals]:
    with Hospitals(tmp_path, 4) as opened:
        fill_all(opened)
        opened.approve(study)
        yield opened


def test_all_sites_end_with_the_model_that_follows_from_the_totals(network: Hospitals, study: Study) -> None:
    """Also a site with one patient, and one with none: what it adds is noise, and it is one of four."""
    start = descent.initial(study)
    replies = network.round(study, start, round=1)
    assert all(isinstance(reply, RoundReply) for reply in replies), replies
    sums = study_noise.private_plan(study, participants=4, tolerance=1)
    walk = begin(study, start)
    while not walk.finished:
        at = 4 * walk.steps_done
        sent = [vector for _, vector in network.hub.vectors[at : at + 4]]
        walk.apply(sums.decode(np.sum(sent, axis=0, dtype=np.uint64)))
    assert {reply.parameters_digest for reply in replies} == {descent.digest(walk.params)}
    assert not np.array_equal(walk.params, start)
    if isinstance(walk, ServerStep):
        total = sums.decode(np.sum([v for _, v in network.hub.vectors[:4]], axis=0, dtype=np.uint64))
        assert total[-1] == 4.0


def test_every_sum_is_charged_as_what_it_releases_and_the_run_costs_what_the_plan_says(
    network: Hospitals, study: Study, mode: str
) -> None:
    for number in (1, 2):
        network.round(study, descent.initial(study), round=number)
        for hospital in network.all:
            assert hospital.ledger.spent(delta=1e-5).events == 3 * number * PER_SUM[mode]
    for hospital in network.all:
        assert 0.99 < hospital.ledger.spent(delta=1e-5).epsilon <= 1.0
        [event] = {entry.event.times(1) for entry in hospital.ledger.entries() if entry.event is not None}
        assert event == SampledGaussianEvent(study_releases.noise_multiplier(study), 0.5)
    assert codes(network.round(study, descent.initial(study), round=2)) == {RefusalCode.BUDGET_EXHAUSTED}


def test_after_a_restart_in_the_middle_a_sum_is_wasted_and_nothing_is_used_twice(
    network: Hospitals, study: Study, mode: str
) -> None:
    lost, start = network.all[0], descent.initial(study)
    session = network.hub.open(study, round=1)
    network.hub.gone.add(lost.node)
    replies = network.round(study, start, round=1, session=session)
    assert codes(replies[:1]) == {RefusalCode.NOT_READY}
    assert len({reply.parameters_digest for reply in replies[1:]}) == 1
    assert lost.ledger.spent(delta=1e-5).events == PER_SUM[mode], "committed before it would have left"
    lost.store.close()
    lost.ledger.close()
    lost.trainer._audit.close()
    network.all[0] = again = network.start(lost.node, lost.home)
    network.hub.gone.clear()
    assert again.ledger.spent(delta=1e-5).events == PER_SUM[mode]
    assert again.trainer.steps_taken(study.plan_hash()) == 1
    replies = network.round(study, start, round=2)
    assert len({reply.parameters_digest for reply in replies}) == 1
    assert again.trainer.steps_taken(study.plan_hash()) == 4
    assert again.ledger.spent(delta=1e-5).events == 4 * PER_SUM[mode]
    assert codes(network.round(study, start, round=2)[:1]) == {RefusalCode.BUDGET_EXHAUSTED}, "two are left"


def test_two_tries_of_a_step_have_neither_sample_nor_noise_in_common(
    network: Hospitals, study: Study
) -> None:
    start, sites = descent.initial(study), 4
    sums = study_noise.private_plan(study, participants=4, tolerance=1)
    for number in (1, 2):
        network.round(study, start, round=number)
    first, second = (
        [sums.decode(vector) for _, vector in network.hub.vectors[at : at + sites]] for at in (0, 3 * sites)
    )
    for vector in first:
        assert not any(np.array_equal(vector, other) for other in second)


def test_a_plan_whose_run_the_caps_do_not_cover_is_refused_before_anything_is_read(
    tmp_path: Path, study: Study
) -> None:
    policy = POLICY.replace(b'"*" = 10.0', b'"*" = 0.9')
    assert epsilon([study_noise.event(study, steps=3)], delta=1e-5) < 0.9
    with Hospitals(tmp_path, 4, policy=policy) as network:
        fill_all(network)
        network.approve(study)
        refused = network.round(study, descent.initial(study), round=1)
        assert codes(refused) == {RefusalCode.BUDGET_EXHAUSTED}
        assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {0}
        assert not network.hub.vectors


def test_a_plan_whose_noise_a_second_accountant_finds_too_small_is_not_trained(
    network: Hospitals, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = study_releases.noise_multiplier
    monkeypatch.setattr(study_releases, "noise_multiplier", lambda study: 0.7 * right(study))
    assert codes(network.round(study, descent.initial(study), round=1)) == {RefusalCode.INTERNAL}
    assert not network.hub.vectors


@pytest.mark.parametrize("name", ["local", "sampled"])
def test_looks_at_the_model_are_charged_beside_its_steps_and_both_are_what_the_plan_says(
    tmp_path: Path, name: str
) -> None:
    looks = {"every": 2, "fraction": 0.1, "share": 0.1, "loss_bound": 3.0, "patience": 0}
    study = Study.from_json(FORMS[name] | {"validation": looks})
    with Hospitals(tmp_path, 4, deadline_s=120.0) as network:
        fill_all(network)
        network.approve(study)
        for number in (1, 2):
            replies = network.round(study, descent.initial(study), round=number)
            failed = [repr(reply) for reply in replies if isinstance(reply, Exception)]
            assert not failed
        for hospital in network.all:
            spent = hospital.ledger.spent(delta=1e-5)
            assert spent.events == 6 * PER_SUM[name] + 1
            assert 0.99 < spent.epsilon <= 1.0
            assert hospital.trainer.steps_taken(study.plan_hash()) == 6


def test_absurd_parameters_give_no_update_and_break_no_promise(network: Hospitals, study: Study) -> None:
    replies = network.round(study, np.full(study.parameters, 1.7e308), round=1)
    assert all(isinstance(reply, RoundReply) for reply in replies)


def test_neither_audit_trail_nor_ledger_says_who_or_how_many_were_drawn(
    network: Hospitals, study: Study, mode: str
) -> None:
    network.round(study, descent.initial(study), round=1)
    charges = [
        line["fields"] for line in audit_lines(network.all[0].home) if line["event"] == "budget-committed"
    ]
    plan = study_noise.private_plan(study, participants=4, tolerance=1)
    assert {charge["bytes_sent"] for charge in charges} == {plan.dimension * plan.ring_bytes}
    assert {charge["count"] for charge in charges} == {PER_SUM[mode]}
    known = {
        "request_id", "session_id", "step", "count", "bytes_sent", "ledger_seq", "ledger_head",
    }  # fmt: skip
    assert all(set(charge) == known for charge in charges)
