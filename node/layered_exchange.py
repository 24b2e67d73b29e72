"""Sums of which some layers are encrypted and all others masked, at a hospital."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from node.exchange import EncryptedExchange, MaskedExchange, Revealing
from privacy.layered_sum import Layers
from protocols.wire import fedtwin_pb2 as pb


@dataclass
class LayeredExchange:
    """Both parts of a session; what each sends and opens, it decides by itself."""

    masked: MaskedExchange
    encrypted: EncryptedExchange
    layers: Layers

    @property
    def largest_input(self) -> int:
        """What one of so many participants may add without wrapping."""
        return self.encrypted.largest_input

    def fits(self, length: int) -> bool:
        """Return whether the part that is encrypted can pass."""
        return length != self.layers.chosen.size or self.encrypted.fits(self.layers.encrypted)

    def opening(self) -> pb.NodeFrame:
        """Return this party's advert."""
        return self.masked.opening()

    async def follow(self, body: object) -> bool:
        """Pass a frame to its part; ready once the shares of masks are here."""
        match body:
            case pb.SumKey() | pb.SumCiphertext() | pb.SumEndorse():
                return await self.encrypted.follow(body)
            case _:
                return await self.masked.follow(body)

    async def prepare(self, step: int, context: bytes, length: int, *, lanes: int) -> None:
        """Compute the masks of what is masked."""
        masked = length - self.layers.encrypted if step < self.layers.steps else length
        await self.masked.prepare(step, context, masked, lanes=lanes)

    async def keyed(self, step: int) -> None:
        """Wait for the step's key."""
        if step < self.layers.steps:
            await self.encrypted.keyed(step)

    async def inputs(
        self, step: int, context: bytes, vector: NDArray[np.uint64], *, lanes: int
    ) -> AsyncIterator[pb.NodeFrame]:
        """Yield the commitment to what is encrypted, then what is masked."""
        masked = vector
        if step < self.layers.steps:
            masked, encrypted = self.layers.split(vector)
            async for frame in self.encrypted.inputs(step, context, encrypted, lanes=lanes):
                yield frame
        async for frame in self.masked.inputs(step, context, masked, lanes=lanes):
            yield frame

    async def reveal(self, body: object) -> Revealing | None:
        """Return what a frame asks to open of its part."""
        part = self.encrypted if isinstance(body, pb.SumInputs) else self.masked
        return await part.reveal(body)
