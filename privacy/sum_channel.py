"""What two parties of a secure sum hold between them: signed keys, sealed shares, pair seeds per step.

Guarantee: keys come from X25519 keys that the roster's identity keys signed for this very session, so the
coordinator cannot stand between two honest parties; each derived key has one use and one direction.
"""

from __future__ import annotations

from collections.abc import Collection

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from privacy import masks
from privacy.errors import BadAdvert, BadShares, BadStatement
from privacy.masks import SEED_BYTES
from privacy.secure_sum import CHECK_BYTES, wrap_bytes
from protocols.envelope import BadEnvelope, Purpose, SignedEnvelope, sign, verify
from protocols.ids import NodeId

KEY_BYTES = 32  # RFC 7748
DIGEST_BYTES = 32  # SHA-256
_NONCE = bytes(12)  # every sealing key is derived or drawn for one message, so the nonce may stay zero


def sign_advert(public: bytes, *, digest: bytes, me: NodeId, key: Ed25519PrivateKey) -> bytes:
    """Return the envelope that binds the channel key `public` to `me` and to the session of `digest`."""
    return sign(digest + public, purpose=Purpose.SUM_ADVERT, signer=str(me), key=key).to_bytes()


def verify_advert(advert: bytes, *, digest: bytes, node: NodeId, key: Ed25519PublicKey) -> bytes:
    """Return the channel key that `node` signed for the session of `digest`. Raises: BadAdvert."""
    try:
        envelope = SignedEnvelope.from_bytes(advert)
        verify(envelope, purpose=Purpose.SUM_ADVERT, signer=str(node), key=key)
    except BadEnvelope as error:
        raise BadAdvert(str(error), node=node) from error
    return advertised_key(envelope, digest=digest, node=node)


def advertised_key(envelope: SignedEnvelope, *, digest: bytes, node: NodeId) -> bytes:
    """Return the channel key in `envelope`, whose signature is not judged here. Raises: BadAdvert."""
    if envelope.purpose != Purpose.SUM_ADVERT or envelope.signer != str(node):
        raise BadAdvert("not an advert of this node", node=node)
    if len(envelope.payload) != DIGEST_BYTES + KEY_BYTES:
        raise BadAdvert("a session digest and a key are 64 bytes", node=node)
    if envelope.payload[:DIGEST_BYTES] != digest:
        raise BadAdvert("signed for another session", node=node)
    return envelope.payload[DIGEST_BYTES:]


def sign_survivors(
    survivors: Collection[NodeId], *, digest: bytes, step: int, me: NodeId, key: Ed25519PrivateKey
) -> bytes:
    """Return the envelope by which `me` says that it was told of exactly these survivors of a step."""
    payload = _survivors_payload(survivors, digest=digest, step=step)
    return sign(payload, purpose=Purpose.SUM_AGREEMENT, signer=str(me), key=key).to_bytes()


def verify_survivors(
    statement: bytes,
    survivors: Collection[NodeId],
    *,
    digest: bytes,
    step: int,
    node: NodeId,
    key: Ed25519PublicKey,
) -> None:
    """Check that `node` was told of exactly these survivors. Raises: BadStatement."""
    try:
        envelope = SignedEnvelope.from_bytes(statement)
        payload = verify(envelope, purpose=Purpose.SUM_AGREEMENT, signer=str(node), key=key)
    except BadEnvelope as error:
        raise BadStatement(f"no agreement of {node}") from error
    if payload != _survivors_payload(survivors, digest=digest, step=step):
        raise BadStatement(f"{node} was told of other survivors")


def _survivors_payload(survivors: Collection[NodeId], *, digest: bytes, step: int) -> bytes:
    return digest + step.to_bytes(4, "big") + b"".join(node.raw for node in sorted(survivors))


class PairChannel:
    """The secret that `me` and `peer` share for one session."""

    def __init__(
        self, private: X25519PrivateKey, public: bytes, *, digest: bytes, me: NodeId, peer: NodeId
    ) -> None:
        """Agree on the secret. Raises: BadAdvert if the peer's key is a point that gives no secret."""
        mine = private.public_key().public_bytes_raw()
        ends = sorted([me.raw + mine, peer.raw + public])
        try:
            secret = private.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise BadAdvert("not a usable key", node=peer) from error
        self._root = masks.agree(secret, salt=digest, info=b"".join(ends))
        self._digest = digest
        self._me = me
        self._peer = peer

    def pair_seed(self, step: int) -> bytes:
        """Return the seed of the mask that the two parties add and subtract in `step`."""
        return masks.derive(self._root, "pair", step.to_bytes(4, "big"))

    def seal(self, plain: bytes) -> bytes:
        """Return `plain` sealed to the peer. Once per session: the key is used with one nonce."""
        return self._sealer(self._me, self._peer).encrypt(_NONCE, plain, self._label(self._me, self._peer))

    def open(self, sealed: bytes) -> bytes:
        """Return what the peer sealed to me. Raises: BadShares."""
        try:
            return self._sealer(self._peer, self._me).decrypt(
                _NONCE, sealed, self._label(self._peer, self._me)
            )
        except InvalidTag as error:
            raise BadShares("not sealed by it to this party in this session", node=self._peer) from error

    def _sealer(self, sender: NodeId, receiver: NodeId) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(masks.derive(self._root, "seal", sender.raw, receiver.raw))

    def _label(self, sender: NodeId, receiver: NodeId) -> bytes:
        return self._digest + sender.raw + receiver.raw

    def __repr__(self) -> str:
        return f"PairChannel(<hidden>, {self._me} ↔ {self._peer})"


def self_check(self_seed: bytes) -> bytes:
    """Return what a recovered self seed is compared with; says nothing about a seed of 256 random bits."""
    return masks.derive(self_seed, "check")


def wrap(
    pair_seeds: list[bytes], *, self_seed: bytes, wrap_key: bytes, digest: bytes, node: NodeId, step: int
) -> bytes:
    """Return one step's wrap: the check of the self seed, and the pair seeds sealed under the wrap key."""
    label = digest + node.raw + step.to_bytes(4, "big")
    sealed = ChaCha20Poly1305(wrap_key).encrypt(_NONCE, b"".join(pair_seeds), label)
    return self_check(self_seed) + sealed


def unwrap(
    wraps: bytes, *, wrap_key: bytes, digest: bytes, node: NodeId, step: int, peers: int
) -> list[bytes] | None:
    """Return the pair seeds of `node` in `step`, by ascending peer; None if the key does not open them."""
    one = wraps[step * wrap_bytes(peers) : (step + 1) * wrap_bytes(peers)]
    label = digest + node.raw + step.to_bytes(4, "big")
    try:
        plain = ChaCha20Poly1305(wrap_key).decrypt(_NONCE, one[CHECK_BYTES:], label)
    except InvalidTag:
        return None
    return [plain[at : at + SEED_BYTES] for at in range(0, len(plain), SEED_BYTES)]


def check_of(wraps: bytes, *, step: int, peers: int) -> bytes:
    """Return the check of the self seed of `step`."""
    start = step * wrap_bytes(peers)
    return wraps[start : start + CHECK_BYTES]
