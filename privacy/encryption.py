"""The schemes that a consortium may name in its roster for encrypted sums, and what each needs installed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from privacy import bfv, ckks
from privacy.ring_vector import RingForm
from privacy.rng import Words


class MissingExtra(ValueError):
    """The consortium's secure sums need a library that is not installed here."""

    def __init__(self, extra: str) -> None:
        super().__init__(
            f"this consortium adds up under {extra.upper()}, which is not installed here:"
            f" pip install 'fedtwin[{extra}]'"
        )
        self.extra = extra


class Secret(Protocol):
    """A key pair; only its public half is shown."""

    public_key: bytes

    def decrypt(self, packed: bytes, *, length: int) -> Words:
        """Return the integers in an encrypted sum. Raises: ProtocolViolation."""
        ...


class Encryptor(Protocol):
    """What a public key does."""

    def encrypt(self, values: np.ndarray[Any, np.dtype[np.int64]]) -> bytes:
        """Return the packed ciphertext of integers that fit."""
        ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """One scheme. Its form needs no library; keys and encryption do."""

    form: RingForm
    library: str
    _secret: Callable[[], Secret]
    _encryptor: Callable[[bytes], Encryptor]

    @property
    def name(self) -> str:
        """As the roster names it, and as the extra is called."""
        return self.form.scheme

    def require(self) -> None:
        """Raise MissingExtra where the library is not installed."""
        if find_spec(self.library) is None:
            raise MissingExtra(self.name)

    def new_secret(self) -> Secret:
        """Return a fresh key pair. Raises: MissingExtra."""
        self.require()
        return self._secret()

    def encryptor(self, public_key: bytes) -> Encryptor:
        """Return what encrypts under a public key. Raises: MissingExtra, ProtocolViolation."""
        self.require()
        return self._encryptor(public_key)


SCHEMES: Mapping[str, Scheme] = {
    "bfv": Scheme(bfv.FORM, "Pyfhel", bfv.Secret, bfv.Encryptor),
    "ckks": Scheme(ckks.FORM, "tenseal", ckks.Secret, ckks.Encryptor),
}
