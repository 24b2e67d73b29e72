"""A coordinator that lies, alone or with parties that help it, and what it gets.

Each attack is carried out as far as it goes. Where it fails because a bound holds, a control beyond the bound
shows that the attack itself is right.
"""

from collections.abc import Collection, Mapping
from itertools import combinations
from threading import Barrier, Thread

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scipy import stats

from privacy.errors import (
    BadAdvert,
    BadParameters,
    BadShares,
    OutOfOrder,
    ProtocolViolation,
    SecureSumError,
    StepReused,
    TooFewSurvivors,
)
from privacy.masks import add_mask, subtract_mask
from privacy.rng import Words
from privacy.secure_sum import STEP_SHARES_BYTES, SessionParameters, threshold_for
from privacy.shamir import SHARE_BYTES, recover
from privacy.sum_channel import self_check, sign_advert, unwrap
from protocols.envelope import SignedEnvelope
from protocols.ids import NodeId
from tests.privacy.sum_network import (
    CONTEXT,
    OTHER_CONTEXT,
    SumNetwork,
    identity,
    node,
    plain_sum,
    session_of,
    vectors_of,
)

Shares = dict[int, bytes]  # by point


def looks_uniform(words: Words) -> bool:
    """Chi-square over all bytes."""
    return bool(stats.chisquare(np.bincount(words.view(np.uint8), minlength=256)).pvalue > 1e-6)


# ---- what an attacker can compute ----


def open_self_seed(network: SumNetwork, target: int, step: int, shares: Shares) -> bytes | None:
    """Return the target's self seed if some of `shares` give it, checked as the collector checks it."""
    wraps = network.deposits[target].wraps
    size = len(wraps) // network.parameters.steps
    for points in combinations(sorted(shares), network.parameters.threshold):
        seed = recover({point: shares[point] for point in points})
        if seed is not None and self_check(seed) == wraps[step * size : step * size + 32]:
            return seed
    return None


def open_pair_seeds(
    network: SumNetwork, target: int, step: int, shares: Shares
) -> Mapping[NodeId, bytes] | None:
    """Return the target's pair seeds of a step if some of `shares` give its wrap key."""
    for points in combinations(sorted(shares), network.parameters.threshold):
        key = recover({point: shares[point] for point in points})
        seeds = None if key is None else unwrap_with(network, target, step, key)
        if seeds is not None:
            return seeds
    return None


def unwrap_with(network: SumNetwork, target: int, step: int, key: bytes) -> Mapping[NodeId, bytes] | None:
    nodes = network.parameters.participants
    seeds = unwrap(
        network.deposits[target].wraps,
        wrap_key=key,
        digest=network.parameters.digest(),
        node=node(target),
        step=step,
        peers=len(nodes) - 1,
    )
    others = [peer for peer in nodes if peer != node(target)]
    return None if seeds is None else dict(zip(others, seeds, strict=True))


def unmask(masked: Words, *, target: int, self_seed: bytes, pair_seeds: Mapping[NodeId, bytes]) -> Words:
    """Take the masks off one party's vector."""
    plain = masked.copy()
    subtract_mask(plain, seed=self_seed, context=CONTEXT)
    for peer, seed in pair_seeds.items():
        apply = subtract_mask if node(target) < peer else add_mask
        apply(plain, seed=seed, context=CONTEXT)
    return plain


def kept_shares(network: SumNetwork, party: int, target: int, step: int) -> tuple[bytes, bytes]:
    """Return both shares that a party which helps the attacker holds of the target."""
    start = step * STEP_SHARES_BYTES
    both = bytes(network.parties[party]._held[node(target)][start : start + STEP_SHARES_BYTES])
    return both[:SHARE_BYTES], both[SHARE_BYTES:]


# ---- keys ----


def test_a_swapped_public_key_is_refused() -> None:
    network = SumNetwork(3)
    network.advertise()
    adverts = network.collector.adverts()
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    digest = network.parameters.digest()
    own = sign_advert(public, digest=digest, me=node(1), key=identity(99))  # the coordinator's own signature
    honest = SignedEnvelope.from_bytes(adverts[node(1)])
    pasted = SignedEnvelope(honest.purpose, honest.signer, digest + public, honest.signature).to_bytes()
    for forged in (own, pasted):
        with pytest.raises(BadAdvert) as refused:
            network.parties[0].shares(adverts | {node(1): forged})
        assert refused.value.node == node(1)
    network.parties[0].shares(adverts)


def test_an_advert_of_another_session_is_refused() -> None:
    earlier, network = SumNetwork(3, session=1), SumNetwork(3, session=2)
    network.advertise()
    adverts = network.collector.adverts() | {node(1): earlier.parties[1].advert()}
    with pytest.raises(BadAdvert, match="another session"):
        network.parties[0].shares(adverts)
    with pytest.raises(BadAdvert, match="another session"):
        earlier.collector.advert(node(0), network.parties[0].advert())


def test_the_advert_of_one_party_does_not_stand_for_another() -> None:
    network = SumNetwork(3)
    network.advertise()
    adverts = network.collector.adverts()
    with pytest.raises(BadAdvert):
        network.parties[0].shares(adverts | {node(1): adverts[node(2)]})
    with pytest.raises(BadAdvert):
        network.parties[0].shares(adverts | {node(0): adverts[node(2)]})


def test_a_party_that_nobody_knows_is_refused() -> None:
    network = SumNetwork(3)
    network.advertise()
    adverts = network.collector.adverts()
    with pytest.raises(ProtocolViolation):
        network.parties[0].shares(adverts | {node(9): adverts[node(2)]})


def test_a_key_that_gives_no_secret_is_refused() -> None:
    """The point of order one: the agreed secret would be zero, known to all."""
    network = SumNetwork(3)
    network.advertise()
    weak = sign_advert(bytes(32), digest=network.parameters.digest(), me=node(1), key=identity(1))
    with pytest.raises(BadAdvert, match="usable"):
        network.parties[0].shares(network.collector.adverts() | {node(1): weak})


# ---- shares ----


def test_shares_passed_to_another_peer_do_not_open() -> None:
    network = SumNetwork(4, colluders=0)
    network.advertise()
    network.share()
    outgoing = network.collector.outgoing(node(0))
    for misplaced in (
        network.deposits[1].sealed[node(2)],  # sealed to somebody else
        network.deposits[2].sealed[node(0)],  # sealed by somebody else
        network.deposits[0].sealed[node(1)],  # my own, sent back
        bytes([outgoing[node(1)][0] ^ 1]) + outgoing[node(1)][1:],
    ):
        with pytest.raises(BadShares) as refused:
            network.parties[0].deliver(outgoing | {node(1): misplaced})
        assert refused.value.node == node(1)
    with pytest.raises(BadShares):
        network.parties[0].deliver(outgoing | {node(1): outgoing[node(1)][:-1]})
    with pytest.raises(ProtocolViolation):
        network.parties[0].deliver(outgoing | {node(0): outgoing[node(1)]})
    network.parties[0].deliver(outgoing)


def test_shares_of_an_earlier_session_do_not_open() -> None:
    earlier, network = SumNetwork(3, session=1).open(), SumNetwork(3, session=2)
    network.advertise()
    network.share()
    replayed = earlier.deposits[1].sealed[node(0)]
    with pytest.raises(BadShares):
        network.parties[0].deliver(network.collector.outgoing(node(0)) | {node(1): replayed})


def test_parties_told_of_different_members_give_noise() -> None:
    """One is told that another never shared: their masks do not cancel, and the total says nothing."""
    network = SumNetwork(5, colluders=0)
    network.advertise()
    network.share()
    for index in range(5):
        outgoing = network.collector.outgoing(node(index))
        if index == 0:
            del outgoing[node(4)]
        network.parties[index].deliver(outgoing)
    vectors = dict.fromkeys(range(5), np.zeros(20_000, dtype=np.uint64))
    for index in range(5):
        network.send(index, vectors[index])
    survivors = network.collector.close(0)
    with pytest.raises(ProtocolViolation):
        network.reveal(0)  # it never heard of one of the survivors
    for index in range(1, 5):
        network.reveal(index, survivors=survivors)
    assert looks_uniform(network.collector.total(0))


# ---- false dropouts ----


def lie_about(
    network: SumNetwork, target: int, *, told_it_survived: Collection[int], colluders: Collection[int]
) -> Words | None:
    """Tell some honest parties that the target survived and the others that it did not; try to unmask it."""
    everybody = network.parameters.participants
    without = tuple(peer for peer in everybody if peer != node(target))
    self_shares: Shares = {}
    wrap_shares: Shares = {}
    for index in range(len(everybody)):
        if index in colluders:
            self_shares[index + 1], wrap_shares[index + 1] = kept_shares(network, index, target, 0)
        elif index in told_it_survived:
            answer = network.parties[index].reveal(step=0, survivors=everybody)
            self_shares[index + 1] = answer[node(target)]
        else:
            answer = network.parties[index].reveal(step=0, survivors=without)
            wrap_shares[index + 1] = answer[node(target)]
    self_seed = open_self_seed(network, target, 0, self_shares)
    pair_seeds = open_pair_seeds(network, target, 0, wrap_shares)
    if self_seed is None or pair_seeds is None:
        return None
    return unmask(network.sent[target, 0], target=target, self_seed=self_seed, pair_seeds=pair_seeds)


def all_lies(parties: int, *, planned: int, colluders: int) -> list[bool]:
    """Try every number of honest parties that are told the truth; return for each if it unmasked the target.

    Args:
        planned: the colluders that the threshold allows for.
        colluders: those that there are.
    """
    target = 0
    helpers = range(parties - colluders, parties)
    honest_others = range(1, parties - colluders)
    won = []
    for told in range(len(honest_others) + 1):
        network = SumNetwork(parties, colluders=planned).open()
        vectors = vectors_of(parties, length=4)
        for index in range(parties):
            network.send(index, vectors[index])
        found = lie_about(
            network, target, told_it_survived={target, *honest_others[:told]}, colluders=helpers
        )
        if found is not None:
            np.testing.assert_array_equal(found, vectors[target])
        won.append(found is not None)
    return won


@pytest.mark.parametrize(
    ("parties", "colluders"), [(3, 0), (4, 0), (4, 1), (5, 1), (6, 2), (7, 2), (7, 3), (8, 1)]
)
def test_a_false_dropout_never_opens_both_secrets(parties: int, colluders: int) -> None:
    assert not any(all_lies(parties, planned=colluders, colluders=colluders))


@pytest.mark.parametrize(("parties", "planned", "colluders"), [(4, 0, 2), (6, 1, 3), (7, 0, 2)])
def test_beyond_the_planned_colluders_a_false_dropout_would_work(
    parties: int, planned: int, colluders: int
) -> None:
    """The control: the same attack, with more helpers than the threshold was made for, finds the vector."""
    assert any(all_lies(parties, planned=planned, colluders=colluders))


def test_a_party_declared_out_does_not_open_anything_itself() -> None:
    network = SumNetwork(4, colluders=1).open()
    for index in range(4):
        network.send(index, vectors_of(4, length=1)[index])
    with pytest.raises(ProtocolViolation, match="no survivor"):
        network.parties[0].reveal(step=0, survivors=[node(1), node(2), node(3)])


@pytest.mark.parametrize(("parties", "threshold"), [(3, 1), (4, 2), (5, 2), (10, 5)])
def test_a_threshold_that_two_halves_can_reach_is_refused(parties: int, threshold: int) -> None:
    terms = session_of(parties, steps=1, colluders=0)
    assert terms.threshold == threshold_for(parties, colluders=0) > threshold
    with pytest.raises(BadParameters, match="threshold"):
        SessionParameters(
            session_id=terms.session_id,
            participants=terms.participants,
            threshold=threshold,
            steps=1,
            purpose="questions",
            round=0,
        )


# ---- steps ----


def test_a_step_masks_one_vector() -> None:
    """Two vectors under one mask would show their difference."""
    network = SumNetwork(3, steps=2).open()
    vectors = vectors_of(3, length=4)
    network.send(0, vectors[0])
    for again in (vectors[1], vectors[0]):
        for context in (CONTEXT, OTHER_CONTEXT):
            with pytest.raises(StepReused) as reused:
                network.parties[0].masked(again, step=0, context=context)
            assert reused.value.step == 0
    with pytest.raises(StepReused):
        network.parties[0].prepare(step=0, context=CONTEXT, length=4)
    network.send(0, vectors[1], step=1)


def test_a_step_masks_one_vector_when_many_ask_at_once() -> None:
    network = SumNetwork(3, steps=20).open()
    made: list[Words] = []
    refused: list[SecureSumError] = []
    start = Barrier(8)

    def ask() -> None:
        start.wait()
        for step in range(20):
            try:
                made.append(
                    network.parties[0].masked(np.zeros(50, dtype=np.uint64), step=step, context=CONTEXT)
                )
            except StepReused as error:
                refused.append(error)

    threads = [Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(made), len(refused)) == (20, 140)


def test_a_step_is_revealed_once() -> None:
    """Two reveals for different survivors would open two secrets of one peer."""
    network = SumNetwork(5, colluders=0).open()
    vectors = vectors_of(5, length=1)
    for index in range(5):
        network.send(index, vectors[index])
    everybody = network.parameters.participants
    network.parties[0].reveal(step=0, survivors=everybody)
    for survivors in (everybody, everybody[:4]):
        with pytest.raises(StepReused):
            network.parties[0].reveal(step=0, survivors=survivors)


def test_a_refused_reveal_does_not_use_the_step_up() -> None:
    network = SumNetwork(4, colluders=0).open()
    vectors = vectors_of(4, length=1)
    for index in range(4):
        network.send(index, vectors[index])
    for survivors in ([], [node(0)], [node(1), node(2), node(3)]):
        with pytest.raises(SecureSumError):
            network.parties[0].reveal(step=0, survivors=survivors)
    for index in range(4):
        network.reveal(index)
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, range(4)))


def test_nothing_is_revealed_for_a_step_that_this_party_did_not_send() -> None:
    network = SumNetwork(3, steps=2).open()
    network.send(0, np.ones(1, dtype=np.uint64))
    with pytest.raises(OutOfOrder):
        network.parties[0].reveal(step=1, survivors=network.parameters.participants)


@pytest.mark.parametrize(("minimum", "survivors"), [(1, 2), (4, 3), (5, 4)])
def test_a_sum_of_too_few_is_not_opened(minimum: int, survivors: int) -> None:
    network = SumNetwork(5, colluders=0, minimum_survivors=minimum).open()
    for index in range(survivors):
        network.send(index, np.ones(1, dtype=np.uint64))
    with pytest.raises(TooFewSurvivors) as few:
        network.reveal(0)
    assert (few.value.got, few.value.fewest) == (survivors, max(3, minimum))


def test_invented_survivors_do_not_count() -> None:
    network = SumNetwork(5, colluders=0).open()
    network.send(0, np.ones(1, dtype=np.uint64))
    for invented in ([node(0), node(8), node(9)], [node(0)] * 3):
        with pytest.raises(ProtocolViolation):
            network.parties[0].reveal(step=0, survivors=invented)


def test_a_share_is_gone_once_its_counterpart_was_revealed() -> None:
    """Even what stands in the memory afterwards does not hold both shares of a peer."""
    network = SumNetwork(4, steps=2, colluders=0).open()
    for index in range(4):
        network.send(index, np.ones(1, dtype=np.uint64))
    network.reveal(0)
    for target in range(4):
        assert kept_shares(network, 0, target, 0) == (bytes(SHARE_BYTES), bytes(SHARE_BYTES))
        assert bytes(SHARE_BYTES) not in kept_shares(network, 0, target, 1)
    assert 0 not in network.parties[0]._self_seeds
    assert 0 not in network.parties[0]._pair_seeds


def test_a_dropout_in_one_step_opens_nothing_of_another() -> None:
    """A party is in the sum of step 0 and drops out of step 1: its step 0 stays closed.

    The attacker holds everything that was revealed: the self seed of step 0 and the pair seeds of step 1.
    """
    target, stay = 3, (0, 1, 2)
    network = SumNetwork(4, steps=2, colluders=1).open()
    wrap_shares_of_0 = {index + 1: kept_shares(network, index, target, 0)[1] for index in stay}
    vectors = vectors_of(4, length=6)
    np.testing.assert_array_equal(network.run(vectors, step=0), plain_sum(vectors, range(4)))
    network.die(target)
    np.testing.assert_array_equal(network.run(vectors, step=1), plain_sum(vectors, stay))

    revealed_0 = {index + 1: network.revealed[index, 0][node(target)] for index in stay}
    revealed_1 = {index + 1: network.revealed[index, 1][node(target)] for index in stay}
    self_seed = open_self_seed(network, target, 0, revealed_0)
    pair_seeds_of_1 = open_pair_seeds(network, target, 1, revealed_1)
    assert self_seed is not None
    assert pair_seeds_of_1 is not None
    wrap_key_of_1 = recover(revealed_1)
    assert wrap_key_of_1 is not None
    assert unwrap_with(network, target, 0, wrap_key_of_1) is None
    guess = unmask(network.sent[target, 0], target=target, self_seed=self_seed, pair_seeds=pair_seeds_of_1)
    assert not np.any(guess == vectors[target])

    # the control: with the wrap key of step 0, which nobody revealed, the same code finds the vector
    pair_seeds_of_0 = open_pair_seeds(network, target, 0, wrap_shares_of_0)
    assert pair_seeds_of_0 is not None
    found = unmask(network.sent[target, 0], target=target, self_seed=self_seed, pair_seeds=pair_seeds_of_0)
    np.testing.assert_array_equal(found, vectors[target])


# ---- what one vector shows ----


def test_one_masked_vector_looks_uniform() -> None:
    """The coordinator's view of a hospital whose counts are all zero; the same test rejects it unmasked."""
    network = SumNetwork(4, colluders=1).open()
    zeros = np.zeros(50_000, dtype=np.uint64)
    assert looks_uniform(network.send(0, zeros))
    assert not looks_uniform(zeros)


def test_a_masked_vector_without_its_self_mask_still_looks_uniform() -> None:
    """After a step is opened the self masks are known, and pair masks alone have to hide the vector."""
    network = SumNetwork(4, colluders=1).open()
    zeros = np.zeros(50_000, dtype=np.uint64)
    for index in range(4):
        network.send(index, zeros)
    network.collector.close(0)
    for index in range(4):
        network.reveal(index)
    shares = {index + 1: network.revealed[index, 0][node(0)] for index in range(4)}
    seed = open_self_seed(network, 0, 0, shares)
    assert seed is not None
    bare = network.sent[0, 0].copy()
    subtract_mask(bare, seed=seed, context=CONTEXT)
    assert looks_uniform(bare)
    assert not looks_uniform(network.collector.total(0))


def test_the_masks_of_two_steps_have_nothing_in_common() -> None:
    network = SumNetwork(3, steps=2).open()
    zeros = np.zeros(20_000, dtype=np.uint64)
    first, second = network.send(0, zeros, step=0), network.send(0, zeros, step=1)
    assert looks_uniform(first - second)
    assert looks_uniform(first ^ second)


def test_parties_told_to_sum_different_things_give_noise() -> None:
    """The coordinator gives one party another question and passes its vector off under the common one."""
    zeros = np.zeros(20_000, dtype=np.uint64)
    totals = []
    for context in (OTHER_CONTEXT, CONTEXT):
        network = SumNetwork(3).open()
        network.send(0, zeros)
        network.send(1, zeros)
        lied = network.parties[2].masked(zeros, step=0, context=context)
        network.collector.input(node(2), lied, step=0, context=CONTEXT)
        network.collector.close(0)
        for index in range(3):
            network.reveal(index)
        totals.append(network.collector.total(0))
    assert looks_uniform(totals[0])
    assert not totals[1].any()  # the control: one context, and the total is the sum
