"""What can go wrong in privacy/.

SecureSumError (ValueError)
├── BadParameters       the caller's mistake: a session, share or vector that cannot be
│   └── DoesNotFit      a value that an encrypted sum would not hold
├── ProtocolViolation   a message or a request that an honest counterpart does not send
│   ├── OutOfOrder      it came before its turn, or after it
│   ├── StepReused      the step's one mask, one reveal or one total is used up
│   ├── BadStatement    what is shown is not what its signer signed for this step
│   ├── BadAdvert       a public key that its node did not sign for this session
│   └── BadShares       shares, or seeds, that do not open or have another form
├── TooFewSurvivors     a refusal: opening the masks would show a sum of too few
├── Disagreement        a refusal: too few others were told of the same survivors
├── TooFewReveals       a refusal: fewer opened their shares than the threshold
└── UnopenedMask        a fault: the shares that came do not give a peer's secret

Each carries the code that may leave a hospital, and names nodes and steps only.
"""

from __future__ import annotations

from typing import ClassVar

from protocols.ids import NodeId
from protocols.refusal import RefusalCode


class SecureSumError(ValueError):
    """Something is wrong with a secure sum. `code` may leave the hospital, the text may not."""

    code: ClassVar[RefusalCode] = RefusalCode.PROTOCOL_VIOLATION


class BadParameters(SecureSumError):
    """A session, share or vector that cannot be."""

    code = RefusalCode.MALFORMED


class DoesNotFit(BadParameters):
    """A value is larger than this back-end can add without wrapping."""

    code = RefusalCode.DOES_NOT_FIT

    def __init__(self, *, largest: int) -> None:
        super().__init__(f"an encrypted sum takes values up to {largest} here")
        self.largest = largest


class ProtocolViolation(SecureSumError):
    """A message or a request that an honest counterpart does not send."""


class OutOfOrder(ProtocolViolation):
    """It came before its turn, or after it."""


class StepReused(ProtocolViolation):
    """A step has one mask, one reveal and one total, and this one is used up."""

    def __init__(self, *, step: int) -> None:
        super().__init__(f"step {step} is used up")
        self.step = step


class BadStatement(ProtocolViolation):
    """A key, commitment, endorsement or agreement that its signer did not sign for this session and step."""


class BadAdvert(ProtocolViolation):
    """The advert of `node` is not its signed public key for this session."""

    def __init__(self, reason: str, *, node: NodeId) -> None:
        super().__init__(f"advert of {node}: {reason}")
        self.node = node


class BadShares(ProtocolViolation):
    """What `node` sent, or is said to have sent, does not open or has another form."""

    def __init__(self, reason: str, *, node: NodeId) -> None:
        super().__init__(f"from {node}: {reason}")
        self.node = node


class TooFewSurvivors(SecureSumError):
    """A sum of `got` would be opened, and at least `fewest` have to be in it."""

    code = RefusalCode.TOO_MANY_DROPOUTS

    def __init__(self, *, got: int, fewest: int) -> None:
        super().__init__(f"{got} parties are left, {fewest} are needed")
        self.got = got
        self.fewest = fewest


class Disagreement(SecureSumError):
    """`got` survivors signed that they were told of the same ones, and `threshold` have to."""

    def __init__(self, *, got: int, threshold: int) -> None:
        super().__init__(f"{got} survivors were told the same, {threshold} are needed")
        self.got = got
        self.threshold = threshold


class TooFewReveals(SecureSumError):
    """`got` parties have opened their shares of a step, and `threshold` have to."""

    code = RefusalCode.TOO_MANY_DROPOUTS

    def __init__(self, *, got: int, threshold: int) -> None:
        super().__init__(f"{got} parties opened their shares, {threshold} are needed")
        self.got = got
        self.threshold = threshold


class UnopenedMask(SecureSumError):
    """No set of the shares that came gives the secret of `peer` for `step`; more reveals may."""

    def __init__(self, *, peer: NodeId, step: int) -> None:
        super().__init__(f"the shares of {peer} for step {step} do not open its mask")
        self.peer = peer
        self.step = step
