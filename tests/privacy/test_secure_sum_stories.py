"""What a coordinator gets that tells each hospital of other dropouts: a known limit, and where it ends.

No hospital is opened by itself (test_secure_sum_attacks). But a sum is opened over whoever the stories leave:
where hospitals accept that two or more are missing, and colluders help, that is fewer than any of them was
told. Where they accept one, it is not.
"""

from collections.abc import Mapping

import numpy as np
import pytest

from privacy.errors import TooFewSurvivors
from privacy.masks import add_mask, subtract_mask
from privacy.rng import Words
from privacy.secure_sum import STEP_SHARES_BYTES
from privacy.shamir import SHARE_BYTES, recover
from privacy.sum_channel import unwrap
from tests.privacy.sum_network import CONTEXT, SumNetwork, node, plain_sum, vectors_of

PARTIES, COLLUDERS = 10, 3
HONEST, HELPERS = range(PARTIES - COLLUDERS), range(PARTIES - COLLUDERS, PARTIES)
LEFT = (0, 1)  # whose sum the coordinator wants
# who is told that who is missing: each of 2 to 6 by four others, nobody by itself
STORIES = {0: (2, 3, 4), 1: (2, 5, 6), 2: (3, 4, 5), 3: (2, 5, 6), 4: (3, 5, 6), 5: (2, 4, 6), 6: (3, 4)}


def sent(fewest: int) -> tuple[SumNetwork, Mapping[int, Words]]:
    network = SumNetwork(PARTIES, colluders=COLLUDERS, minimum_survivors=fewest).open()
    vectors = vectors_of(PARTIES, length=4)
    for index in HONEST:
        network.send(index, vectors[index])
    return network, vectors


def told(network: SumNetwork, stories: Mapping[int, tuple[int, ...]]) -> tuple[list[bytes | None], ...]:
    """Tell each honest party its story; return by owner the self seed and the wrap key that come of it."""
    self_shares: list[dict[int, bytes]] = [{} for _ in range(PARTIES)]
    wrap_shares: list[dict[int, bytes]] = [{} for _ in range(PARTIES)]
    for index in HONEST:
        survivors = [node(peer) for peer in range(PARTIES) if peer not in stories[index]]
        answer = network.parties[index].reveal(step=0, survivors=survivors)
        for owner in range(PARTIES):
            shares = wrap_shares if owner in stories[index] else self_shares
            shares[owner][index + 1] = answer[node(owner)]
    for index in HELPERS:
        for owner in range(PARTIES):
            both = bytes(network.parties[index]._held[node(owner)][:STEP_SHARES_BYTES])
            self_shares[owner][index + 1], wrap_shares[owner][index + 1] = (
                both[:SHARE_BYTES],
                both[SHARE_BYTES:],
            )
    threshold = network.parameters.threshold
    return tuple([opened(each, threshold) for each in shares] for shares in (self_shares, wrap_shares))


def opened(shares: dict[int, bytes], threshold: int) -> bytes | None:
    return recover(dict(list(shares.items())[:threshold])) if len(shares) >= threshold else None


def test_where_three_may_be_missing_stories_open_the_sum_of_two() -> None:
    """The limit that the threat model states: 10 hospitals, of which 3 work with the coordinator."""
    network, vectors = sent(fewest=7)
    self_seeds, wrap_keys = told(network, STORIES)
    total = network.sent[0, 0] + network.sent[1, 0]
    for target in LEFT:
        seed = self_seeds[target]
        assert seed is not None
        subtract_mask(total, seed=seed, context=CONTEXT)
        for other in range(2, PARTIES):
            if other in HELPERS:
                pair = network.parties[other]._pair_seeds[0][node(target)]
            else:
                pair = pair_seeds(network, other, wrap_keys[other])[target]
            apply = add_mask if other < target else subtract_mask
            apply(total, seed=pair, context=CONTEXT)
    np.testing.assert_array_equal(total, plain_sum(vectors, LEFT))


def pair_seeds(network: SumNetwork, owner: int, wrap_key: bytes | None) -> dict[int, bytes]:
    """Return the pair seeds in a party's wrap, by peer."""
    assert wrap_key is not None
    seeds = unwrap(
        network.deposits[owner].wraps,
        wrap_key=wrap_key,
        digest=network.parameters.digest(),
        node=node(owner),
        step=0,
        peers=PARTIES - 1,
    )
    assert seeds is not None
    return dict(zip((peer for peer in range(PARTIES) if peer != owner), seeds, strict=True))


def test_where_one_may_be_missing_no_two_are_taken_out() -> None:
    network, _ = sent(fewest=PARTIES - 1)
    with pytest.raises(TooFewSurvivors):
        told(network, STORIES)
    network, _ = sent(fewest=PARTIES - 1)
    _, wrap_keys = told(network, {0: (2,), 1: (2,), 2: (3,), 3: (2,), 4: (2,), 5: (3,), 6: (3,)})
    assert [wrap_keys[owner] is not None for owner in HONEST] == [owner == 2 for owner in HONEST]
