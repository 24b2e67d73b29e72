"""Who may connect, what they get, and that one question has one answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import grpc
import pytest

from coordinator.server import Serving
from node.home import NodeHome
from node.keys import NodeKeys
from protocols.cohort import Cohort
from protocols.peer import Role
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.network.consortium import CLOCK, PROJECT, Consortium, ask, until


@contextlib.asynccontextmanager
async def running(folder: Path, *, sites: int = 4) -> AsyncIterator[tuple[Consortium, Serving]]:
    """A consortium in this process, with every node connected."""
    consortium = Consortium(folder, sites=sites)
    consortium.found()
    async with consortium.coordinator() as serving:
        await consortium.enrol_all()
        async with consortium.nodes():
            await until(lambda: len(serving.broker.connected()) == sites)
            yield consortium, serving


def node_channel(home: NodeHome) -> grpc.aio.Channel:
    """Return a channel as this node opens it."""
    tls = (home.authority.read_bytes(), NodeKeys.load(home.keys).tls_pem, home.certificate.read_bytes())
    return grpc.aio.secure_channel(home.config().broker_address, grpc.ssl_channel_credentials(*tls))


async def refusal_of(call) -> str:  # type: ignore[no-untyped-def]
    """Return the code that a call ends with."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error.details() or ""
    return "no refusal"


def test_the_same_question_asked_again_is_not_run_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, _):
            question = consortium.question()
            first, second = await asyncio.gather(consortium.ask(question), consortium.ask(question))
            assert first == second == await consortium.ask(question)
            assert [consortium.spent(site) for site in range(4)] == [1, 1, 1, 1]
        async with consortium.coordinator():  # another coordinator process, and no node at all
            assert await consortium.ask(question) == first

    asyncio.run(story())


def test_questions_at_the_same_time_are_each_answered_and_charged_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, _), consortium.channel() as channel:
            questions = [consortium.question(epsilon=0.2 + n / 1000) for n in range(12)]
            answers = await asyncio.gather(*(ask(channel, question, consortium) for question in questions))
            truth = sum(consortium.counts.values())
            assert all(abs(a.estimate - truth) < 6.5 * a.standard_deviation for a in answers)
            # each has noise of its own; two of twelve may meet on one point of the lattice
            assert len({a.estimate for a in answers}) >= 9
            assert [consortium.spent(site) for site in range(4)] == [12, 12, 12, 12]

    asyncio.run(story())


def test_the_standing_session_is_renewed_before_its_steps_run_out(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, serving), consortium.channel() as channel:
            for n in range(70):
                cohort = Cohort.parse({"index": {"kind": "condition", "concepts": [n + 1]}})
                question = replace(consortium.question(epsilon=0.05), cohort=cohort)
                assert (await ask(channel, question, consortium)).contributors == 4
            await until(lambda: len(serving.sums._sessions) == 1)  # the first was closed
            (session,) = serving.sums._sessions.values()
            assert session.steps_left < 64

    asyncio.run(story())


def test_too_few_hospitals_are_refused_and_nobody_is_charged(tmp_path: Path) -> None:
    async def story() -> None:
        consortium = Consortium(tmp_path)
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes(0, 1):
                await until(lambda: len(serving.broker.connected()) == 2)
                with pytest.raises(Refused) as refused:
                    await consortium.ask()
                assert refused.value.code == RefusalCode.TOO_FEW_SITES
                assert [consortium.spent(site) for site in (0, 1)] == [0, 0]

    asyncio.run(story())


def test_who_refuses_is_left_out_and_the_others_answer(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, _):
            consortium.node(1).policy.unlink()
            answer = await consortium.ask()
            truth = sum(count for site, count in consortium.counts.items() if site != 1)
            assert answer.participants == 3
            assert abs(answer.estimate - truth) < 6.5 * answer.standard_deviation
            for site in (0, 2):
                consortium.node(site).policy.unlink()
            with pytest.raises(Refused) as refused:
                await consortium.ask(consortium.question(epsilon=0.9))
            assert refused.value.code == RefusalCode.NO_POLICY
            assert [consortium.spent(site) for site in range(4)] == [1, 0, 1, 1]

    asyncio.run(story())


def test_a_question_beyond_its_project_or_its_time_is_refused(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, sites=3) as (consortium, _):
            for question, code in (
                (consortium.question(project="other"), RefusalCode.NOT_ALLOWED),
                (consortium.question(epsilon=5.0), RefusalCode.NOT_ALLOWED),
                (consortium.question(now=CLOCK.now() - timedelta(hours=1)), RefusalCode.EXPIRED),
            ):
                with pytest.raises(Refused) as refused:
                    await consortium.ask(question)
                assert refused.value.code == code

    asyncio.run(story())


def test_each_role_may_call_its_own_methods_only(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, sites=3) as (consortium, _):
            not_allowed = RefusalCode.NOT_ALLOWED.value
            async with consortium.channel() as channel:
                research = fedtwin_pb2_grpc.ResearchStub(channel)
                assert await refusal_of(research.ListNodes(pb.ListNodesRequest())) == not_allowed
                assert await refusal_of(research.ProposeStudy(pb.ProposeStudyRequest())) == not_allowed
                assert await refusal_of(research.OpenRound(pb.OpenRoundRequest())) == not_allowed
                assert await refusal_of(research.EndRound(pb.EndRoundRequest())) == not_allowed
                nodes = fedtwin_pb2_grpc.NodesStub(channel)
                assert await refusal_of(nodes.Renew(pb.RenewRequest())) == not_allowed
                assert await refusal_of(nodes.Connect()) == not_allowed
                junk = pb.AskRequest(question_envelope=b"junk")
                assert await refusal_of(research.Ask(junk)) == RefusalCode.BAD_SIGNATURE.value
            async with node_channel(consortium.node(0)) as channel:
                research = fedtwin_pb2_grpc.ResearchStub(channel)
                signed = consortium.signed(consortium.question())
                assert await refusal_of(research.Ask(pb.AskRequest(question_envelope=signed))) == not_allowed
            async with consortium.channel(consortium.lead) as channel:  # another's question
                research = fedtwin_pb2_grpc.ResearchStub(channel)
                asked = research.Ask(pb.AskRequest(question_envelope=signed))
                assert await refusal_of(asked) == RefusalCode.UNKNOWN_SIGNER.value
                reply = await research.ListNodes(pb.ListNodesRequest())
                assert [node.connected for node in reply.nodes] == [True, True, True]

    asyncio.run(story())


def test_a_certificate_of_another_consortium_is_nobody(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path / "a", sites=3) as (consortium, _):
            other = Consortium(tmp_path / "b")
            other.found()
            stranger = other.researcher
            ca = consortium.researcher.tls()[0]
            credentials = grpc.ssl_channel_credentials(ca, *stranger.tls()[1:])
            address = consortium.researcher.broker_address
            async with grpc.aio.secure_channel(address, credentials) as channel:
                stub = fedtwin_pb2_grpc.ResearchStub(channel)
                with pytest.raises(grpc.aio.AioRpcError) as error:
                    await stub.ListNodes(pb.ListNodesRequest(), timeout=5)
                assert error.value.code() in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                )

    asyncio.run(story())


def test_a_revoked_hospital_loses_its_stream_and_a_new_roster_reaches_the_others(tmp_path: Path) -> None:
    async def story() -> None:
        consortium = Consortium(tmp_path)
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            async with consortium.nodes() as nodes:
                await until(lambda: len(serving.broker.connected()) == 4)
                victim = consortium.node(3).config().node_id
                with contextlib.closing(consortium.home.open_state()) as state:
                    consortium.home.roster_book(state, clock=CLOCK).revoke_node(victim)
                await until(lambda: victim not in serving.broker.connected(), timeout_s=3)
                await until(lambda: victim not in nodes[0]._parts.roster().active_nodes, timeout_s=3)
                await until(lambda: nodes[3].stream.connection.last_error == RefusalCode.REVOKED.value)
                assert nodes[3].revoked
                assert victim not in serving.broker.connected()
                assert (await consortium.ask()).participants == 3

    asyncio.run(story())


def test_a_revoked_researcher_is_cut_off_while_waiting(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path) as (consortium, serving):
            serving.desk._standing.take = _never  # the question hangs between offer and run
            asking = asyncio.create_task(consortium.ask())
            await until(lambda: bool(serving.desk._open))
            with contextlib.closing(consortium.home.open_state()) as state:
                consortium.home.roster_book(state, clock=CLOCK).revoke_person("ada")
            with pytest.raises(Refused) as refused:
                async with asyncio.timeout(5):
                    await asking
            assert refused.value.code == RefusalCode.REVOKED

    asyncio.run(story())


async def _never(participants: object) -> None:
    await asyncio.Event().wait()


def test_a_newer_connection_of_a_node_replaces_the_older(tmp_path: Path) -> None:
    async def story() -> None:
        consortium = Consortium(tmp_path, sites=1)
        consortium.found()
        async with consortium.coordinator() as serving:
            await consortium.enrol_all()
            home = consortium.node(0)
            async with node_channel(home) as one, node_channel(home) as two:
                calls = []
                for channel in (one, two):
                    call = fedtwin_pb2_grpc.NodesStub(channel).Connect()
                    await call.write(pb.NodeFrame(hello=pb.Hello()))
                    assert (await call.read()).WhichOneof("body") == "welcome"
                    calls.append(call)
                assert await calls[0].read() is grpc.aio.EOF
                assert len(serving.broker.connected()) == 1
                await calls[1].write(pb.NodeFrame())  # and what means nothing ends it
                assert await calls[1].read() is grpc.aio.EOF
                await until(lambda: not serving.broker.connected())

    asyncio.run(story())


def test_a_second_researcher_can_join_while_the_coordinator_serves(tmp_path: Path) -> None:
    async def story() -> None:
        async with running(tmp_path, sites=3) as (consortium, _):
            home = consortium.home
            with contextlib.closing(home.open_state()) as state:
                profile = home.issue_profile(
                    state,
                    tmp_path / "bob",
                    name="bob",
                    role=Role.RESEARCHER,
                    projects=(PROJECT,),
                    clock=CLOCK,
                )
            question = consortium.question()
            envelope = question.signed(signer="bob", key=profile.identity_key())
            async with consortium.channel(profile) as channel:
                for _ in range(20):  # the nodes hear of the new roster within about a second
                    with contextlib.suppress(Refused):
                        answer = await ask(channel, question, consortium, envelope=envelope)
                        break
                    await asyncio.sleep(0.2)
                    question = consortium.question()
                    envelope = question.signed(signer="bob", key=profile.identity_key())
            assert answer.contributors == 3

    asyncio.run(story())
