"""The state of each hospital's data, as far as a coordinator may know it: whether it has changed.

A node sends 16 bytes that change when its data (or what it allows) change and say nothing else; they are an
HMAC under a key of the node's own. A node that sends none is one whose data may have changed at any moment.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

EPOCH_BYTES = 16
_DOMAIN = b"fedtwin-question-setting-v1"


class Epochs:
    """The newest epoch of each connected node. A Listener of the broker."""

    def __init__(self) -> None:
        self._of: dict[NodeId, bytes] = {}

    def now(self, nodes: Iterable[NodeId]) -> dict[NodeId, bytes]:
        """Return the epochs of those nodes that sent one."""
        return {node: self._of[node] for node in nodes if node in self._of}

    # ---- Listener ----

    def connected(self, node: NodeId, hello: pb.Hello) -> None:
        """Take the epoch that a node begins with."""
        self._take(node, hello.data_epoch)

    def heard(self, node: NodeId, frame: pb.NodeFrame) -> None:
        """Take a changed epoch. Raises: Refused(MALFORMED) for another length."""
        if frame.WhichOneof("body") == "data_epoch":
            if len(frame.data_epoch.epoch) not in (0, EPOCH_BYTES):
                raise Refused(RefusalCode.MALFORMED)
            self._take(node, frame.data_epoch.epoch)

    def lost(self, node: NodeId) -> None:
        """Forget a node's: it says anew how it stands when it comes back."""
        self._of.pop(node, None)

    def _take(self, node: NodeId, epoch: bytes) -> None:
        if len(epoch) == EPOCH_BYTES:
            self._of[node] = epoch
        else:
            self._of.pop(node, None)


def setting(nodes: Iterable[NodeId], epochs: Mapping[NodeId, bytes]) -> bytes | None:
    """Return 32 bytes that name these hospitals and the state of their data; None if one is unknown."""
    digest = hashlib.sha256(_DOMAIN)
    for node in sorted(set(nodes)):
        if node not in epochs:
            return None
        digest.update(node.raw + epochs[node])
    return digest.digest()
