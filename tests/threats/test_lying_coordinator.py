"""A coordinator that lies gets nothing, and the nodes go on: each test is one lie."""

import asyncio
import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from coordinator.home import CoordinatorHome
from privacy import release
from privacy.secure_sum import SessionParameters
from privacy.shamir import recover
from privacy.sum_channel import check_of, self_check, sign_advert, unwrap
from protocols import canonical
from protocols.ids import NodeId, QuestionId, SessionId
from protocols.key_forms import identity_key
from protocols.refusal import RefusalCode
from protocols.roster import Roster
from protocols.wire import fedtwin_pb2 as pb
from tests.network.consortium import CLOCK, Consortium, ask, until
from tests.threats.hostile import HostileCoordinator, hostile, opening_of, parameters

Story = Callable[[HostileCoordinator], Awaitable[None]]


def told(folder: Path, story: Story, *, sites: int = 4) -> None:
    """Run a story, and end it with an honest exchange: the nodes must still be at work."""

    async def whole() -> None:
        async with hostile(folder, sites=sites) as coordinator:
            await story(coordinator)
            await until(lambda: len(coordinator.nodes) == sites)
            assert await honest_total(coordinator) is not None

    asyncio.run(whole())


async def honest_total(coordinator: HostileCoordinator) -> float:
    """Carry one fresh question through without lying; return the total."""
    question = coordinator.consortium.question(epsilon=0.5)
    envelope = coordinator.consortium.signed(question)
    for node in coordinator.nodes:
        assert await coordinator.offer(node, question.question_id, envelope) == ""
    collector = await coordinator.session()
    session = collector.parameters.session_id
    for node, sent in (await coordinator.inputs(question, collector)).items():
        collector.input(node, np.frombuffer(sent.masked, dtype="<u8"), step=0, context=sent.context)
    survivors = collector.close(0)
    for node in survivors:
        coordinator.survivors(node, session, list(survivors))
    for node in survivors:
        reveal = (await coordinator.hear(node, "sum_reveal")).sum_reveal
        collector.reveal(node, {NodeId.parse(n): s for n, s in reveal.shares.items()}, step=0)
    plan = release.plan(question, participants=len(survivors), tolerance=1)
    return float(plan.decode(collector.total(0))[0])


def charges(consortium: Consortium) -> list[int]:
    """Return how many releases each site has been charged for."""
    return [consortium.spent(site) for site in range(consortium.sites)]


def test_a_replayed_question_is_refused_and_not_charged_again(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        question = consortium.question()
        envelope = consortium.signed(question)
        for node in coordinator.nodes:
            assert await coordinator.offer(node, question.question_id, envelope) == ""
        first, second = await coordinator.session(), await coordinator.session()
        await coordinator.inputs(question, first)
        for node in coordinator.nodes:  # a second run of what was accepted once
            again = pb.Run(
                question_id=question.question_id.raw,
                attempt=1,
                session_id=second.parameters.session_id.raw,
                step=0,
            )
            coordinator.send(node, pb.CoordinatorFrame(run=again))
            await coordinator.silence(node)
        for node in coordinator.nodes:
            coordinator.survivors(node, first.parameters.session_id, coordinator.nodes)
            await coordinator.hear(node, "sum_reveal")
        for attempt in (1, 2, 3):
            for node in coordinator.nodes:
                refusal = await coordinator.offer(node, question.question_id, envelope, attempt=attempt)
                assert refusal == RefusalCode.REPLAYED.value
        assert charges(consortium) == [1, 1, 1, 1]

    told(tmp_path, story)


def test_a_question_cut_off_before_its_run_resumes_at_one_charge(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        question = consortium.question()
        envelope = consortium.signed(question)
        for node in coordinator.nodes:
            assert await coordinator.offer(node, question.question_id, envelope) == ""
        coordinator.cut(coordinator.nodes[0])
        await until(lambda: coordinator.connections == 5)
        node, hello = coordinator.hellos[-1]
        assert list(hello.unanswered) == [question.question_id.raw]
        assert await coordinator.offer(node, question.question_id, envelope) == ""  # the same acceptance
        collector = await coordinator.session()
        await coordinator.inputs(question, collector)
        for node in coordinator.nodes:
            coordinator.survivors(node, collector.parameters.session_id, coordinator.nodes)
            await coordinator.hear(node, "sum_reveal")
        for site in range(4):
            found = consortium.entries(site)
            assert found == [("reserved", 1), ("committed", 1), ("revealed", None)]

    told(tmp_path, story)


def test_a_replay_after_the_node_restarted_is_refused(tmp_path: Path) -> None:
    async def whole() -> None:
        consortium = Consortium(tmp_path)
        consortium.found()
        async with consortium.coordinator():
            await consortium.enrol_all()
        coordinator = HostileCoordinator(consortium)
        question = consortium.question(attempts=1)
        envelope = consortium.signed(question)
        async with coordinator.serving():
            async with consortium.nodes():
                await until(lambda: len(coordinator.nodes) == 4)
                for node in coordinator.nodes:
                    assert await coordinator.offer(node, question.question_id, envelope) == ""
                await coordinator.inputs(question, await coordinator.session())
            async with consortium.nodes():
                await until(lambda: coordinator.connections == 8)
                for node in coordinator.nodes:  # committed, never revealed: still one attempt was signed
                    for attempt in (1, 2):
                        refusal = await coordinator.offer(
                            node, question.question_id, envelope, attempt=attempt
                        )
                        assert refusal == RefusalCode.REPLAYED.value
        assert charges(consortium) == [1, 1, 1, 1]

    asyncio.run(whole())


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"epsilon": 2.0}, RefusalCode.BAD_SIGNATURE),
        ({"max_sites_per_patient": 3}, RefusalCode.BAD_SIGNATURE),
        ({"expires_at": "2030-01-01T00:00:00+00:00"}, RefusalCode.BAD_SIGNATURE),
        ({"cohort": {"index": {"kind": "drug", "concepts": [1]}}}, RefusalCode.BAD_SIGNATURE),
        ({"statistic": {"kind": "breakdown", "by": "sex"}}, RefusalCode.BAD_SIGNATURE),
        ({"mechanism": "laplace", "delta": 0.0}, RefusalCode.BAD_SIGNATURE),
        ({"on_behalf_of": "uid:7"}, RefusalCode.BAD_SIGNATURE),
    ],
)
def test_an_edited_question_is_refused(tmp_path: Path, change: dict, code: RefusalCode) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        question = consortium.question()
        fields = json.loads(consortium.signed(question))
        payload = json.loads(base64.b64decode(fields["payload"])) | change
        fields["payload"] = base64.b64encode(canonical.encode(payload)).decode()
        for node in coordinator.nodes:
            refusal = await coordinator.offer(node, question.question_id, canonical.encode(fields))
            assert refusal == code.value
        assert charges(consortium) == [0, 0, 0, 0]

    told(tmp_path, story)


def test_a_question_that_no_researcher_signed_is_refused(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        question, node = consortium.question(), coordinator.nodes[0]
        own_key = Ed25519PrivateKey.generate()
        for signer, code in (("ada", RefusalCode.BAD_SIGNATURE), ("eve", RefusalCode.UNKNOWN_SIGNER)):
            forged = question.signed(signer=signer, key=own_key)
            assert await coordinator.offer(node, question.question_id, forged) == code.value
        other = QuestionId.new()  # under another id, as if it were another question
        assert (
            await coordinator.offer(node, other, consortium.signed(question)) == RefusalCode.MALFORMED.value
        )
        assert charges(consortium) == [0, 0, 0, 0]

    told(tmp_path, story)


def test_nothing_beyond_the_budget_is_answered(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium, node = coordinator.consortium, coordinator.nodes[0]
        for site in range(4):
            policy = consortium.node(site).policy
            policy.write_text(policy.read_text().replace('"*" = 10.0', '"*" = 1.5'))
        too_dear = consortium.question(epsilon=3.0)  # above the policy's largest question
        refusal = await coordinator.offer(node, too_dear.question_id, consortium.signed(too_dear))
        assert refusal == RefusalCode.NOT_ALLOWED.value
        held = consortium.question(epsilon=1.2)  # only offered: reserved budget counts as spent
        assert await coordinator.offer(node, held.question_id, consortium.signed(held)) == ""
        more = consortium.question(epsilon=1.2)
        refusal = await coordinator.offer(node, more.question_id, consortium.signed(more))
        assert refusal == RefusalCode.BUDGET_EXHAUSTED.value
        cancel = pb.Cancel(question_id=held.question_id.raw, attempt=1)
        coordinator.send(node, pb.CoordinatorFrame(cancel=cancel))
        await asyncio.sleep(0.2)
        assert charges(consortium) == [0, 0, 0, 0]

    told(tmp_path, story)


def test_a_false_dropout_opens_nobody(tmp_path: Path) -> None:
    """Some are told that the victim survived and others that it dropped: neither secret can be opened."""

    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        question = consortium.question()
        envelope = consortium.signed(question)
        for node in coordinator.nodes:
            assert await coordinator.offer(node, question.question_id, envelope) == ""
        collector = await coordinator.session()
        session, deposits = collector.parameters.session_id, collector._shares
        await coordinator.inputs(question, collector)
        *witnesses, victim = coordinator.nodes
        for node in witnesses[:2]:
            coordinator.survivors(node, session, witnesses)  # "the victim dropped": its wrap key is opened
        for node in (*witnesses[2:], victim):
            coordinator.survivors(node, session, coordinator.nodes)  # "it survived": its self seed is
        of_victim = {}
        for place, node in enumerate(coordinator.nodes):
            shares = (await coordinator.hear(node, "sum_reveal")).sum_reveal.shares
            of_victim[place + 1] = shares[str(victim)]
        wraps = deposits[victim].wraps
        of_wrap_key = recover({place: of_victim[place] for place in (1, 2)})
        assert of_wrap_key is None or not unwrapped(of_wrap_key, wraps, victim, collector.parameters)
        of_self_seed = recover({place: of_victim[place] for place in (3, 4)})
        expected = check_of(wraps, step=0, peers=3)
        assert of_self_seed is None or self_check(of_self_seed) != expected
        assert collector.parameters.threshold == 3  # a colluder who gives both opens one of the two, not both

        for node in coordinator.nodes:  # asking again with the other story costs the session
            coordinator.survivors(node, session, coordinator.nodes)
            withdrawn = (await coordinator.hear(node, "sum_withdraw")).sum_withdraw
            assert withdrawn.refusal == RefusalCode.PROTOCOL_VIOLATION.value

    told(tmp_path, story)


def unwrapped(wrap_key: bytes, wraps: bytes, node: NodeId, terms: SessionParameters) -> bool:
    """Return whether a key opens the pair seeds of a node's first step."""
    seeds = unwrap(wraps, wrap_key=wrap_key, digest=terms.digest(), node=node, step=0, peers=3)
    return seeds is not None


def test_a_sum_of_too_few_is_not_opened(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        question = consortium.question()
        envelope = consortium.signed(question)
        for node in coordinator.nodes:
            assert await coordinator.offer(node, question.question_id, envelope) == ""
        collector = await coordinator.session()
        await coordinator.inputs(question, collector)
        for node in coordinator.nodes:
            alone = [node, *[other for other in coordinator.nodes if other != node][:1]]
            coordinator.survivors(node, collector.parameters.session_id, sorted(alone))
            withdrawn = (await coordinator.hear(node, "sum_withdraw")).sum_withdraw
            assert withdrawn.refusal == RefusalCode.TOO_MANY_DROPOUTS.value

    told(tmp_path, story)


def test_a_swapped_key_in_the_roster_is_refused(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        consortium = coordinator.consortium
        first, second, *_ = coordinator.nodes
        own_key = Ed25519PrivateKey.generate()
        swapped = swapped_roster(consortium.home, second, own_key)
        coordinator.send(first, pb.CoordinatorFrame(roster=pb.RosterUpdate(roster_envelope=swapped)))

        # with the old roster in force, an advert by the swapped key costs the session, and no share leaves
        terms = parameters(coordinator.nodes)
        coordinator.send(first, pb.CoordinatorFrame(sum_open=opening_of(terms)))
        adverts = {str(first): (await coordinator.hear(first, "sum_advert")).sum_advert.envelope}
        for node in coordinator.nodes[1:]:
            adverts[str(node)] = sign_advert(bytes(range(32)), digest=terms.digest(), me=node, key=own_key)
        forged = pb.SumAdverts(session_id=terms.session_id.raw, envelopes=adverts)
        coordinator.send(first, pb.CoordinatorFrame(sum_adverts=forged))
        withdrawn = (await coordinator.hear(first, "sum_withdraw")).sum_withdraw
        assert withdrawn.refusal == RefusalCode.PROTOCOL_VIOLATION.value
        await until(lambda: len(roster_refusals(consortium)) == 1)
        assert roster_refusals(consortium) == [RefusalCode.ROSTER_MISMATCH.value]

    told(tmp_path, story)


def roster_refusals(consortium: Consortium) -> list[str]:
    """Return the codes with which rosters were refused, as the audit trails say."""
    return codes_of(consortium, "roster-refused")


def codes_of(consortium: Consortium, event: str) -> list[str]:
    """Return the codes of all lines with this event in the hospitals' audit trails."""
    trails = [consortium.node(site).audit.read_text().splitlines() for site in range(consortium.sites)]
    lines = [json.loads(line) for trail in trails for line in trail]
    return [line["fields"]["code"] for line in lines if line["event"] == event]


def swapped_roster(home: CoordinatorHome, victim: NodeId, key: Ed25519PrivateKey) -> bytes:
    """Return a newer roster, properly signed, in which one hospital has a key of the attacker's."""
    with contextlib.closing(home.open_state()) as state:
        book = home.roster_book(state, clock=CLOCK)
        current = book.current()
    nodes = tuple(
        replace(entry, identity_key=key.public_key().public_bytes_raw()) if entry.node_id == victim else entry
        for entry in current.nodes
    )
    roster_key = identity_key((home.keys / "roster.key").read_bytes())
    return Roster(**{**fields_of(current), "version": current.version + 1, "nodes": nodes}).signed(roster_key)


def fields_of(roster: Roster) -> dict:
    """Return a roster's fields by name."""
    return {name: getattr(roster, name) for name in Roster.__slots__}


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda o, n: o.participants.append(NodeId(b"\xff" * 16).raw), RefusalCode.ROSTER_MISMATCH),
        (lambda o, n: o.participants.append(o.participants[0]), RefusalCode.PROTOCOL_VIOLATION),
        (lambda o, n: o.participants.remove(n.raw), RefusalCode.PROTOCOL_VIOLATION),
        (lambda o, n: setattr(o, "tolerance", 0), RefusalCode.NOT_ALLOWED),  # less noise than promised
        (lambda o, n: setattr(o, "tolerance", 4), RefusalCode.TOO_FEW_SITES),
        (lambda o, n: setattr(o, "threshold", 2), RefusalCode.PROTOCOL_VIOLATION),
        (lambda o, n: setattr(o, "steps", 0), RefusalCode.PROTOCOL_VIOLATION),
        (lambda o, n: setattr(o, "steps", 2**31), RefusalCode.PROTOCOL_VIOLATION),
        (lambda o, n: setattr(o, "purpose", "research"), RefusalCode.NOT_ALLOWED),
        (lambda o, n: setattr(o, "purpose", "training:" + 64 * "0"), RefusalCode.NOT_APPROVED),
    ],
)
def test_a_session_on_other_terms_is_not_joined(tmp_path: Path, change: Callable, code: RefusalCode) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        node = coordinator.nodes[0]
        opening = opening_of(parameters(coordinator.nodes))
        change(opening, node)
        coordinator.send(node, pb.CoordinatorFrame(sum_open=opening))
        withdrawn = (await coordinator.hear(node, "sum_withdraw")).sum_withdraw
        assert withdrawn.refusal == code.value

    told(tmp_path, story)


def test_two_hospitals_alone_are_too_few(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        pair = coordinator.nodes[:2]
        coordinator.send(pair[0], pb.CoordinatorFrame(sum_open=opening_of(parameters(pair))))
        withdrawn = (await coordinator.hear(pair[0], "sum_withdraw")).sum_withdraw
        assert withdrawn.refusal == RefusalCode.TOO_FEW_SITES.value
        await until(lambda: codes_of(coordinator.consortium, "session-refused") != [])
        refused = codes_of(coordinator.consortium, "session-refused")
        assert refused == [RefusalCode.TOO_FEW_SITES.value]

    told(tmp_path, story)


def test_frames_that_mean_nothing_change_nothing(tmp_path: Path) -> None:
    async def story(coordinator: HostileCoordinator) -> None:
        node, before = coordinator.nodes[0], coordinator.connections
        junk = bytes(range(256)) * 3
        for frame in (
            pb.CoordinatorFrame(),
            pb.CoordinatorFrame(welcome=pb.Welcome(roster_envelope=junk)),
            pb.CoordinatorFrame(roster=pb.RosterUpdate(roster_envelope=junk)),
            pb.CoordinatorFrame(run=pb.Run(question_id=junk, session_id=junk)),
            pb.CoordinatorFrame(run=pb.Run(question_id=bytes(16), session_id=bytes(16))),
            pb.CoordinatorFrame(cancel=pb.Cancel(question_id=junk)),
            pb.CoordinatorFrame(sum_deliver=pb.SumDeliver(session_id=junk)),
            pb.CoordinatorFrame(sum_survivors=pb.SumSurvivors(session_id=SessionId.new().raw)),
            pb.CoordinatorFrame(sum_result=pb.SumResult(session_id=SessionId.new().raw, total=junk)),
        ):
            coordinator.send(node, frame)
        await coordinator.silence(node)
        coordinator.send(node, pb.CoordinatorFrame(offer=pb.Offer(question_id=junk, question_envelope=junk)))
        refusal = (await coordinator.hear(node, "offer_reply")).offer_reply.refusal
        assert refusal == RefusalCode.MALFORMED.value
        coordinator.send(node, pb.CoordinatorFrame(study=pb.StudyProposal(study_envelope=junk)))
        assert (await coordinator.hear(node, "study_reply")).study_reply.refusal
        assert coordinator.connections == before
        coordinator.send(node, b"\xff\xff\xff\xff")  # not even a frame: the connection ends, and comes back
        await until(lambda: coordinator.connections == before + 1)

    told(tmp_path, story)


def test_what_an_honest_run_shows_the_coordinator_holds_no_count(tmp_path: Path) -> None:
    """All frames of a question, recorded at the coordinator: masked numbers, shares and yes, nothing else."""

    class Recorder:
        def __init__(self) -> None:
            self.frames: list[tuple[NodeId, pb.NodeFrame]] = []

        def connected(self, node: NodeId, hello: pb.Hello) -> None: ...

        def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
            self.frames.append((node, frame))

        def lost(self, node: NodeId) -> None: ...

    async def whole() -> None:
        consortium = Consortium(tmp_path)
        consortium.found()
        recorder = Recorder()
        async with consortium.coordinator() as serving:
            serving.broker.listen(recorder)
            await consortium.enrol_all()
            async with consortium.nodes(), consortium.channel() as channel:
                await until(lambda: len(serving.broker.connected()) == 4)
                question = consortium.question()
                answer = await ask(channel, question, consortium)
        kinds = {frame.WhichOneof("body") for _, frame in recorder.frames}
        assert kinds == {"offer_reply", "sum_advert", "sum_shares", "sum_input", "sum_reveal"}
        plan = release.plan(question, participants=4, tolerance=1)
        inputs = {node: frame.sum_input for node, frame in recorder.frames if frame.HasField("sum_input")}
        assert len(inputs) == 4
        plain = [plan.encode(np.array([count]))[0] for count in consortium.counts.values()]
        for sent in inputs.values():
            (masked,) = np.frombuffer(sent.masked, dtype="<u8")
            # a chance of 2^-19 for each pair to fail: unmasked numbers are within 2^32 of a count
            assert all(abs(int((masked - value).view(np.int64))) > 2**40 for value in plain)
        assert abs(answer.estimate - sum(consortium.counts.values())) < 6.5 * answer.standard_deviation

    asyncio.run(whole())
