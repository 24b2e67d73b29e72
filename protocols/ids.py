"""Identifiers: 16 random bytes with a kind, written `n-<32 hex digits>`.

A kind is part of the type, so a session id cannot stand where a node id is expected.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import ClassVar, Self

ID_BYTES = 16  # 128 bits: no two random ids meet


class MalformedId(ValueError):
    """The text or bytes are no identifier of this kind."""


@dataclass(frozen=True, order=True, slots=True)
class _Id:
    prefix: ClassVar[str]
    raw: bytes

    def __post_init__(self) -> None:
        if not isinstance(self.raw, bytes) or len(self.raw) != ID_BYTES:
            got = len(self.raw) if isinstance(self.raw, bytes) else 0
            raise MalformedId(f"{type(self).__name__} needs {ID_BYTES} bytes, got {got}")

    @classmethod
    def new(cls) -> Self:
        """Return a fresh identifier from the operating system's secure source."""
        return cls(secrets.token_bytes(ID_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the identifier written as `text`.

        >>> NodeId.parse("n-000102030405060708090a0b0c0d0e0f").raw[1]
        1

        Raises: MalformedId for another prefix, another length or anything but lower-case hex.
        """
        prefix, _, digits = text.partition("-")
        if prefix != cls.prefix:
            raise MalformedId(f"{cls.__name__} starts with '{cls.prefix}-'")
        if len(digits) != 2 * ID_BYTES or set(digits) - set("0123456789abcdef"):
            raise MalformedId(f"{cls.__name__} needs {2 * ID_BYTES} lower-case hex digits")
        return cls(bytes.fromhex(digits))

    def __str__(self) -> str:
        return f"{self.prefix}-{self.raw.hex()}"


class ConsortiumId(_Id):
    """One consortium: one certificate authority and one roster."""

    prefix = "c"


class NodeId(_Id):
    """One hospital node of a consortium."""

    prefix = "n"


class SessionId(_Id):
    """One secure-sum session: a fixed set of participants and a number of steps."""

    prefix = "s"


class QuestionId(_Id):
    """One question, as its researcher signed it. Answered at most once."""

    prefix = "q"
