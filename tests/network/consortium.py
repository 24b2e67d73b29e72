"""A consortium in a folder: coordinator and hospitals founded as people do it, with real keys and stores.

The coordinator and the nodes run in this process (`coordinator`, `node`) or as processes of their own
(`tests/network/launch.py`); what they are made of is the same.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import grpc

from coordinator.home import CoordinatorHome
from coordinator.profile import Profile
from coordinator.server import Serving
from coordinator.server import serving as coordinator_serving
from keyholder.enrolment import enrol as enrol_key_holder
from keyholder.home import KeyHolderHome
from node.enrolment import join
from node.home import NodeHome
from node.key_holder import trust
from node.policy import write_starter
from node.running import Parts, RunningNode
from node.serve import serving as node_serving
from privacy import reading
from privacy.ledger import Ledger
from privacy.reading import Answer
from protocols.clock import SystemClock
from protocols.cohort import Cohort
from protocols.peer import Role
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.node.patients import AF, Patient, fill_new
from tests.ports import free_ports

CLOCK = SystemClock()
PROJECT = "demo"
COHORT = Cohort.parse({"index": {"kind": "condition", "concepts": [AF]}})
DAY = date(2020, 5, 1)


@dataclass
class Consortium:
    """Where everything lies. `found` and `enrol` make it."""

    folder: Path
    sites: int = 4
    minimum_sites: int = 3
    secure_sum: str = "masked"
    counts: dict[int, int] = field(default_factory=dict)  # true number of patients in COHORT, by site

    @property
    def home(self) -> CoordinatorHome:
        return CoordinatorHome(self.folder / "coordinator")

    def node(self, site: int) -> NodeHome:
        return NodeHome(self.folder / f"node-{site}")

    @property
    def researcher(self) -> Profile:
        return Profile.load(self.folder / "researcher")

    @property
    def lead(self) -> Profile:
        return Profile.load(self.home.lead_profile)

    def found(self) -> None:
        """Make the coordinator's home and a researcher's credentials."""
        enrolment, broker, fleet = free_ports(3)
        home = CoordinatorHome.init(
            self.home.path,
            name="Test consortium",
            host="127.0.0.1",
            enrolment_port=enrolment,
            broker_port=broker,
            fleet_port=fleet,
            minimum_sites=self.minimum_sites,
            secure_sum=self.secure_sum,
            clock=CLOCK,
        )
        with contextlib.closing(home.open_state()) as state:
            home.issue_profile(
                state,
                self.folder / "researcher",
                name="ada",
                role=Role.RESEARCHER,
                projects=(PROJECT,),
                clock=CLOCK,
            )

    @property
    def key_holder(self) -> KeyHolderHome:
        return KeyHolderHome(self.folder / "keyholder")

    async def enrol_key_holder(self) -> None:
        """Let the key-holder join; hospitals that are there already trust it."""
        with contextlib.closing(self.home.open_state()) as state:
            token = self.home.invite(state, "holder", clock=CLOCK, role=Role.KEY_HOLDER).to_token()
        await asyncio.to_thread(enrol_key_holder, self.key_holder, token, clock=CLOCK)
        for site in range(self.sites):
            if self.node(site).joined:
                trust(self.node(site).path, self.key_holder.fingerprint())

    async def enrol(self, site: int) -> None:
        """Let one hospital join and fill its store; needs a serving coordinator."""
        with contextlib.closing(self.home.open_state()) as state:
            token = self.home.invite(state, f"Hospital {site}", clock=CLOCK).to_token()
        home = self.node(site)
        await asyncio.to_thread(join, home, token, clock=CLOCK)
        write_starter(home.policy, preset="demo")
        home.store.parent.mkdir()
        self.counts[site] = 100 * (site + 1) + 7
        fill_new(home.store, f"consortium {self.counts[site]}", lambda: _patients(self.counts[site]))

    async def enrol_all(self) -> None:
        for site in range(self.sites):
            await self.enrol(site)

    def found_and_enrol(self, *, key_holder: bool = False) -> "Consortium":
        """Bring a new consortium to where its hospitals may serve."""
        self.found()

        async def enrol() -> None:
            async with self.coordinator():
                await self.enrol_all()
                if key_holder:
                    await self.enrol_key_holder()

        asyncio.run(enrol())
        return self

    # ---- in this process ----

    @contextlib.asynccontextmanager
    async def coordinator(self, *, flower: bool = False) -> AsyncIterator[Serving]:
        async with coordinator_serving(self.home, clock=CLOCK, flower=flower) as serving:
            yield serving

    @contextlib.asynccontextmanager
    async def nodes(
        self, *sites: int, make: Callable[[Parts], RunningNode] = RunningNode, flower: bool = False
    ) -> AsyncIterator[list[RunningNode]]:
        async with contextlib.AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(
                    node_serving(self.node(site), clock=CLOCK, flower=flower, make=make)
                )
                for site in sites or range(self.sites)
            ]

    # ---- the researcher ----

    def question(self, *, epsilon: float = 1.0, **changes: object) -> Question:
        fields = {"project": PROJECT, "epsilon": epsilon, "delta": 1e-6, "max_sites_per_patient": 2}
        return Question.ask(COHORT, **({"now": CLOCK.now()} | fields | changes))  # type: ignore[arg-type]

    def signed(self, question: Question) -> bytes:
        profile = self.researcher
        return question.signed(signer=profile.name, key=profile.identity_key())

    @contextlib.asynccontextmanager
    async def channel(self, profile: Profile | None = None) -> AsyncIterator[grpc.aio.Channel]:
        profile = profile or self.researcher
        credentials = grpc.ssl_channel_credentials(*profile.tls())
        async with grpc.aio.secure_channel(profile.broker_address, credentials) as channel:
            yield channel

    async def ask(self, question: Question | None = None, *, envelope: bytes | None = None) -> Answer:
        """Ask as the researcher. Raises: Refused with the code that came."""
        async with self.channel() as channel:
            return await ask(channel, question or self.question(), self, envelope=envelope)

    # ---- looking into homes ----

    def spent(self, site: int) -> int:
        """Return how many releases the site's ledger has committed."""
        with Ledger(self.node(site).ledger, clock=CLOCK, read_only=True) as ledger:
            ledger.verify()
            return ledger.spent(delta=1e-6).events

    def entries(self, site: int) -> list[tuple[str, int | None]]:
        """Return kind and attempt of each ledger entry but the first."""
        with Ledger(self.node(site).ledger, clock=CLOCK, read_only=True) as ledger:
            return [(entry.kind, entry.attempt) for entry in ledger.entries()][1:]


def _patients(count: int) -> list[Patient]:
    """Return `count` patients in COHORT and 50 others."""
    with_it = [Patient(n + 1, conditions=[(AF, DAY)]) for n in range(count)]
    return [*with_it, *(Patient(100_000 + n) for n in range(50))]


async def ask(
    channel: grpc.aio.Channel,
    question: Question,
    consortium: Consortium,
    *,
    envelope: bytes | None = None,
) -> Answer:
    """Ask over an open channel. Raises: Refused."""
    request = pb.AskRequest(question_envelope=envelope or consortium.signed(question))
    try:
        async for event in fedtwin_pb2_grpc.ResearchStub(channel).Ask(request, timeout=60):
            if event.WhichOneof("body") == "answer":
                return reading.read_answer(question, event.answer)
            if event.WhichOneof("body") == "refusal":
                raise Refused(RefusalCode(event.refusal))
    except grpc.aio.AioRpcError as error:
        raise Refused(RefusalCode(error.details())) from error
    raise AssertionError("the stream ended without an answer")


async def until(holds: Callable[[], bool], *, timeout_s: float = 20.0) -> None:
    """Wait until `holds()`; fail after `timeout_s`."""
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.02)
