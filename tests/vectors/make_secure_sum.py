"""Make secure_sum.json: `python -m tests.vectors.make_secure_sum`. Only when the wire changes on purpose."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from privacy.lanes import laid
from privacy.rng import Words
from privacy.shamir import split
from tests.privacy.seeded_bits import SeededBits
from tests.privacy.sum_network import CONTEXT, SumNetwork, node, vectors_of

PATH = Path(__file__).with_name("secure_sum.json")
PARTIES, STEPS, COLLUDERS, LENGTH, SEED = 4, 2, 1, 5, 11
NUMBERS, LANES = (1, -1, 2**20 - 1, -(2**20), 0, 7, -7), 3


def network() -> SumNetwork:
    """Return the session of the vectors, before any message."""
    return SumNetwork(PARTIES, steps=STEPS, colluders=COLLUDERS, seed=SEED)


def words(vector: Words) -> str:
    """Return a vector as it crosses the wire, in hex."""
    return vector.astype("<u8").tobytes().hex()


def laid_numbers() -> Words:
    """Return numbers side by side in words, as they are before masks cover them."""
    return laid(np.array(NUMBERS).view(np.uint64), lanes=LANES)


def made() -> dict[str, Any]:
    """Return the whole session: everybody in step 0, party 2 out of step 1."""
    session = network().open()
    vectors = vectors_of(PARTIES, length=LENGTH, seed=SEED)
    total_0 = session.run(vectors, step=0)
    session.die(2)
    total_1 = session.run(vectors, step=1)
    secret = bytes(range(32))
    shares = split(secret, threshold=3, shares=5, bits=SeededBits(SEED))
    return {
        "about": "4 parties, 1 colluder, 2 steps; party 2 drops out of step 1. In hex, little-endian.",
        "shamir": {"secret": secret.hex(), "threshold": 3, "shares": [share.hex() for share in shares]},
        "laid": {"numbers": NUMBERS, "lanes": LANES, "words": words(laid_numbers())},
        "digest": session.parameters.digest().hex(),
        "context": CONTEXT.hex(),
        "vectors": [words(vectors[index]) for index in range(PARTIES)],
        "adverts": [session.collector.adverts()[node(index)].decode() for index in range(PARTIES)],
        "sealed": {
            f"{sender}>{receiver}": deposit.sealed[node(receiver)].hex()
            for sender, deposit in session.deposits.items()
            for receiver in range(PARTIES)
            if receiver != sender
        },
        "wraps": [session.deposits[index].wraps.hex() for index in range(PARTIES)],
        "masked": {f"{party}@{step}": words(sent) for (party, step), sent in session.sent.items()},
        "reveals": {
            f"{party}@{step}": [shares[node(index)].hex() for index in range(PARTIES)]
            for (party, step), shares in session.revealed.items()
        },
        "totals": [words(total_0), words(total_1)],
        "must_fail": must_fail(),
    }


def must_fail() -> list[dict[str, Any]]:
    """Return messages that party 0 must refuse, with the error it must refuse them with."""
    session, other = network().open(), SumNetwork(PARTIES, steps=STEPS, seed=SEED, session=2)
    fields = json.loads(session.collector.adverts()[node(1)])
    flipped = {"A": "B"}.get(fields["signature"][0], "A") + fields["signature"][1:]
    sealed = session.deposits[1].sealed[node(0)]
    adverts = {
        "a wrong signature": json.dumps(fields | {"signature": flipped}),
        "another purpose": json.dumps(fields | {"purpose": "question"}),
        "another session": other.parties[1].advert().decode(),
        "another signer": session.collector.adverts()[node(2)].decode(),
        "no envelope": "{}",
    }
    deliveries = {
        "one bit flipped": bytes([sealed[0] ^ 1]) + sealed[1:],
        "sealed by another": session.deposits[2].sealed[node(0)],
        "cut off": sealed[:-1],
        "empty": b"",
    }
    return [{"what": what, "advert": text, "error": "BadAdvert"} for what, text in adverts.items()] + [
        {"what": what, "sealed": data.hex(), "error": "BadShares"} for what, data in deliveries.items()
    ]


if __name__ == "__main__":
    PATH.write_text(json.dumps(made(), indent=1) + "\n")
