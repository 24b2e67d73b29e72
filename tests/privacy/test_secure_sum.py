"""What a secure sum gives to those who keep to the protocol, and what its parts refuse."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy.errors import (
    BadAdvert,
    BadParameters,
    BadShares,
    OutOfOrder,
    ProtocolViolation,
    StepReused,
    TooFewReveals,
    TooFewSurvivors,
    UnopenedMask,
)
from privacy.rng import SecureBits, Words
from privacy.secure_sum import SealedShares, SessionParameters, sealed_bytes, threshold_for
from privacy.sum_party import SumParty
from protocols.ids import NodeId, SessionId
from protocols.refusal import RefusalCode
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

WORD = np.ones(1, dtype=np.uint64)


# ---- the total ----


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_the_total_is_the_sum_of_those_who_sent(data: st.DataObject) -> None:
    parties = data.draw(st.integers(2, 7))
    colluders = data.draw(st.integers(0, parties - 1))
    threshold = threshold_for(parties, colluders=colluders)
    seed = data.draw(st.integers(0, 2**32))
    vectors = vectors_of(parties, length=data.draw(st.integers(1, 40)), seed=seed)
    order = data.draw(st.permutations(range(parties)))
    silent = order[: data.draw(st.integers(0, parties - threshold))]
    network = SumNetwork(parties, colluders=colluders).open()
    for index in silent:
        network.die(index)
    stay = set(range(parties)) - set(silent)
    np.testing.assert_array_equal(network.run(vectors), plain_sum(vectors, stay))


@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_parties_drop_out_one_after_the_other_over_many_steps(data: st.DataObject) -> None:
    parties, steps = 6, 4
    network = SumNetwork(parties, steps=steps, colluders=0).open()
    may_drop = parties - network.parameters.threshold
    for step in data.draw(st.permutations(range(steps))):
        if may_drop and data.draw(st.booleans()):
            network.die(data.draw(st.sampled_from(sorted(network.alive))))
            may_drop -= 1
        vectors = vectors_of(parties, length=5, seed=step)
        np.testing.assert_array_equal(network.run(vectors, step=step), plain_sum(vectors, network.alive))


def test_a_total_longer_than_a_piece_of_the_stream_is_exact() -> None:
    vectors = vectors_of(3, length=70_001)
    np.testing.assert_array_equal(SumNetwork(3).open().run(vectors), plain_sum(vectors, range(3)))


def test_a_party_that_never_delivered_its_shares_is_in_no_mask() -> None:
    network = SumNetwork(5)
    network.advertise()
    network.die(2)  # its key is known, its shares never come
    network.share()
    network.deliver()
    vectors = vectors_of(5, length=3)
    np.testing.assert_array_equal(network.run(vectors), plain_sum(vectors, {0, 1, 3, 4}))


def test_a_party_that_never_advertised_is_in_no_mask() -> None:
    network = SumNetwork(5)
    network.die(4)
    network.open()
    vectors = vectors_of(5, length=3)
    np.testing.assert_array_equal(network.run(vectors), plain_sum(vectors, range(4)))


def test_a_prepared_mask_is_the_mask() -> None:
    vectors = vectors_of(3, length=100)
    one, other = SumNetwork(3, seed=5).open(), SumNetwork(3, seed=5).open()
    one.parties[0].prepare(step=0, context=CONTEXT, length=100)
    np.testing.assert_array_equal(one.send(0, vectors[0]), other.send(0, vectors[0]))


@pytest.mark.parametrize(("context", "length"), [(OTHER_CONTEXT, 100), (CONTEXT, 99)])
def test_a_mask_prepared_for_something_else_is_not_used(context: bytes, length: int) -> None:
    vectors = vectors_of(3, length=100)
    network = SumNetwork(3).open()
    for party in network.parties:
        party.prepare(step=0, context=context, length=length)
    np.testing.assert_array_equal(network.run(vectors), plain_sum(vectors, range(3)))


def test_the_vector_that_was_given_stays_as_it_was() -> None:
    network = SumNetwork(3).open()
    vector = np.arange(10, dtype=np.uint64)
    network.parties[0].prepare(step=0, context=CONTEXT, length=10)
    network.send(0, vector)
    np.testing.assert_array_equal(vector, np.arange(10, dtype=np.uint64))


def test_everything_that_crosses_the_wire_is_bytes() -> None:
    network = SumNetwork(3).open()
    masked = network.send(0, WORD)
    network.send(1, WORD)
    network.send(2, WORD)
    network.reveal(0)
    assert all(type(advert) is bytes for advert in network.collector.adverts().values())
    for deposit in network.deposits.values():
        assert type(deposit.wraps) is bytes
        assert {type(sealed) for sealed in deposit.sealed.values()} == {bytes}
    assert type(masked.astype("<u8").tobytes()) is bytes
    assert {type(share) for share in network.revealed[0, 0].values()} == {bytes}


def test_secrets_hide_in_what_is_printed() -> None:
    network = SumNetwork(3, seed=3).open()
    deposit = network.deposits[0]
    assert repr(network.parties[0]).startswith("SumParty(<hidden>")
    assert repr(deposit) == "SealedShares(<hidden>, peers=2)"


# ---- terms ----


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", 2),  # 4 parties: half of them could open, and so could the other half
        ("threshold", 5),
        ("threshold", 3.0),
        ("threshold", True),
        ("steps", 0),
        ("steps", 2**16 + 1),
        ("round", -1),
        ("round", 2**32),
        ("purpose", ""),
        ("purpose", "x" * 201),
        ("purpose", b"questions"),
        ("session_id", node(1)),
        ("participants", (node(0),)),
        ("participants", (node(1), node(0), node(2), node(3))),
        ("participants", (node(0), node(0), node(1), node(2))),
        ("participants", [node(0), node(1), node(2), node(3)]),
        ("participants", ("n-0", "n-1", "n-2", "n-3")),
    ],
)
def test_terms_that_cannot_be_are_refused(field: str, value: object) -> None:
    with pytest.raises(BadParameters):
        dataclasses.replace(session_of(4, steps=1, colluders=1), **{field: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("parties", range(2, 40))
def test_the_threshold_keeps_two_disjoint_groups_from_opening_both_secrets(parties: int) -> None:
    """All ways to split the honest parties, colluders joining both; one less would let some split through."""
    for colluders in range(parties):
        threshold = threshold_for(parties, colluders=colluders)
        honest = parties - colluders
        assert threshold <= parties
        both = [min(told, honest - told) + colluders for told in range(honest + 1)]
        assert max(both) < threshold
        assert max(both) >= threshold - 1
        assert (parties - threshold >= colluders) or parties < 3 * colluders + 1  # what it costs in dropouts


@pytest.mark.parametrize(("parties", "colluders"), [(1, 0), (4, 4), (4, -1)])
def test_a_threshold_for_nobody_is_refused(parties: int, colluders: int) -> None:
    with pytest.raises(BadParameters):
        threshold_for(parties, colluders=colluders)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("session_id", SessionId(bytes(16))),
        ("threshold", 4),
        ("steps", 2),
        ("purpose", "training:00"),
        ("round", 1),
        ("participants", (node(0), node(1), node(2), node(9))),
    ],
)
def test_every_term_is_in_the_digest(field: str, value: object) -> None:
    terms = session_of(4, steps=1, colluders=1)
    assert dataclasses.replace(terms, **{field: value}).digest() != terms.digest()  # type: ignore[arg-type]


def party_of(
    terms: SessionParameters, *, me: NodeId, peers: range = range(3), minimum_survivors: int = 1
) -> SumParty:
    return SumParty(
        terms,
        me=me,
        signing_key=identity(0),
        peer_keys={node(index): identity(index).public_key() for index in peers},
        bits=SecureBits(),
        minimum_survivors=minimum_survivors,
    )


def test_a_party_outside_the_session_or_without_a_peer_key_cannot_be() -> None:
    terms = session_of(3, steps=1, colluders=0)
    with pytest.raises(BadParameters, match="no participant"):
        party_of(terms, me=node(5))
    with pytest.raises(BadParameters, match="identity key"):
        party_of(terms, me=node(0), peers=range(2))
    for minimum in (0, 4):
        with pytest.raises(BadParameters, match="minimum_survivors"):
            party_of(terms, me=node(0), minimum_survivors=minimum)


@pytest.mark.parametrize("sealed", [{}, {node(1): "text"}, {"n-1": b""}, {node(1): b"12", node(2): b"1"}])
def test_sealed_shares_of_another_form_cannot_be(sealed: dict[NodeId, bytes]) -> None:
    with pytest.raises(BadParameters):
        SealedShares(sealed=sealed, wraps=b"")


# ---- the order of things at a party ----


def test_messages_before_their_turn_are_refused() -> None:
    network = SumNetwork(3)
    party = network.parties[0]
    for too_early in (
        lambda: party.shares({}),
        lambda: party.deliver({}),
        lambda: party.masked(WORD, step=0, context=CONTEXT),
        lambda: party.prepare(step=0, context=CONTEXT, length=1),
        lambda: party.reveal(step=0, survivors=network.parameters.participants),
    ):
        with pytest.raises(OutOfOrder):
            too_early()
    network.open()
    np.testing.assert_array_equal(
        network.run(dict.fromkeys(range(3), WORD)), np.full(1, 3, dtype=np.uint64)
    )  # refusals changed nothing


def test_a_session_is_set_up_once() -> None:
    network = SumNetwork(3).open()
    party = network.parties[0]
    assert party.advert() == network.collector.adverts()[node(0)]
    with pytest.raises(OutOfOrder):
        party.shares(network.collector.adverts())
    with pytest.raises(OutOfOrder):
        party.deliver(network.collector.outgoing(node(0)))


@pytest.mark.parametrize("step", [-1, 2, 2**32, True, "0"])
def test_a_step_out_of_range_is_refused(step: int) -> None:
    network = SumNetwork(3, steps=2).open()
    party = network.parties[0]
    with pytest.raises(ProtocolViolation):
        party.masked(WORD, step=step, context=CONTEXT)
    with pytest.raises(ProtocolViolation):
        party.reveal(step=step, survivors=network.parameters.participants)
    with pytest.raises(ProtocolViolation):
        network.collector.input(node(0), WORD, step=step, context=CONTEXT)


@pytest.mark.parametrize("context", [b"", bytes(31), bytes(33), bytearray(32), "x" * 32])
def test_a_context_that_is_not_32_bytes_is_refused(context: bytes) -> None:
    with pytest.raises(BadParameters):
        SumNetwork(3).open().parties[0].masked(WORD, step=0, context=context)


@pytest.mark.parametrize(
    "vector",
    [
        np.ones(3, dtype=np.int64),
        np.ones(3),
        np.ones((2, 2), dtype=np.uint64),
        np.ones(0, dtype=np.uint64),
        np.ones(3, dtype=">u8"),
        [1, 2, 3],
    ],
)
def test_what_is_no_vector_of_words_is_refused_and_uses_nothing_up(vector: Words) -> None:
    network = SumNetwork(3).open()
    with pytest.raises(BadParameters):
        network.send(0, vector)
    vectors = vectors_of(3, length=2)
    np.testing.assert_array_equal(network.run(vectors), plain_sum(vectors, range(3)))


# ---- the collector among careless parties ----


def test_late_and_repeated_messages_change_nothing() -> None:
    network = SumNetwork(4, seed=1, colluders=0).open()
    collector = network.collector
    again = SumNetwork(4, seed=2, colluders=0)
    collector.advert(node(0), again.parties[0].advert())  # another key, after all were handed on
    assert collector.adverts()[node(0)] == network.parties[0].advert()
    collector.shares(node(0), network.deposits[1])
    vectors = vectors_of(4, length=3)
    for index in range(3):
        masked = network.send(index, vectors[index])
        assert not collector.input(node(index), masked, step=0, context=CONTEXT)
    survivors = collector.close(0)
    late = network.parties[3].masked(vectors[3], step=0, context=CONTEXT)
    assert not collector.input(node(3), late, step=0, context=CONTEXT)
    assert collector.close(0) == survivors == (node(0), node(1), node(2))
    for index in range(3):
        network.reveal(index)
        collector.reveal(node(index), network.revealed[index, 0], step=0)
    np.testing.assert_array_equal(collector.total(0), plain_sum(vectors, range(3)))
    collector.reveal(node(0), network.revealed[0, 0], step=0)
    with pytest.raises(StepReused):
        collector.total(0)


def test_a_vector_of_another_length_or_context_is_a_dropout() -> None:
    network = SumNetwork(5, colluders=0).open()
    vectors = vectors_of(5, length=4)
    network.send(0, vectors[0][:3])
    network.send(1, vectors[1], context=OTHER_CONTEXT)
    for index in (2, 3, 4):
        network.send(index, vectors[index])
    assert network.collector.close(0) == (node(2), node(3), node(4))
    for index in (2, 3, 4):
        network.reveal(index)
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, (2, 3, 4)))
    for index in (0, 1):
        with pytest.raises(ProtocolViolation, match="no survivor"):
            network.reveal(index)


def test_the_collector_says_for_whom_it_waits() -> None:
    network = SumNetwork(4, colluders=0)
    collector, everybody = network.collector, set(network.parameters.participants)
    assert collector.missing_adverts() == everybody
    network.advertise()
    assert collector.missing_adverts() == set()
    assert collector.missing_shares() == everybody
    network.share()
    assert collector.missing_shares() == set()
    network.deliver()
    assert collector.missing_inputs(0) == everybody
    network.send(0, WORD)
    network.die(3)
    assert collector.missing_inputs(0) == {node(1), node(2)}
    network.send(1, WORD)
    network.send(2, WORD)
    assert collector.missing_inputs(0) == set()
    collector.close(0)
    assert collector.missing_reveals(0) == {node(0), node(1), node(2)}
    assert not collector.enough_reveals(0)
    for index in range(3):
        network.reveal(index)
    assert collector.missing_reveals(0) == set()
    assert collector.enough_reveals(0)


def test_too_few_reveals_give_no_total_until_more_come() -> None:
    network = SumNetwork(4, colluders=1).open()
    vectors = vectors_of(4, length=2)
    for index in range(4):
        network.send(index, vectors[index])
    network.collector.close(0)
    network.reveal(0)
    network.reveal(1)
    with pytest.raises(TooFewReveals) as few:
        network.collector.total(0)
    assert (few.value.got, few.value.threshold) == (2, 3)
    assert few.value.code is RefusalCode.TOO_MANY_DROPOUTS
    network.reveal(2)
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, range(4)))


@pytest.mark.parametrize("dropout", [None, 4])
@pytest.mark.parametrize("liar", range(4))
def test_one_liar_among_more_reveals_than_the_threshold_does_no_harm(liar: int, dropout: int | None) -> None:
    network = SumNetwork(5, colluders=0).open()
    vectors = vectors_of(5, length=2)
    stay = [index for index in range(5) if index != dropout]
    for index in stay:
        network.send(index, vectors[index])
    survivors = network.collector.close(0)
    for index in stay:
        shares = network.parties[index].reveal(step=0, survivors=survivors)
        if index == liar:
            shares = {peer: share[:-1] + bytes([share[-1] ^ 1]) for peer, share in shares.items()}
        network.collector.reveal(node(index), shares, step=0)
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, stay))


def test_shares_that_do_not_fit_are_a_fault_that_one_more_reveal_may_mend() -> None:
    network = SumNetwork(4, colluders=0).open()
    vectors = vectors_of(4, length=2)
    for index in range(4):
        network.send(index, vectors[index])
    survivors = network.collector.close(0)
    network.reveal(0)
    network.reveal(1)
    shares = network.parties[2].reveal(step=0, survivors=survivors)
    network.collector.reveal(node(2), dict.fromkeys(shares, bytes(33)), step=0)
    with pytest.raises(UnopenedMask):
        network.collector.total(0)
    network.reveal(3)
    np.testing.assert_array_equal(network.collector.total(0), plain_sum(vectors, range(4)))


def test_the_collector_refuses_what_has_another_form() -> None:
    network = SumNetwork(3, seed=1)
    collector, stranger = network.collector, node(9)
    with pytest.raises(ProtocolViolation):
        collector.advert(stranger, b"")
    with pytest.raises(ProtocolViolation):
        collector.advert(node(0), b"not an envelope")
    with pytest.raises(BadAdvert):
        collector.advert(node(0), network.parties[1].advert())
    with pytest.raises(OutOfOrder):
        collector.shares(node(0), SealedShares(sealed={node(1): b"1"}, wraps=b""))
    with pytest.raises(OutOfOrder):
        collector.outgoing(node(0))
    with pytest.raises(OutOfOrder):
        collector.input(node(0), WORD, step=0, context=CONTEXT)
    network.advertise()
    good = network.parties[0].shares(collector.adverts())
    size = sealed_bytes(1)
    for bad in (
        SealedShares(sealed={node(1): bytes(size)}, wraps=good.wraps),
        SealedShares(sealed=dict.fromkeys((node(1), node(2)), b"short"), wraps=good.wraps),
        SealedShares(sealed=good.sealed, wraps=good.wraps[:-1]),
    ):
        with pytest.raises(BadShares):
            collector.shares(node(0), bad)
    collector.shares(node(0), good)
    for index in (1, 2):
        collector.shares(node(index), network.parties[index].shares(collector.adverts()))
    network.deliver()
    with pytest.raises(ProtocolViolation):
        collector.input(node(0), np.ones(1), step=0, context=CONTEXT)  # type: ignore[arg-type] # the claim
    with pytest.raises(ProtocolViolation):
        collector.input(node(0), WORD, step=0, context=b"short")
    with pytest.raises(OutOfOrder):
        collector.reveal(node(0), {}, step=0)
    with pytest.raises(OutOfOrder):
        collector.total(0)
    assert collector.close(0) == ()
    with pytest.raises(BadShares):
        collector.reveal(node(0), {}, step=0)


def test_too_few_to_start_with_is_refused_by_each_party() -> None:
    network = SumNetwork(4, colluders=1)
    network.advertise()
    adverts = network.collector.adverts()
    two = {peer: adverts[peer] for peer in (node(0), node(1))}
    with pytest.raises(TooFewSurvivors) as few:
        network.parties[0].shares(two)
    assert (few.value.got, few.value.fewest) == (2, 3)
    network.share()
    outgoing = network.collector.outgoing(node(0))
    with pytest.raises(TooFewSurvivors):
        network.parties[0].deliver({node(1): outgoing[node(1)]})
