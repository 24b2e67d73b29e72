"""kill -9, anywhere: the rest finish or say why not, who was killed comes back, and every ledger is right."""

import asyncio
from pathlib import Path

import grpc
import pytest

from protocols.refusal import RefusalCode, Refused
from tests.network.consortium import ask, until
from tests.network.processes import marked, processes


@pytest.mark.parametrize(
    ("moment", "contributors", "left_behind"),
    [
        ("accepted", 3, [("reserved", 1)]),
        ("committed", 3, [("reserved", 1), ("committed", 1)]),
        ("sent", 4, [("reserved", 1), ("committed", 1)]),
        ("revealed", 4, [("reserved", 1), ("committed", 1), ("revealed", None)]),
    ],
)
def test_a_node_killed_in_a_question_is_a_dropout_and_comes_back(
    tmp_path: Path, moment: str, contributors: int, left_behind: list
) -> None:
    async def story() -> None:
        async with processes(tmp_path) as network:
            marker = tmp_path / "paused"
            await network.start_nodes(0, 1, 2)
            await network.start("node-3", pause_at=moment, marker=marker)
            await network.connected(4)
            consortium = network.consortium
            async with asyncio.TaskGroup() as group:
                asking = group.create_task(consortium.ask())
                await marked(marker)
                await network.kill("node-3")
            answer = asking.result()
            truth = sum(count for site, count in consortium.counts.items() if site < contributors)
            assert (answer.contributors, answer.releases) == (contributors, 1)
            assert abs(answer.estimate - truth) < 6.5 * answer.standard_deviation
            assert consortium.entries(3) == left_behind

            await network.start("node-3")  # whoever starts it: nobody has to mend anything
            await network.connected(4)
            again = await consortium.ask(consortium.question(epsilon=0.9))
            assert again.contributors == 4
            assert [consortium.spent(site) for site in range(3)] == [2, 2, 2]
            assert consortium.spent(3) == (1 if moment == "accepted" else 2)
            kinds = [kind for kind, _ in consortium.entries(3)]
            assert kinds.count("released") == (1 if moment == "accepted" else 0)

    asyncio.run(story())


@pytest.mark.parametrize("moment", ["accepted", "sent"])
def test_below_the_minimum_there_is_a_clear_refusal(tmp_path: Path, moment: str) -> None:
    async def story() -> None:
        async with processes(tmp_path, sites=3) as network:
            marker = tmp_path / "paused"
            await network.start_nodes(0, 1)
            await network.start("node-2", pause_at=moment, marker=marker)
            await network.connected(3)
            with pytest.raises(Refused) as refused:  # noqa: PT012 - the kill belongs to the question
                async with asyncio.timeout(30):
                    asking = asyncio.create_task(network.consortium.ask())
                    await marked(marker)
                    await network.kill("node-2")
                    await asking
            assert refused.value.code in (RefusalCode.TOO_FEW_SITES, RefusalCode.TOO_MANY_DROPOUTS)
            for site in (0, 1):
                await until(lambda site=site: settled(network.consortium.entries(site)))

    asyncio.run(story())


def settled(entries: list) -> bool:
    """Return whether nothing is held: what was reserved is either committed or released."""
    kinds = [kind for kind, _ in entries]
    return kinds.count("reserved") == kinds.count("committed") + kinds.count("released")


def test_a_question_in_which_a_second_attempt_is_needed_is_charged_for_both(tmp_path: Path) -> None:
    """Two of five vanish after their inputs left: too many for one sum, enough for another."""

    async def story() -> None:
        async with processes(tmp_path, sites=5) as network:
            markers = [tmp_path / f"paused-{site}" for site in (3, 4)]
            await network.start_nodes(0, 1, 2)
            for site, marker in zip((3, 4), markers, strict=True):
                await network.start(f"node-{site}", pause_at="committed", marker=marker)
            await network.connected(5)
            asking = asyncio.create_task(network.consortium.ask())
            for site, marker in zip((3, 4), markers, strict=True):
                await marked(marker)
                await network.kill(f"node-{site}")
            answer = await asking
            assert (answer.contributors, answer.participants, answer.releases) == (3, 3, 2)
            for site in range(3):
                assert network.consortium.spent(site) == 2
                assert network.consortium.entries(site) == [
                    ("reserved", 1),
                    ("committed", 1),
                    ("reserved", 2),
                    ("committed", 2),
                    ("revealed", None),
                ]

    asyncio.run(story())


def test_a_killed_coordinator_loses_no_node_and_ends_the_open_question_by_a_code(tmp_path: Path) -> None:
    async def story() -> None:
        async with processes(tmp_path) as network:
            marker = tmp_path / "paused"
            await network.start_nodes(0, 1, 2)
            await network.start("node-3", pause_at="committed", marker=marker)
            await network.connected(4)
            consortium = network.consortium
            question = consortium.question()
            asking = asyncio.create_task(_outcome(consortium, question))
            await marked(marker)  # the others wait for node 3's input
            await until(lambda: [consortium.spent(site) for site in range(3)] == [1, 1, 1])
            await network.kill("coordinator")
            assert await asking == "unavailable"

            await network.kill("node-3")
            await network.start("node-3")
            await network.start("coordinator")
            await network.connected(4)  # nobody restarted the other three
            assert (await consortium.ask(consortium.question(epsilon=0.9))).contributors == 4
            # the same question again: the second attempt that its researcher signed, charged as such
            again = await consortium.ask(question)
            assert (again.contributors, again.releases) == (4, 2)
            assert [consortium.spent(site) for site in range(4)] == [3, 3, 3, 3]

    asyncio.run(story())


async def _outcome(consortium, question) -> str:  # type: ignore[no-untyped-def]
    try:
        async with consortium.channel() as channel:
            await ask(channel, question, consortium)
    except (grpc.aio.AioRpcError, ValueError) as error:
        found = error.__context__ or error
        return found.code().name.lower() if isinstance(found, grpc.aio.AioRpcError) else "refused"
    return "answered"


def test_sigterm_ends_every_process_cleanly_and_the_node_says_so(tmp_path: Path) -> None:
    async def story() -> None:
        async with processes(tmp_path, sites=3) as network:
            await network.start_nodes(0, 1, 2)
            await network.connected(3)
            assert await network.stop("node-0") == 0
            assert await network.stop("coordinator") == 0
            status = (network.consortium.node(0).path / "status.json").read_text()
            assert '"running": false' in status
            assert not (tmp_path / "node-0.stderr").read_text()

    asyncio.run(story())
