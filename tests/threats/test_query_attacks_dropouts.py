"""A coordinator that lies about who dropped out after everybody's input has left.

It wants two sums of one step, whose difference is one hospital's contribution; or a sum with fewer noise
shares than tolerated; or a second answer for one charge. The patient is known to the first hospitals, to as
many as the question says.
"""

import asyncio
from pathlib import Path

import numpy as np
import pytest

from privacy.errors import TooFewSurvivors
from privacy.secure_sum import threshold_for
from privacy.sum_collector import SumCollector
from protocols.question import Mechanism, Question
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb
from tests.privacy.sum_network import CONTEXT, SumNetwork, node
from tests.privacy.test_secure_sum_attacks import all_lies
from tests.threats.games import Advantage, bounds, contributions, evidence, question, released, report
from tests.threats.hostile import HostileCoordinator, hostile

HELD, GAMES = 40, 100_000
SPLITS = [
    (4, 0),
    (4, 1),
    (5, 1),
    (6, 2),
    (7, 2),
    (10, 3),
]  # hospitals, colluders that the threshold is made for


def vectors(sites: int, *, target: bool, known_to: int = 2) -> list[np.ndarray]:
    """Return each hospital's exact count."""
    return [np.array([HELD + (target and site < known_to)]) for site in range(sites)]


# ---- two sums of one step ----


@pytest.mark.parametrize("mechanism", Mechanism)
def test_two_sums_of_one_step_are_never_opened(mechanism: Mechanism) -> None:
    """Every way to tell some that the victim survived and others that it dropped, with all planned helpers.

    Unprotected: two helpers more than the threshold allows for. Then the difference of the two sums is the
    victim's count with a single share of the noise.
    """
    won = [all_lies(sites, planned=helpers, colluders=helpers) for sites, helpers in SPLITS]
    beyond = [all_lies(sites, planned=helpers, colluders=helpers + 2) for sites, helpers in SPLITS]
    tries, opened = sum(map(len, won)), sum(map(sum, won))
    print(f"{'two sums of one step, ways to lie that opened both':<62} {opened} of {tries}")
    print(f"{'  with two helpers too many':<62} {sum(map(sum, beyond))} of {sum(map(len, beyond))}")
    assert opened == 0
    assert all(map(any, beyond)), "the control: the same lies work beyond the threshold"

    asked = question(epsilon=2.0, mechanism=mechanism, max_sites_per_patient=1)
    one_sum, difference = [], []
    for target in (True, False):
        counts = vectors(4, target=target, known_to=1)
        one_sum.append(
            judged(
                asked, released(asked, counts, games=GAMES, seed=80 + target), without=4 * HELD, patients=1
            )
        )
        plan, sent = contributions(asked, counts, games=GAMES, seed=80 + target)
        difference.append(judged(asked, plan.decode(sent[0])[:, np.newaxis], without=HELD, patients=1))
    exact, allowed = bounds(asked)
    reached, shown = Advantage.of(*one_sum), Advantage.of(*difference)
    report(
        f"a false dropout opens one sum, not two, {mechanism}, ε 2",
        reached,
        bound=exact,
        promised=allowed,
        without=shown.value,
    )
    assert shown.low > exact, "the difference of two sums would tell more than was charged"


def judged(asked: Question, totals: np.ndarray, *, without: int, patients: int) -> np.ndarray:
    """Say "in" where the totals are likelier with the patient's `patients` records counted."""
    when_out = np.array([without])
    return evidence(asked, totals, when_in=when_out + patients, when_out=when_out) > 0


# ---- fewer shares of noise than tolerated ----


def opened_without(
    asked: Question, sites: int, gone: int, *, fewest: int, target: bool, seed: int
) -> np.ndarray:
    """Return the totals that a coordinator opens which says that the last `gone` hospitals dropped out.

    All of them have sent. Args: fewest: with how many survivors the hospitals help to open a sum.
    Raises: TooFewSurvivors.
    """
    plan, sent = contributions(asked, vectors(sites, target=target), games=GAMES, seed=seed)
    network = SumNetwork(sites, colluders=1, minimum_survivors=fewest, seed=seed).open()
    for site, vector in enumerate(sent):
        masked = network.parties[site].masked(vector, step=0, context=CONTEXT)
        if site < sites - gone:
            network.collector.input(node(site), masked, step=0, context=CONTEXT)
    for site in range(sites - gone):
        network.reveal(site)
    return plan.decode(network.collector.total(0))[:, np.newaxis]


@pytest.mark.parametrize("mechanism", Mechanism)
def test_a_sum_with_fewer_noise_shares_than_tolerated_is_not_opened(mechanism: Mechanism) -> None:
    """Ten hospitals, one of which may drop out. Unprotected: the threshold of the secure sum alone, six."""
    sites, tolerance = 10, 1
    asked = question(epsilon=2.0, mechanism=mechanism)
    few = threshold_for(sites, colluders=tolerance)
    for gone in range(tolerance + 1, sites - few + 1):
        with pytest.raises(TooFewSurvivors):
            opened_without(asked, sites, gone, fewest=sites - tolerance, target=True, seed=90)
    found = []
    for gone, fewest in ((tolerance, sites - tolerance), (sites - few, 1)):
        says = [
            judged(
                asked,
                opened_without(asked, sites, gone, fewest=fewest, target=target, seed=90 + target),
                without=HELD * (sites - gone),
                patients=2,
            )
            for target in (True, False)
        ]
        found.append(Advantage.of(*says))
    exact, allowed = bounds(asked)
    report(
        f"dropouts invented to thin the noise, {mechanism}, ε 2",
        found[0],
        bound=exact,
        promised=allowed,
        without=found[1].value,
    )
    assert found[0].high > exact - 0.012, (
        "as many dropouts as tolerated leave the whole of the noise, no more"
    )
    assert found[1].low > exact, "the control: with six of ten shares the bound is broken"


# ---- a second answer for one charge ----


@pytest.mark.parametrize("mechanism", Mechanism)
def test_a_second_attempt_is_a_second_release(mechanism: Mechanism) -> None:
    """A researcher who signs two attempts may have both answers: what that tells is within both charges."""
    asked = question(epsilon=2.0, mechanism=mechanism)
    assert asked.attempts == 2

    def attack(*, attempts: int, games: int) -> Advantage:
        says = []
        for target in (True, False):
            made = released(asked, vectors(4, target=target), games=games * attempts, seed=70 + target)
            heard = evidence(asked, made, when_in=np.array([4 * HELD + 2]), when_out=np.array([4 * HELD]))
            says.append(heard.reshape(games, attempts).sum(axis=1) > 0)
        return Advantage.of(*says)

    reached, unlimited = attack(attempts=2, games=GAMES), attack(attempts=200, games=1_000)
    (once, _), (twice, allowed) = bounds(asked), bounds(asked, releases=2)
    report(
        f"both attempts at a question, {mechanism}, 2 × ε 2",
        reached,
        bound=twice,
        promised=allowed,
        without=unlimited.value,
    )
    assert reached.low > once, "one charge would not have covered it"


def test_every_input_that_left_was_charged_whatever_is_said_of_dropouts(tmp_path: Path) -> None:
    """Real hospitals: one is said to have dropped out of a sum and is asked again; it opens no second sum."""

    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        asked = consortium.question(attempts=2)
        envelope = consortium.signed(asked)
        for each in coordinator.nodes:
            assert await coordinator.offer(each, asked.question_id, envelope) == ""
        first = await coordinator.session()
        inputs = len(await coordinator.inputs(asked, first))
        *others, victim = coordinator.nodes
        for each in others:  # its input has come, and they are told that it has not
            coordinator.survivors(each, first.parameters.session_id, others)
            await coordinator.hear(each, "sum_reveal")

        replies = [
            await coordinator.offer(each, asked.question_id, envelope, attempt=2)
            for each in coordinator.nodes
        ]
        assert replies == [RefusalCode.REPLAYED.value] * len(others) + [""]
        second: SumCollector = await coordinator.session()
        session = second.parameters.session_id
        again = pb.Run(question_id=asked.question_id.raw, attempt=2, session_id=session.raw, step=0)
        coordinator.send(victim, pb.CoordinatorFrame(run=again))
        await coordinator.hear(victim, "sum_input")
        inputs += 1
        coordinator.survivors(victim, session, coordinator.nodes)
        await coordinator.hear(victim, "sum_reveal")
        for each in others:  # they have sent nothing in this session and open nothing
            coordinator.survivors(each, session, coordinator.nodes)
            assert (await coordinator.hear(each, "sum_withdraw")).sum_withdraw.refusal
        charged = [consortium.spent(site) for site in range(consortium.sites)]
        print(f"{'inputs that left, releases charged, sums opened':<62} {inputs}, {sum(charged)}, 1")
        assert sorted(charged) == [1, 1, 1, 2]
        assert sum(charged) == inputs

    async def whole() -> None:
        async with hostile(tmp_path) as coordinator:
            await story(coordinator)

    asyncio.run(whole())
