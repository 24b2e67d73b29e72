"""A coordinator that hands hospitals other models than the one they trained, or not all the same one."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from privacy import study_noise, walks
from privacy.descent import digest
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest
from protocols.study import Study
from tests.node.hub import Hospital, Hospitals
from tests.node.patients import fill
from tests.node.test_rounds import patients
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form(training__rounds=4, training__steps_per_round=2))
START = walks.initial(STUDY)
OTHER = np.linspace(-1.0, 1.0, STUDY.carried)
SITES, STEPS = 4, 2


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Hospitals]:
    with Hospitals(tmp_path, SITES) as opened:
        for seed, hospital in enumerate(opened.all):
            fill(hospital.store, patients(8, seed=seed))
        opened.approve(STUDY)
        yield opened


def told(
    network: Hospitals,
    models: list[np.ndarray],
    *,
    round: int,
    each_context_is_called_that_of_most: bool = False,
) -> list[RoundReply | BaseException]:
    """Run a round in which each hospital is told to start from another model."""
    session = network.hub.open(STUDY, round=round)
    if each_context_is_called_that_of_most:
        collector, named = network.hub.session(session).collector, {}
        honest = collector.input

        def lying(node: object, masked: object, *, step: int, context: bytes, **more: object) -> object:
            return honest(node, masked, step=step, context=named.setdefault(step, context), **more)

        collector.input = lying

    def one(hospital: Hospital, model: np.ndarray) -> RoundReply | BaseException:
        try:
            return hospital.trainer.train(RoundRequest(STUDY.plan_hash(), round, session, model))
        except Exception as error:
            return error

    with ThreadPoolExecutor(SITES) as pool:
        return list(pool.map(one, network.all, models))


def after_round(network: Hospitals, start: np.ndarray) -> np.ndarray:
    """Return the model that the latest sums lead to."""
    plan, walk = study_noise.noise_plan(STUDY, participants=SITES, tolerance=1), walks.begin(STUDY, start)
    sent = [vector for _, vector in network.hub.vectors[-SITES * STEPS :]]
    for step in range(STEPS):
        walk.apply(plan.decode(np.sum(sent[SITES * step : SITES * step + SITES], axis=0, dtype=np.uint64)))
    return walk.carried


def lines(hospital: Hospital, event: str) -> list[dict]:
    found = [json.loads(line) for line in (hospital.home / "audit.jsonl").read_text().splitlines()]
    return [line["fields"] for line in found if line["event"] == event]


def charged(network: Hospitals) -> list[int]:
    return [hospital.ledger.spent(delta=1e-5).events for hospital in network.all]


def test_another_model_than_the_one_a_hospital_ended_with_is_refused_and_nothing_is_charged(
    network: Hospitals,
) -> None:
    replies = told(network, [START] * SITES, round=1)
    model = after_round(network, START)
    assert {reply.parameters_digest for reply in replies} == {digest(model)}
    sums, before = len(network.hub.vectors), charged(network)
    for number, wrong in ((2, OTHER), (1, model), (1, OTHER)):
        found = told(network, [wrong] * SITES, round=number)
        assert {error.code for error in found if isinstance(error, Refused)} == {RefusalCode.OTHER_MODEL}
    assert len(network.hub.vectors) == sums
    assert charged(network) == before == [STEPS] * SITES
    for hospital in network.all:
        assert [line["code"] for line in lines(hospital, "round-refused")] == ["other-model"] * 3
    replies = told(network, [model] * SITES, round=2)
    assert {reply.steps for reply in replies if isinstance(reply, RoundReply)} == {STEPS}


def test_a_hospital_alone_refuses_what_only_it_is_told_and_the_others_go_on(network: Hospitals) -> None:
    told(network, [START] * SITES, round=1)
    model = after_round(network, START)
    replies = told(network, [OTHER, model, model, model], round=2)
    assert isinstance(replies[0], Refused)
    assert replies[0].code is RefusalCode.OTHER_MODEL
    assert len({reply.parameters_digest for reply in replies[1:]}) == 1


def test_the_model_is_remembered_by_a_hospital_that_starts_anew(network: Hospitals) -> None:
    told(network, [START] * SITES, round=1)
    for place, hospital in enumerate(network.all):
        hospital.store.close()
        hospital.ledger.close()
        hospital.trainer._audit.close()
        network.all[place] = network.start(hospital.node, hospital.home)
    found = told(network, [OTHER] * SITES, round=2)
    assert {error.code for error in found if isinstance(error, Refused)} == {RefusalCode.OTHER_MODEL}
    assert len(found) == SITES


@pytest.mark.parametrize("lie", [False, True])
def test_hospitals_that_were_told_different_models_do_not_add_up(network: Hospitals, lie: bool) -> None:
    """Away in round 1, they cannot know better: masks that are bound to the model open no sum of theirs."""
    network.hub.vectors.clear()
    same = [OTHER] * SITES
    models = [START if lie else OTHER, *same[1:]]
    totals: list[np.ndarray] = []
    honest = network.all[1].trainer._sums.total

    def hearing(sending: object) -> np.ndarray:
        totals.append(honest(sending))
        return totals[-1]

    network.all[1].trainer._sums = Listening(network.all[1].trainer._sums, hearing)
    told(network, models, round=2, each_context_is_called_that_of_most=True)
    added = np.sum([vector for _, vector in network.hub.vectors[:SITES]], axis=0, dtype=np.uint64)
    assert np.array_equal(totals[0], added) is not lie
    if lie:  # nor of the three that agree, nor nearly
        assert not (totals[0] == added).any()
    for hospital in network.all:
        assert lines(hospital, "round-started")[0]["model_from"] == "not-known-here"


class Listening:
    """A hospital's sums, of which somebody hears the totals."""

    def __init__(self, sums: object, total: object) -> None:
        self._listened, self.total = sums, total

    def __getattr__(self, name: str) -> object:
        return getattr(self._listened, name)
