"""What a coordinator that tells each hospital of other dropouts could open, and why it cannot.

No hospital is opened by itself (test_secure_sum_attacks). But where hospitals accept that two or more are
missing, and colluders help, stories that differ would open a sum over fewer than any of them was told. So
they compare what they were told before they open anything.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import pytest

from privacy.errors import Disagreement, OutOfOrder, ProtocolViolation, StepReused, TooFewSurvivors
from privacy.masks import add_mask, subtract_mask
from privacy.rng import Words
from privacy.secure_sum import STEP_SHARES_BYTES, SessionParameters
from privacy.shamir import SHARE_BYTES, recover
from privacy.sum_channel import sign_survivors, unwrap
from protocols.ids import NodeId
from tests.privacy.sum_network import CONTEXT, SumNetwork, agreed, identity, node, plain_sum, vectors_of

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


def told(
    network: SumNetwork,
    stories: Mapping[int, tuple[int, ...]],
    *,
    agreements: Callable[[list[NodeId]], Mapping[NodeId, bytes]] = lambda _: {},
) -> tuple[list[bytes | None], ...]:
    """Tell each honest party its story; return by owner the self seed and the wrap key that come of it."""
    self_shares: list[dict[int, bytes]] = [{} for _ in range(PARTIES)]
    wrap_shares: list[dict[int, bytes]] = [{} for _ in range(PARTIES)]
    for index in HONEST:
        survivors = [node(peer) for peer in range(PARTIES) if peer not in stories[index]]
        answer = network.parties[index].reveal(step=0, survivors=survivors, agreements=agreements(survivors))
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


def signed_by(network: SumNetwork, survivors: list[NodeId], *, by: Iterable[int]) -> dict[NodeId, bytes]:
    """Return what these parties would sign who sign anything they are asked to."""
    digest = network.parameters.digest()
    return {
        node(index): sign_survivors(survivors, digest=digest, step=0, me=node(index), key=identity(index))
        for index in by
        if node(index) in survivors
    }


def test_stories_that_nobody_compares_would_open_the_sum_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the agreement is for: without it 10 hospitals, 3 with the coordinator, show the sum of two."""
    monkeypatch.setattr(SessionParameters, "must_agree", lambda *_: False)
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


def test_stories_that_differ_open_nothing_though_the_colluders_sign_all_of_them() -> None:
    network, _ = sent(fewest=7)
    for index in HONEST:
        survivors = [node(peer) for peer in range(PARTIES) if peer not in STORIES[index]]
        agreements = signed_by(network, survivors, by=HELPERS)
        agreements |= {node(index): network.parties[index].agree(step=0, survivors=survivors)}
        with pytest.raises(Disagreement):
            network.parties[index].reveal(step=0, survivors=survivors, agreements=agreements)


def test_no_two_stories_get_enough_signatures() -> None:
    """However the honest are divided between two stories, colluders signing both."""
    everybody = [node(index) for index in range(PARTIES)]
    stories = [
        [each for each in everybody if each not in missing] for missing in (everybody[:2], everybody[2:4])
    ]
    for first in range(len(HONEST) + 1):
        network, _ = sent(fewest=7)
        signed = [signed_by(network, story, by=HELPERS) for story in stories]
        for index in HONEST:
            which = 0 if index < first else 1
            if node(index) in stories[which]:
                signed[which][node(index)] = network.parties[index].agree(step=0, survivors=stories[which])
        opened_for = 0
        for story, statements in zip(stories, signed, strict=True):
            try:
                teller = next(index for index in HONEST if node(index) in statements)
                network.parties[teller].reveal(step=0, survivors=story, agreements=statements)
                opened_for += 1
            except (Disagreement, StopIteration):
                pass
        assert opened_for <= 1


def test_who_signed_opens_nothing_for_others_and_who_opened_signs_nothing() -> None:
    network, _ = sent(fewest=7)
    everybody = [node(index) for index in range(PARTIES)]
    party = network.parties[0]
    party.agree(step=0, survivors=everybody[:8])
    with pytest.raises(StepReused):
        party.agree(step=0, survivors=everybody[:8])
    with pytest.raises(ProtocolViolation):
        party.reveal(step=0, survivors=everybody)
    others = everybody[:7] + everybody[8:9]
    with pytest.raises(ProtocolViolation):
        party.reveal(step=0, survivors=others, agreements=signed_by(network, others, by=range(PARTIES)))
    network.parties[1].reveal(step=0, survivors=everybody)
    with pytest.raises(StepReused):
        network.parties[1].agree(step=0, survivors=everybody[:8])
    with pytest.raises(ProtocolViolation):
        network.parties[2].agree(step=0, survivors=everybody[:9])  # one missing: there is nothing to sign
    with pytest.raises(TooFewSurvivors):
        network.parties[2].agree(step=0, survivors=everybody[:6])
    idle = SumNetwork(PARTIES, colluders=COLLUDERS, minimum_survivors=7).open()
    with pytest.raises(OutOfOrder):
        idle.parties[0].agree(step=0, survivors=everybody[:8])


@pytest.mark.parametrize("wrong", ["step", "session", "signer", "survivors", "garbage"])
def test_a_signature_for_anything_else_does_not_count(wrong: str) -> None:
    network, vectors = sent(fewest=7)
    for index in (7,):
        network.send(index, vectors[index])
    left = network.collector.close(0)
    statements = agreed({each: network.parties[int.from_bytes(each.raw, "big")] for each in left}, step=0)
    assert len(statements) == 8 > network.parameters.threshold - 1
    digest = network.parameters.digest()
    for spoiled in list(left)[: 9 - network.parameters.threshold]:  # one less than are needed stay good
        index = int.from_bytes(spoiled.raw, "big")
        match wrong:
            case "step":
                bad = sign_survivors(left, digest=digest, step=1, me=spoiled, key=identity(index))
            case "session":
                bad = sign_survivors(left, digest=bytes(32), step=0, me=spoiled, key=identity(index))
            case "signer":
                bad = sign_survivors(left, digest=digest, step=0, me=spoiled, key=identity(99))
            case "survivors":
                bad = sign_survivors(left[1:], digest=digest, step=0, me=spoiled, key=identity(index))
            case _:
                bad = b"not an envelope"
        statements[spoiled] = bad
    with pytest.raises(Disagreement):
        network.parties[7].reveal(step=0, survivors=left, agreements=statements)


def test_survivors_who_were_told_the_same_open_their_sum() -> None:
    network, vectors = sent(fewest=7)
    network.send(7, vectors[7])
    for index in range(8):
        network.reveal(index)
    assert len(network.agreements[0]) == 8
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, range(8)))
