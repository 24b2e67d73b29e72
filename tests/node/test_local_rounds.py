"""Rounds of local training and of samples at hospitals: what is charged, what leaves, what a crash wastes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from node.training.own_part import OwnParts
from privacy import descent, study_noise, study_releases, walks
from privacy.accountant import SampledGaussianEvent, epsilon
from privacy.lanes import words_for
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
    start = walks.initial(study)
    replies = network.round(study, start, round=1)
    assert all(isinstance(reply, RoundReply) for reply in replies), replies
    sums = study_noise.private_plan(study, participants=4, tolerance=1)
    walk = begin(study, start)
    while not walk.finished:
        at = 4 * walk.steps_done
        sent = [vector for _, vector in network.hub.vectors[at : at + 4]]
        walk.apply(sums.decode(np.sum(sent, axis=0, dtype=np.uint64)))
    assert {reply.parameters_digest for reply in replies} == {descent.digest(walk.carried)}
    assert len(walk.carried) == len(start) == study.carried
    assert not np.array_equal(walk.carried, start)
    if isinstance(walk, ServerStep):
        total = sums.decode(np.sum([v for _, v in network.hub.vectors[:4]], axis=0, dtype=np.uint64))
        assert total[-1] == 4.0


def test_every_sum_is_charged_as_what_it_releases_and_the_run_costs_what_the_plan_says(
    network: Hospitals, study: Study, mode: str
) -> None:
    for number in (1, 2):
        network.round(study, walks.initial(study), round=number)
        for hospital in network.all:
            assert hospital.ledger.spent(delta=1e-5).events == 3 * number * PER_SUM[mode]
    for hospital in network.all:
        assert 0.99 < hospital.ledger.spent(delta=1e-5).epsilon <= 1.0
        [event] = {entry.event.times(1) for entry in hospital.ledger.entries() if entry.event is not None}
        assert event == SampledGaussianEvent(study_releases.noise_multiplier(study), 0.5)
    assert codes(network.round(study, walks.initial(study), round=2)) == {RefusalCode.BUDGET_EXHAUSTED}


def test_after_a_restart_in_the_middle_a_sum_is_wasted_and_nothing_is_used_twice(
    network: Hospitals, study: Study, mode: str
) -> None:
    lost, start = network.all[0], walks.initial(study)
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
    start, sites = walks.initial(study), 4
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
        refused = network.round(study, walks.initial(study), round=1)
        assert codes(refused) == {RefusalCode.BUDGET_EXHAUSTED}
        assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {0}
        assert not network.hub.vectors


def test_a_plan_whose_noise_a_second_accountant_finds_too_small_is_not_trained(
    network: Hospitals, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = study_releases.noise_multiplier
    monkeypatch.setattr(study_releases, "noise_multiplier", lambda study: 0.7 * right(study))
    assert codes(network.round(study, walks.initial(study), round=1)) == {RefusalCode.INTERNAL}
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
            replies = network.round(study, walks.initial(study), round=number)
            failed = [repr(reply) for reply in replies if isinstance(reply, Exception)]
            assert not failed
        for hospital in network.all:
            spent = hospital.ledger.spent(delta=1e-5)
            assert spent.events == 6 * PER_SUM[name] + 1
            assert 0.99 < spent.epsilon <= 1.0
            assert hospital.trainer.steps_taken(study.plan_hash()) == 6


def absurd(study: Study) -> np.ndarray:
    return np.append(np.full(study.parameters, 1.7e308), walks.initial(study)[study.parameters :])


def test_absurd_parameters_give_no_update_and_break_no_promise(network: Hospitals, study: Study) -> None:
    """Hospitals that were away for a round believe what they are told."""
    replies = network.round(study, absurd(study), round=2)
    assert all(isinstance(reply, RoundReply) for reply in replies)


def test_neither_audit_trail_nor_ledger_says_who_or_how_many_were_drawn(
    network: Hospitals, study: Study, mode: str
) -> None:
    network.round(study, walks.initial(study), round=1)
    charges = [
        line["fields"] for line in audit_lines(network.all[0].home) if line["event"] == "budget-committed"
    ]
    plan = study_noise.private_plan(study, participants=4, tolerance=1)
    assert {charge["bytes_sent"] for charge in charges} == {8 * words_for(plan.dimension, lanes=plan.lanes)}
    assert {charge["count"] for charge in charges} == {PER_SUM[mode]}
    known = {
        "request_id", "session_id", "step", "count", "bytes_sent", "ledger_seq", "ledger_head",
    }  # fmt: skip
    assert all(set(charge) == known for charge in charges)


# ---- what goes from round to round ----

ADAM = {"aggregator": "fedadam", "server_learning_rate": 0.05}


def served(network: Hospitals, study: Study, carried: np.ndarray, *, round: int) -> np.ndarray:
    """Run a round at all hospitals; return what the totals make of `carried`, which all must agree on."""
    seen = len(network.hub.vectors)
    replies = network.round(study, carried, round=round)
    walk, sums = begin(study, carried), study_noise.private_plan(study, participants=4, tolerance=1)
    sent = [vector for _, vector in network.hub.vectors[seen:]]
    while not walk.finished:
        at = 4 * walk.steps_done
        walk.apply(sums.decode(np.sum(sent[at : at + 4], axis=0, dtype=np.uint64)))
    assert {reply.parameters_digest for reply in replies} == {descent.digest(walk.carried)}, replies
    return walk.carried


@pytest.mark.parametrize("name", ["fedadam", "adapting"])
def test_rounds_of_one_sum_remember_the_sums_before(tmp_path: Path, name: str) -> None:
    """Each round of a run is one secure sum here: without a memory FedAdam would be a sign and a rate."""
    form = (
        study_form(training__mode="local") | {"local": LOCAL | ADAM}
        if name == "fedadam"
        else study_form() | {"clipping": {"quantile": 0.5, "learning_rate": 1.0}}
    )
    form["training"] |= {"rounds": 3, "steps_per_round": 1}
    study = Study.from_json(form)
    with Hospitals(tmp_path, 4) as network:
        fill_all(network)
        network.approve(study)
        carried = walks.initial(study)
        for number in (1, 2, 3):
            last = carried
            carried = served(network, study, carried, round=number)
        memory = carried[study.parameters :]
        if name == "fedadam":
            assert memory[-1] == 3.0
            step = np.abs(carried - last)[: study.parameters]
            assert step.min() < 0.9 * ADAM["server_learning_rate"], "from rest it would be the rate itself"
        else:
            assert memory[0] != last[-1] != study.privacy.clip_norm
        lines = audit_lines(network.all[0].home)
        ends = [one["fields"]["model_hash"] for one in lines if one["event"] == "round-finished"]
        starts = [one["fields"]["model_hash"] for one in lines if one["event"] == "round-started"]
        assert starts == [descent.digest(walks.initial(study)).hex(), *ends[:-1]]


def test_a_request_without_the_memory_or_with_one_that_no_sums_leave_is_refused(tmp_path: Path) -> None:
    study = Study.from_json(study_form(training__mode="local") | {"local": LOCAL | ADAM})
    start = walks.initial(study)
    uneven = np.append(start[:-1], 0.5)
    negative = np.append(start[:-2], [-1.0, 0.0])
    with Hospitals(tmp_path, 4) as network:
        fill_all(network)
        network.approve(study)
        assert codes(network.round(study, descent.initial(study), round=1)) == {RefusalCode.MALFORMED}
        for bad in (uneven, negative):
            assert codes(network.round(study, bad, round=1)) == {RefusalCode.OTHER_MODEL}
            assert codes(network.round(study, bad, round=2)) == {RefusalCode.PROTOCOL_VIOLATION}
        assert {h.ledger.spent(delta=1e-5).events for h in network.all} == {0}


def short_rounds_of_scaffold() -> Study:
    """Three rounds of one sum each."""
    form = study_form(training__mode="local", training__rounds=3, training__steps_per_round=1)
    return Study.from_json(form | {"local": FORMS["scaffold"]["local"]})


def test_a_control_variate_stays_at_its_site_durably_and_starts_a_run_at_rest(tmp_path: Path) -> None:
    study = short_rounds_of_scaffold()
    with Hospitals(tmp_path, 4) as network:
        fill_all(network)
        network.approve(study)
        parts = [OwnParts(hospital.home / "own_parts") for hospital in network.all]
        first = served(network, study, walks.initial(study), round=1)
        kept = [part.control(study) for part in parts]
        assert all(one is not None for one in kept)
        assert np.allclose(np.mean(kept, axis=0), first[study.parameters :], atol=1e-6), "c is their mean"
        assert len({one.tobytes() for one in kept}) == 4
        file = parts[0].folder / f"{study.plan_hash().hex()}.control.npy"
        assert file.stat().st_mode & 0o077 == 0
        lost = network.all[0]
        for opened in (lost.store, lost.ledger, lost.trainer._audit):
            opened.close()
        network.all[0] = again = network.start(lost.node, lost.home)
        assert np.array_equal(again.trainer._site(study, round=2).control, kept[0])
        second = served(network, study, first, round=2)
        after = [part.control(study) for part in parts]
        assert np.allclose(np.mean(after, axis=0), second[study.parameters :], atol=1e-6)
        assert not any(np.array_equal(old, new) for old, new in zip(kept, after, strict=True))
        assert again.trainer._site(study, round=1).control is None


def test_a_sum_that_is_never_opened_leaves_the_control_variate_as_it_was(tmp_path: Path) -> None:
    study = short_rounds_of_scaffold()
    with Hospitals(tmp_path, 4) as network:
        fill_all(network)
        network.approve(study)
        first = served(network, study, walks.initial(study), round=1)
        lost = network.all[0]
        before = OwnParts(lost.home / "own_parts").control(study)
        session = network.hub.open(study, round=2)
        network.hub.gone.add(lost.node)
        replies = network.round(study, first, round=2, session=session)
        assert codes(replies[:1]) == {RefusalCode.NOT_READY}
        assert np.array_equal(OwnParts(lost.home / "own_parts").control(study), before)
        assert np.array_equal(lost.trainer._site(study, round=3).control, before)
