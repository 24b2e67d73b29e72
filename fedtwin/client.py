"""The researcher's client: signed questions in, noisy totals with their error bars out.

client = fedtwin.connect("~/.fedtwin/profile")
answer = client.count({"index": {"kind": "condition", "concepts": [201826]}}, epsilon=0.5, project="demo")
print(answer.estimate, answer.ci95)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

import grpc

from coordinator.channel import explained, open_channel
from coordinator.profile import Profile
from privacy.reading import Answer, read_answer
from protocols.clock import Clock, SystemClock
from protocols.cohort import Cohort
from protocols.ids import NodeId
from protocols.question import Question
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc

DELTA = 1e-6  # below one in the number of patients of any consortium this is built for
MAX_SITES_PER_PATIENT = 2  # until records are linked across hospitals, a patient may be in two
TIMEOUT_S = 120.0

Watcher = Callable[[str, int], None]  # called with a stage and the number of sites it concerns


@dataclass(frozen=True, slots=True)
class NodeView:
    """One hospital's node, as the coordinator sees it."""

    node_id: str
    name: str
    connected: bool
    last_seen: datetime | None
    certificate_expires: str
    revoked: bool

    def to_json(self) -> dict[str, Any]:
        """Return the fields for a machine to read."""
        return {
            "node_id": self.node_id,
            "name": self.name,
            "connected": self.connected,
            "last_seen": self.last_seen.isoformat() if self.last_seen else None,
            "certificate_expires": self.certificate_expires,
            "revoked": self.revoked,
        }


class Client:
    """Asks in the name of one profile, over one connection that it keeps. Calls may run in threads.

    Close it, or use it as a context manager.
    """

    def __init__(self, profile: Profile, *, clock: Clock | None = None) -> None:
        self.profile = profile
        self._clock = clock or SystemClock()
        self._channel = open_channel(profile)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection. Questions that are still open go on at the coordinator."""
        self._channel.close()

    def count(
        self,
        cohort: Cohort | dict[str, Any] | str | bytes,
        *,
        epsilon: float,
        project: str,
        delta: float = DELTA,
        max_sites_per_patient: int = MAX_SITES_PER_PATIENT,
        timeout_s: float = TIMEOUT_S,
        progress: Callable[[str, int], None] | None = None,
    ) -> Answer:
        """Ask every connected hospital how many of its patients are in `cohort`; return the noisy total.

        Guarantee: what each hospital reveals is (epsilon, delta)-differentially private in one patient, and
        each charges it to its own ledger before anything leaves.

        Args:
            epsilon, delta: of this answer.
            project: one of the profile's projects; its budget at each hospital pays.
            max_sites_per_patient: in how many of these hospitals one person may have records.
            progress: called with a stage and the number of sites it concerns.
        Raises: MalformedCohort, MalformedQuestion; Refused with a code; CoordinatorUnreachable.
        """
        form = cohort if isinstance(cohort, Cohort) else Cohort.parse(cohort)
        question = Question.ask(
            form,
            project=project,
            epsilon=epsilon,
            delta=delta,
            max_sites_per_patient=max_sites_per_patient,
            now=self._clock.now(),
        )
        signed = question.signed(signer=self.profile.name, key=self.profile.identity_key())
        with explained(self.profile):
            request = pb.AskRequest(question_envelope=signed)
            for event in _stub(self._channel).Ask(request, timeout=timeout_s):
                kind = event.WhichOneof("body")
                if kind == "progress" and progress is not None:
                    progress(event.progress.stage, event.progress.sites)
                elif kind == "refusal":
                    raise Refused(_known(event.refusal))
                elif kind == "answer":
                    return read_answer(question, event.answer)
        raise Refused(RefusalCode.INTERNAL)  # the stream ended without an answer

    def nodes(self) -> tuple[int, tuple[NodeView, ...]]:
        """Return the roster's version and the nodes it lists (for a lead).

        Raises: Refused, CoordinatorUnreachable.
        """
        with explained(self.profile):
            reply = _stub(self._channel).ListNodes(pb.ListNodesRequest(), timeout=10)
        return reply.roster_version, tuple(_node_view(node) for node in reply.nodes)

    def propose(self, study_envelope: bytes) -> pb.ProposeStudyReply:
        """Send a signed study to every connected hospital (for a lead).

        Raises: Refused, CoordinatorUnreachable.
        """
        with explained(self.profile):
            request = pb.ProposeStudyRequest(study_envelope=study_envelope)
            reply: pb.ProposeStudyReply = _stub(self._channel).ProposeStudy(request, timeout=30)
            return reply


def _stub(channel: grpc.Channel) -> Any:
    return fedtwin_pb2_grpc.ResearchStub(channel)  # type: ignore[no-untyped-call]  # generated code


def _known(text: str) -> RefusalCode:
    try:
        return RefusalCode(text)
    except ValueError:
        return RefusalCode.INTERNAL


def _node_view(node: pb.NodeState) -> NodeView:
    seen = datetime.fromtimestamp(node.last_seen_unix_s, UTC) if node.last_seen_unix_s else None
    return NodeView(
        str(NodeId(node.node_id)), node.name, node.connected, seen, node.certificate_expires, node.revoked
    )
