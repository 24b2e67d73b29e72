"""Looks at a model at the end of rounds: who they are over, what they cost, what a crash leaves of them."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from node.features.splitting import in_training, in_validation
from node.features.study_rows import feature_table
from node.training.validation import LocalFigures, Split, judged, looked
from privacy import descent, study_noise, validation, walks
from privacy.budget import Selection
from privacy.walks import begin
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from tests.node.hub import POLICY, Hospitals
from tests.node.patients import fill
from tests.node.test_rounds import audit_lines, codes, patients
from tests.protocols.study_forms import study_form

SECTION: dict[str, Any] = {"every": 2, "fraction": 0.3, "share": 0.3, "loss_bound": 2.0, "patience": 2}
STUDY = Study.from_json(
    study_form(validation=SECTION, training__rounds=4, training__train_fraction=0.5, privacy__epsilon=50.0)
)
START = walks.initial(STUDY)
SIZES = (200, 150, 120, 80)


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Hospitals]:
    with Hospitals(tmp_path, 4, policy=_wide()) as opened:
        for place, (hospital, size) in enumerate(zip(opened.all, SIZES, strict=True)):
            fill(hospital.store, patients(size, seed=place))
        opened.approve(STUDY)
        yield opened


def _wide() -> bytes:
    policy = POLICY.replace(b"max_epsilon = 4.0", b"max_epsilon = 60.0")
    for key in (b"epsilon_total", b"epsilon_dataset", b'"*"'):
        policy = b"\n".join(
            key + b" = 70.0" if line.startswith(key) else line for line in policy.split(b"\n")
        )
    return policy


def spent(network: Hospitals) -> list[tuple[int, int]]:
    """Return steps and looks committed at each hospital."""
    plan = STUDY.plan_hash()
    return [(h.trainer.steps_taken(plan), h.trainer.looks_taken(plan)) for h in network.all]


def test_training_validation_and_test_patients_are_three_parts_of_all(network: Hospitals) -> None:
    for hospital in network.all:
        table = feature_table(STUDY, hospital.store)
        key = hospital.node.raw
        training = in_training(table.person_ids, key=key, fraction=0.5)
        tried = in_validation(table.person_ids, key=key, after=0.5, fraction=0.3)
        assert not (training & tried).any()
        split = Split.of(STUDY, table, key=key)
        assert (len(split.training), len(split.validation)) == (training.sum(), tried.sum())
        assert split.patients == len(table) > training.sum() + tried.sum()
    ids = np.arange(20_000)
    assert in_validation(ids, key=bytes(16), after=0.5, fraction=0.3).mean() == pytest.approx(0.3, abs=0.02)
    plain = Split.of(Study.from_json(study_form()), feature_table(STUDY, network.all[0].store), key=bytes(16))
    assert len(plain.validation) == 0


def test_one_patient_more_moves_what_leaves_by_at_most_the_norm(network: Hospitals) -> None:
    table = feature_table(STUDY, network.all[0].store)
    params = 50.0 * np.ones(STUDY.parameters)  # losses far beyond the bound
    split = Split.of(STUDY, table, key=bytes(16))
    whole = looked(STUDY, params, split).added.sum(axis=0)
    for left_out in range(0, len(table), 7):
        keep = np.arange(len(table)) != left_out
        fewer = Split.of(STUDY, table.rows(keep), key=bytes(16))
        moved = np.linalg.norm(whole - looked(STUDY, params, fewer).added.sum(axis=0))
        assert 0.0 < moved <= validation.patient_norm(STUDY) * (1 + 1e-9)
    each, _ = judged(STUDY, params, split.validation)
    assert each.max() > 2.0


def test_a_look_is_charged_by_its_own_event_in_its_own_rounds_only(network: Hospitals) -> None:
    for number in (1, 2, 3, 4):
        replies = network.round(STUDY, START, round=number)
        assert len({reply.parameters_digest for reply in replies}) == 1
        assert spent(network) == [(3 * number, number // 2)] * 4
    for hospital in network.all:
        assert 49.9 < hospital.ledger.spent("tests", delta=1e-5).epsilon <= 50.0  # all of the plan's, no more
        noises = {e.event.noise_multiplier for e in hospital.ledger.entries() if e.event is not None}
        assert noises == set(validation.noise_multipliers(STUDY))
        assert hospital.ledger.open_reservations(Selection()) == 0
    assert codes(network.round(STUDY, START, round=4)) == {RefusalCode.BUDGET_EXHAUSTED}


def test_the_total_says_how_the_rounds_model_does_on_validation_patients(network: Hospitals) -> None:
    replies = network.round(STUDY, START, round=2)
    plan = study_noise.noise_plan(STUDY, participants=4, tolerance=1)
    walk = begin(STUDY, START)
    for step in range(3):
        sent = [vector for _, vector in network.hub.vectors[4 * step : 4 * step + 4]]
        walk.apply(plan.decode(np.sum(sent, axis=0, dtype=np.uint64)))
    assert descent.digest(walk.carried) == replies[0].parameters_digest
    look = validation.noise_plan(STUDY, participants=4, tolerance=1)
    total = look.decode(np.sum([v for _, v in network.hub.vectors[12:]], axis=0, dtype=np.uint64))
    splits = [Split.of(STUDY, feature_table(STUDY, h.store), key=h.node.raw) for h in network.all]
    exact = np.sum([looked(STUDY, walk.params, split).added.sum(axis=0) for split in splits], axis=0)
    sd = look.standard_deviation(contributors=4)
    assert 0.0 < np.abs(total - exact).max() < 6.0 * sd  # noise, and no more than that
    found = {m.name: m for m in validation.metrics(STUDY, total, round=2, noise_sd=sd)}
    assert found["patients"].value == pytest.approx(sum(SIZES), abs=6.0 * found["patients"].noise_sd)
    kept = LocalFigures(network.all[0].home / "looks")
    assert {m.name: m.value for m in kept.fleet(STUDY)} == {name: m.value for name, m in found.items()}


def test_a_sites_own_figures_stay_at_the_site_and_are_exact(network: Hospitals) -> None:
    network.round(STUDY, START, round=2)
    for hospital in network.all:
        kept = hospital.home / "looks" / f"{STUDY.plan_hash().hex()}.jsonl"
        assert kept.stat().st_mode & 0o777 == 0o600
        (line,) = [json.loads(text) for text in kept.read_text().splitlines()]
        split = Split.of(STUDY, feature_table(STUDY, hospital.store), key=hospital.node.raw)
        assert line["here"]["patients"] == len(split.validation)
        assert not any("loss" in json.dumps(entry) for entry in audit_lines(hospital.home))


def test_a_session_without_room_for_the_look_is_refused_and_nothing_is_charged(network: Hospitals) -> None:
    session = network.hub.open(STUDY, round=2, steps=3)
    assert codes(network.round(STUDY, START, round=2, session=session)) == {RefusalCode.PROTOCOL_VIOLATION}
    session = network.hub.open(STUDY, round=1, steps=4)
    assert codes(network.round(STUDY, START, round=1, session=session)) == {RefusalCode.PROTOCOL_VIOLATION}
    assert spent(network) == [(0, 0)] * 4


def test_a_look_whose_total_never_comes_is_charged_and_the_round_stands(tmp_path: Path) -> None:
    with Hospitals(tmp_path, 4, policy=_wide(), deadline_s=3.0) as network:
        for place, hospital in enumerate(network.all):
            fill(hospital.store, patients(60, seed=place))
        network.approve(STUDY)
        for hospital in network.all[:2]:  # more than the noise tolerates are gone when the look comes
            _gone_at(network, hospital, step=3)
        replies = network.round(STUDY, START, round=2)
        assert all(isinstance(reply, RoundReply) for reply in replies), replies
        assert len({reply.parameters_digest for reply in replies}) == 1
        assert spent(network) == [(3, 1)] * 4
        assert all(h.ledger.open_reservations(Selection()) == 0 for h in network.all)


@pytest.mark.parametrize("moment", ["before the charge", "after the charge"])
def test_a_crash_in_a_look_charges_it_once_and_holds_no_budget(network: Hospitals, moment: str) -> None:
    lost = network.all[0]
    _crash(lost, in_look=True, charged=moment == "after the charge")
    session = network.hub.open(STUDY, round=2)
    with pytest.raises(_Killed):
        _round_with_a_kill(network, session)
    again = _restart(network, lost)
    network.all[0] = again
    network.hub.gone.clear()
    looks = again.trainer.looks_taken(STUDY.plan_hash())
    assert looks == (1 if moment == "after the charge" else 0)
    assert again.trainer.steps_taken(STUDY.plan_hash()) == 3
    assert again.ledger.open_reservations(Selection()) == 0
    before = again.ledger.spent(delta=1e-5)
    network.round(STUDY, START, round=4)
    after = again.ledger.spent(delta=1e-5)
    assert after.events == before.events + 4  # three steps and a look: none of the lost ones again
    again.ledger.verify()


class _Killed(BaseException):
    """The process ends here: nothing is caught, nothing is tidied up."""


def _gone_at(network: Hospitals, hospital: Any, *, step: int) -> None:
    """Let a hospital's input to this step of any session not leave."""
    sums = hospital.trainer._sums.sums
    sent = sums.contribute

    async def contribute(session, at, *words, **more) -> None:  # type: ignore[no-untyped-def]
        if at == step:
            raise Refused(RefusalCode.NOT_READY)
        await sent(session, at, *words, **more)

    sums.contribute = contribute


def _crash(hospital: Any, *, in_look: bool, charged: bool) -> None:
    """End the hospital's process at its first charge of a look: before it, or right after."""
    ledger = hospital.ledger
    commit = ledger.commit

    def killing(reservation, *, count=None) -> None:  # type: ignore[no-untyped-def]
        look = reservation.request_id.startswith("validation:")
        if look and not charged:
            raise _Killed
        commit(reservation, count=count)
        if look:
            raise _Killed

    ledger.commit = killing
    ledger.release = lambda *_args, **_more: None  # a process that was killed releases nothing


def _round_with_a_kill(network: Hospitals, session: Any) -> None:
    lost, *others = network.all
    request = RoundRequest(STUDY.plan_hash(), 2, session, START)
    threads = [threading.Thread(target=_quietly, args=(h, request)) for h in others]
    for thread in threads:
        thread.start()
    try:
        lost.trainer.train(request)
    finally:
        network.hub.gone.add(lost.node)
        settle = next(iter(others)).trainer._sums.sums
        network.loop.call_soon_threadsafe(lambda: _settled(settle, session))
        for thread in threads:
            thread.join(30)


def _settled(sums: Any, session: Any) -> None:
    if 3 in sums._hub.session(session).inputs:
        sums.settle(session, 3)


def _quietly(hospital: Any, request: Any) -> None:
    hospital.trainer.train(request)


def _restart(network: Hospitals, lost: Any) -> Any:
    lost.store.close()
    lost.ledger._chain.close()
    lost.trainer._audit.close()
    return network.start(lost.node, lost.home, _wide())
