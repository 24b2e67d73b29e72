"""One question between its asking and its outcome: who was asked, what they said, how far it is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from coordinator.bell import Bell
from coordinator.sums import SumSession
from protocols.ids import NodeId, QuestionId
from protocols.question import Question
from protocols.refusal import RefusalCode
from protocols.wire import fedtwin_pb2 as pb

# A node that refused with one of these would refuse the same question again, while its epoch stays.
LASTING = frozenset(
    {
        RefusalCode.NO_POLICY,
        RefusalCode.NOT_ALLOWED,
        RefusalCode.BUDGET_EXHAUSTED,
        RefusalCode.NO_DATA,
        RefusalCode.UNKNOWN_CONCEPT,
        RefusalCode.TOO_FEW_SITES,
    }
)


@dataclass(eq=False)
class Asking:
    """One question that is being answered."""

    question: Question
    researcher: str
    envelope: bytes
    meaning: bytes
    setting: bytes | None = None  # in which its release may be given again
    epochs: dict[NodeId, bytes] = field(default_factory=dict)  # when it was begun
    declined: set[NodeId] = field(default_factory=set)  # by a lasting refusal
    attempt: int = 0
    stage: str = "asked"
    sites: int = 0
    outcome: pb.Answer | RefusalCode | None = None
    offered: set[NodeId] = field(default_factory=set)
    replies: dict[NodeId, RefusalCode | None] = field(default_factory=dict)  # None: accepted
    step: tuple[SumSession, int] | None = None
    bell: Bell = field(default_factory=Bell)

    @property
    def id(self) -> QuestionId:
        """The question's id."""
        return self.question.question_id

    @property
    def accepted(self) -> set[NodeId]:
        """The nodes that accepted the attempt and have not taken it back."""
        return {node for node, refusal in self.replies.items() if refusal is None}

    def replied(self, node: NodeId, refusal: RefusalCode | None) -> None:
        """Note that a node accepts, or why it does not."""
        self.replies[node] = refusal
        if refusal in LASTING:
            self.declined.add(node)

    def reached(self, stage: str, sites: int) -> None:
        """Tell whoever watches how far it is."""
        self.stage, self.sites = stage, sites
        self.bell.ring()

    def reason(self, *, among: set[NodeId], otherwise: RefusalCode) -> RefusalCode:
        """Return the code that most refusing nodes gave, if refusals are why it failed."""
        given = ((node, code) for node, code in self.replies.items() if node in among)
        codes = Counter(code for _, code in given if code is not None)
        return codes.most_common(1)[0][0] if codes else otherwise

    def answered_by(self, earlier: pb.Answer) -> pb.Answer:
        """Return an earlier answer as the answer to this question: the same release, free of charge now."""
        again = pb.Answer()
        again.CopyFrom(earlier)
        again.question_id, again.cached = self.id.raw, True
        return again
