"""The terms of a secure sum: who takes part, how many steps, and the messages that pass.

The protocol (Bonawitz et al. 2017 on the full graph, many steps per session; docs/decisions/0001):

    party                                    collector                          called
    advert: X25519 key, signed           →   all adverts                        advert, adverts
    shares: per peer, sealed; wraps      →   what the others sealed for it      shares, outgoing
    step k: vector + masks               →   survivors of step k                input, close
            (two or more missing: the survivors, signed → everybody's statements agree)
            shares of the survivors' self seeds and the others' wrap keys  →    reveal, total

Parties are privacy.sum_party.SumParty, the other side is privacy.sum_collector.SumCollector. Who has not
delivered its shares before they were handed on takes no part in any mask of the session.

Guarantee: as long as no more parties work with the coordinator than the colluders that `threshold_for` was
given, no honest party's vector is opened by itself, whatever the coordinator says about who takes part and
who dropped out. They learn per step at most one sum of honest parties' vectors, and nothing else about them.
A party or the coordinator can spoil a total; that is not prevented.

How many are in that sum: the honest ones among the survivors that some of them was told of, or all but one,
whatever the coordinator tells whom. Let n be the parties, c the colluders, t the threshold, so 2t > n + c. A
party that is told of one missing party opens at most one wrap key, and t - c honest shares open one:
(n - c) / (t - c) < 2, so no second one is opened. A party that is told of more (`AGREE_FROM`) opens shares
only after t survivors signed that they were told of the same ones (the consistency check of Bonawitz et al.
2017, section 6.2). Nobody honest signs twice in a step, or signs and then opens shares for others; two sets
would need 2(t - c) <= n - c honest signatures, so there is one set at most, of whom none is opened as a
dropout: beside the t - c that signed are at most n - t honest parties, and n - t + c < t. What a coordinator
could do without this stands in tests/privacy/test_secure_sum_stories.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from privacy.errors import BadParameters
from privacy.masks import SEED_BYTES
from privacy.shamir import SHARE_BYTES
from protocols import canonical
from protocols.ids import NodeId, SessionId

DOMAIN = "fedtwin-secure-sum-v4"  # whoever masks or lays out vectors as v1 to v3 did is refused by its advert
MAX_PARTICIPANTS = 1000  # the full graph grows with the square; hospitals are 3 to 100
MAX_STEPS = 2**16  # set-up sends about 130 bytes per peer and step
MAX_PURPOSE = 200  # characters; "training:" and a hash
TAG_BYTES = 16  # of ChaCha20-Poly1305
STEP_SHARES_BYTES: Final = 2 * SHARE_BYTES  # a step's share of the self seed, then of the wrap key
AGREE_FROM = 2  # missing parties, from which survivors compare what they were told
CHECK_BYTES = 32  # what a recovered self seed is compared with


def threshold_for(participants: int, *, colluders: int) -> int:
    """Return the fewest shares that must open a secret so that no peer is opened twice.

    To unmask one honest party the coordinator needs both its self seed and its wrap key of a step. It tells
    some of the n - c honest parties that the target survived and the others that it dropped; each answers
    once, the c colluders give both. With a honest parties in the first group and b in the second it needs
    a + c >= t and b + c >= t, so n + c = a + b + 2c >= 2t. With t = floor((n + c) / 2) + 1, 2t > n + c.

    A step survives n - t dropouts: c of them if n >= 3c + 1; three parties with one colluder survive none.

    >>> [threshold_for(n, colluders=1) for n in (3, 4, 5, 10)]
    [3, 3, 4, 6]

    Raises: BadParameters unless 0 <= colluders < participants and there are at least two.
    """
    if participants < 2 or not 0 <= colluders < participants:
        raise BadParameters("two participants at least, and fewer colluders than participants")
    return (participants + colluders) // 2 + 1


@dataclass(frozen=True, slots=True)
class SessionParameters:
    """One session: a fixed set of participants and a number of steps, each of which gives one total.

    Args:
        participants: ascending, at least two.
        threshold: shares that open a secret; more than half of the participants.
        steps: how many sums the session can give, numbered from 0.
        purpose: "questions" or "training:<plan hash>"; up to 200 characters.
        round: of the training run, 0 for questions.
    Raises: BadParameters.
    """

    session_id: SessionId
    participants: tuple[NodeId, ...]
    threshold: int
    steps: int
    purpose: str
    round: int

    def __post_init__(self) -> None:
        whole = (self.threshold, self.steps, self.round)
        if not all(type(number) is int for number in whole):
            raise BadParameters("threshold, steps and round are whole numbers")
        if not isinstance(self.session_id, SessionId) or not isinstance(self.purpose, str):
            raise BadParameters("a session has a SessionId and a purpose in words")
        nodes = self.participants
        if not isinstance(nodes, tuple) or not all(isinstance(node, NodeId) for node in nodes):
            raise BadParameters("participants are a tuple of NodeId")
        if not 2 <= len(nodes) <= MAX_PARTICIPANTS:
            raise BadParameters(f"2 to {MAX_PARTICIPANTS} participants, got {len(nodes)}")
        if any(a >= b for a, b in pairwise(nodes)):
            raise BadParameters("participants are ascending and each stands once")
        lowest = threshold_for(len(nodes), colluders=0)
        if not lowest <= self.threshold <= len(nodes):
            raise BadParameters(f"the threshold is {lowest} to {len(nodes)}, got {self.threshold}")
        if not 1 <= self.steps <= MAX_STEPS:
            raise BadParameters(f"1 to {MAX_STEPS} steps, got {self.steps}")
        if not 0 < len(self.purpose) <= MAX_PURPOSE:
            raise BadParameters(f"the purpose has 1 to {MAX_PURPOSE} characters")
        if not 0 <= self.round < 2**32:
            raise BadParameters("the round is between 0 and 2^32 - 1")

    def must_agree(self, survivors: Collection[NodeId]) -> bool:
        """Return whether survivors must have compared what they were told before they reveal."""
        return len(self.participants) - len(survivors) >= AGREE_FROM

    def digest(self) -> bytes:
        """Return the 32 bytes that stand for all of this in every signature and key."""
        fields = {
            "domain": DOMAIN,
            "participants": [str(node) for node in self.participants],
            "purpose": self.purpose,
            "round": self.round,
            "session": str(self.session_id),
            "steps": self.steps,
            "threshold": self.threshold,
        }
        return hashlib.sha256(canonical.encode(fields)).digest()


@dataclass(frozen=True, slots=True)
class SealedShares:
    """What one party deposits: for each peer its shares of all steps, sealed to it, and the wraps.

    Args:
        sealed: by peer.
        wraps: for each step a check of the self seed and the pair seeds sealed under the step's wrap key.
    Raises: BadParameters.
    """

    sealed: Mapping[NodeId, bytes]
    wraps: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.wraps, bytes) or not self.sealed:
            raise BadParameters("shares have at least one peer, and wraps in bytes")
        for peer, data in self.sealed.items():
            if not isinstance(peer, NodeId) or not isinstance(data, bytes):
                raise BadParameters("sealed shares are bytes by NodeId")
        if len({len(data) for data in self.sealed.values()}) != 1:
            raise BadParameters("sealed shares of one sender are of one size")

    def __repr__(self) -> str:
        return f"SealedShares(<hidden>, peers={len(self.sealed)})"


def sealed_bytes(steps: int) -> int:
    """Return the size of the shares of `steps` steps, sealed to one peer."""
    return steps * STEP_SHARES_BYTES + TAG_BYTES


def wrap_bytes(peers: int) -> int:
    """Return the size of one step's wrap for a party with `peers` other parties."""
    return CHECK_BYTES + peers * SEED_BYTES + TAG_BYTES
