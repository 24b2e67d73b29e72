"""The same question of the same hospitals and data is answered again for nothing; any other is a release."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from coordinator.profile import Profile
from node.queries.engine import CdmEngine, Warehouse
from node.queries.limits import Limits
from node.running import Parts, RunningNode
from privacy import accountant, release
from privacy.ledger import Ledger
from protocols.peer import Role
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, PROJECT, ask
from tests.network.standing import CIRCE, LATE, SITES, Standing, question, standing, together

SEX = {"kind": "breakdown", "by": "sex"}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    with standing(tmp_path_factory.mktemp("repeats")) as found:
        yield found


def charged(network: Standing, before: list[int]) -> list[int]:
    """Return how many releases each hospital has charged since."""
    return [after - n for after, n in zip(network.spent(), before, strict=True)]


def rephrased(value: Any) -> Any:
    """The same Circe definition with other names and the other order of keys."""
    if isinstance(value, dict):
        named = {key: "other words" if key in ("name", "CONCEPT_NAME") else value[key] for key in value}
        return {key: rephrased(named[key]) for key in reversed(named)}
    return [rephrased(item) for item in value] if isinstance(value, list) else value


def test_a_rephrased_question_gets_the_stored_answer_and_no_hospital_is_asked(network: Standing) -> None:
    for first, second in (
        (question(SEX, cohort=CIRCE), question(SEX, cohort=rephrased(CIRCE), attempts=1)),
        (question(SEX), question({"by": "sex", "kind": "breakdown"}, cohort=dict(reversed(LATE.items())))),
    ):
        before = network.spent()
        given = network.ask(first)
        lines = [len(network.consortium.node(site).audit.read_text()) for site in range(SITES)]
        again = network.ask(second)
        assert (given.cached, again.cached) == (False, True)
        assert (again.question_id, again.answered_at) == (second.question_id, given.answered_at)
        assert again.estimates == given.estimates
        assert charged(network, before) == [1] * SITES
        accepted = "question-accepted"
        for site in range(SITES):  # nothing but the end of what was written when the first was answered
            added = network.consortium.node(site).audit.read_text()[lines[site] :]
            assert accepted not in added


def test_the_same_question_again_across_a_restart_of_the_coordinator_is_free(network: Standing) -> None:
    given = network.ask(question(SEX, epsilon=0.91))
    network.stop("coordinator")
    network.start_coordinator()
    network.connected(SITES)
    before = network.spent()
    again = network.ask(question(SEX, epsilon=0.91))
    assert (again.cached, again.estimates) == (True, given.estimates)
    assert charged(network, before) == [0] * SITES


@pytest.mark.parametrize(
    "change",
    [
        {"epsilon": 0.93},
        {"delta": 1e-7},
        {"pure": True},
        {"max_sites_per_patient": 2},
        {"statistic": {"kind": "count"}},
        {"cohort": {**LATE, "include": [{"kind": "age", "min_years": 31}]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_whatever_changes_the_meaning_is_a_new_release(network: Standing, change: dict[str, Any]) -> None:
    network.ask(question(SEX, epsilon=0.92))
    before = network.spent()
    changed: dict[str, Any] = {"statistic": SEX, "epsilon": 0.92} | change
    assert not network.ask(question(**changed)).cached
    assert charged(network, before) == [1] * SITES


def test_identical_questions_at_the_same_moment_share_one_run(network: Standing) -> None:
    before = network.spent()
    questions = [question(SEX, epsilon=0.94) for _ in range(20)]

    async def all_at_once() -> list[Any]:
        async with network.consortium.channel() as channel:
            return await together(*(ask(channel, asked, network.consortium) for asked in questions))

    answers = network.do(all_at_once())
    assert sorted(answer.cached for answer in answers) == [False] + [True] * 19
    assert len({answer.estimates for answer in answers}) == 1
    assert [answer.question_id for answer in answers] == [asked.question_id for asked in questions]
    assert charged(network, before) == [1] * SITES


def test_a_hospital_that_is_gone_makes_a_new_release_and_its_return_brings_the_old_one_back(
    network: Standing,
) -> None:
    asked = {"statistic": SEX, "epsilon": 0.95}
    of_four = network.ask(question(**asked))
    network.stop(3)
    before = network.spent()
    of_three = network.ask(question(**asked))
    assert (of_three.cached, of_three.participants) == (False, 3)
    assert network.ask(question(**asked)).estimates == of_three.estimates
    assert charged(network, before) == [1, 1, 1, 0]
    network.start(3)
    again = network.ask(question(**asked))
    assert (again.cached, again.estimates) == (True, of_four.estimates)
    assert charged(network, before) == [1, 1, 1, 0]


class Versioned:
    """The warehouse of a node, of which a test says that its data have changed."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self.version = 0

    def __call__(self) -> Warehouse:
        return self

    def engine(self, limits: Limits) -> CdmEngine:
        return self._parts.warehouse().engine(limits)

    def epoch(self) -> str:
        return f"{self._parts.warehouse().epoch()}-{self.version}"

    def close(self) -> None: ...


def test_changed_data_are_charged_again_and_the_same_data_after_a_restart_are_not(network: Standing) -> None:
    made: list[Versioned] = []

    def versioned(parts: Parts) -> RunningNode:
        made.append(Versioned(parts))
        return RunningNode(replace(parts, warehouse=made[-1]))

    network.stop(2)
    network.start(2, versioned)
    try:
        asked = {"statistic": SEX, "epsilon": 0.96}
        given = network.ask(question(**asked))
        before, epochs = network.spent(), dict(network.serving.desk._epochs._of)
        made[0].version += 1
        network.until(lambda: network.serving.desk._epochs._of != epochs)
        again = network.ask(question(**asked))
        assert (again.cached, again.estimates != given.estimates) == (False, True)
        assert charged(network, before) == [1] * SITES
        assert network.ask(question(**asked)).estimates == again.estimates

        (node,) = [node for node, was in epochs.items() if network.serving.desk._epochs._of[node] != was]
        assert node == network.consortium.node(2).config().node_id  # the others' are as they were
        assert len({*epochs.values()}) == SITES
    finally:
        network.stop(2)
        network.start(2)
    assert network.ask(question(SEX, epsilon=0.95)).cached  # from before, when this node had the same data


def test_who_refused_and_changes_its_policy_is_asked_again(network: Standing) -> None:
    policy = network.consortium.node(1).policy
    text, asked = policy.read_text(), {"statistic": SEX, "epsilon": 0.97}
    epochs = dict(network.serving.desk._epochs._of)
    policy.unlink()
    network.until(lambda: network.serving.desk._epochs._of != epochs)
    before = network.spent()
    of_three = network.ask(question(**asked))
    assert (of_three.cached, of_three.participants) == (False, 3)
    assert network.ask(question(**asked)).cached  # it would refuse again: nobody is charged for finding out
    policy.write_text(text)
    network.until(lambda: network.serving.desk._epochs._of == epochs)
    assert network.ask(question(**asked)).participants == SITES
    assert charged(network, before) == [2, 1, 2, 2]


def test_a_hospital_that_tells_no_epoch_is_never_answered_for_from_the_store(network: Standing) -> None:
    class Silent(RunningNode):
        def _said_epoch(self) -> bytes:
            super()._said_epoch()
            return b""

    network.stop(0)
    network.start(0, Silent)
    try:
        before = network.spent()
        assert not network.ask(question(SEX, epsilon=0.98)).cached
        assert not network.ask(question(SEX, epsilon=0.98)).cached
        assert charged(network, before) == [2] * SITES
    finally:
        network.stop(0)
        network.start(0)
        network.connected(SITES)


def test_a_refusal_is_not_passed_on_to_the_same_question(network: Standing) -> None:
    for site in (2, 3):
        network.stop(site)
    asked = question(SEX, epsilon=0.99)
    with pytest.raises(Refused) as refused:
        network.ask(asked)
    assert refused.value.code is RefusalCode.TOO_FEW_SITES
    for site in (2, 3):
        network.start(site)
    network.connected(SITES)
    assert network.ask(question(SEX, epsilon=0.99)).contributors == SITES
    with pytest.raises(Refused):  # the very same question keeps its outcome
        network.ask(asked)


def test_an_expired_question_gets_no_stored_answer_either(network: Standing) -> None:
    network.ask(question(SEX, epsilon=0.9))
    with pytest.raises(Refused) as refused:
        network.ask(question(SEX, epsilon=0.9, now=CLOCK.now() - timedelta(hours=1)))
    assert refused.value.code is RefusalCode.EXPIRED


def profile(network: Standing, name: str, project: str) -> Profile:
    home, folder = network.consortium.home, network.consortium.folder / name
    with contextlib.closing(home.open_state()) as state:
        return home.issue_profile(
            state, folder, name=name, role=Role.RESEARCHER, projects=(project,), clock=CLOCK
        )


async def ask_as(network: Standing, who: Profile, asked: Question) -> Any:
    envelope = asked.signed(signer=who.name, key=who.identity_key())
    async with network.consortium.channel(who) as channel:
        return await ask(channel, asked, network.consortium, envelope=envelope)


def test_a_stored_answer_is_for_members_of_its_project_that_are_not_revoked(network: Standing) -> None:
    given = network.ask(question(SEX, epsilon=0.89))
    before = network.spent()
    bob, eve = profile(network, "bob", PROJECT), profile(network, "eve", "other")
    network.knows("eve")
    answer = network.do(ask_as(network, bob, question(SEX, epsilon=0.89)))
    assert (answer.cached, answer.estimates) == (True, given.estimates)
    for asked, code in (
        (question(SEX, epsilon=0.89), RefusalCode.NOT_ALLOWED),
        (question(SEX, epsilon=0.89, project="other"), None),  # another project: its own release
    ):
        if code is None:
            assert not network.do(ask_as(network, eve, asked)).cached
        else:
            with pytest.raises(Refused) as refused:
                network.do(ask_as(network, eve, asked))
            assert refused.value.code is code
    assert charged(network, before) == [1] * SITES
    with contextlib.closing(network.consortium.home.open_state()) as state:
        network.consortium.home.roster_book(state, clock=CLOCK).revoke_person("bob")
    network.until(lambda: "bob" not in network.serving.broker.roll.roster.active_people)
    with pytest.raises(Refused) as refused:
        network.do(ask_as(network, bob, question(SEX, epsilon=0.89)))
    assert refused.value.code is RefusalCode.REVOKED


def test_the_mirror_of_a_budget_agrees_with_the_ledger_of_a_hospital_in_every_release(
    network: Standing,
) -> None:
    fay = profile(network, "fay", "mirror")

    async def budget(project: str, delta: float = 1e-6) -> pb.BudgetReply:
        async with network.consortium.channel(fay) as channel:
            request = pb.BudgetRequest(project=project, delta=delta)
            return await fedtwin_pb2_grpc.ResearchStub(channel).Budget(request)

    async def code_of(project: str, delta: float = 1e-6) -> str:
        with pytest.raises(Exception) as error:  # noqa: PT011 - gRPC's
            await budget(project, delta)
        return str(error.value.details())  # type: ignore[attr-defined]

    assert network.do(code_of(PROJECT)) == RefusalCode.NOT_ALLOWED.value
    assert network.do(code_of("mirror", 0.0)) == RefusalCode.MALFORMED.value
    empty = network.do(budget("mirror"))
    assert (empty.releases, empty.epsilon, len(empty.lines)) == (0, 0.0, 0)

    asked = [
        question(SEX, project="mirror"),
        question(SEX, project="mirror"),  # again
        question({"kind": "count"}, project="mirror", pure=True, epsilon=0.5),
    ]
    network.knows("fay")
    for one in asked:
        network.do(ask_as(network, fay, one))
    seen = network.do(budget("mirror"))
    lines = {line.kind: (line.releases, line.cached) for line in seen.lines}
    assert lines == {"breakdown": (1, 1), "count": (1, 0)}
    assert (seen.releases, seen.cached) == (2, 1)
    events = [release.price(asked[0]), release.price(asked[2])]
    assert seen.epsilon == pytest.approx(accountant.epsilon(events, delta=1e-6), rel=1e-9)
    with Ledger(network.consortium.node(0).ledger, clock=CLOCK, read_only=True) as ledger:
        spent = ledger.spent("mirror", delta=1e-6)
    assert seen.epsilon == pytest.approx(spent.epsilon, rel=1e-9)


def test_the_consortium_describes_what_can_be_asked(network: Standing) -> None:
    async def describe() -> pb.DescribeReply:
        async with network.consortium.channel() as channel:
            return await fedtwin_pb2_grpc.ResearchStub(channel).Describe(pb.DescribeRequest())

    found = network.do(describe())
    assert (found.connected, found.minimum_sites, found.tolerance) == (SITES, 3, 1)
    assert len(found.statistics) == 9
    assert list(found.mechanisms) == ["gaussian", "laplace"]


def test_an_epoch_says_nothing_but_that_something_changed(network: Standing) -> None:
    """What the engines say is the same at all four here; no two of the epochs that leave are."""
    inside = {node._parts.warehouse().epoch() for node in network.nodes.values()}
    outside = {node._epoch for node in network.nodes.values()}
    assert (len(inside), len(outside)) == (1, SITES)
    assert all(len(epoch) == 16 for epoch in outside)
