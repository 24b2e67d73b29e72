"""Attacks on encrypted sums, one a test: by a lying coordinator, alone or with a hospital of the session.

The parties, the key-holder and its memory are the real ones; the test is the coordinator between them.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from privacy import encrypted_sum
from privacy.encrypted_sum import digest
from privacy.encryption import SCHEMES
from privacy.errors import (
    BadParameters,
    BadStatement,
    OutOfOrder,
    ProtocolViolation,
    StepReused,
    TooFewReveals,
    TooFewSurvivors,
)
from protocols.envelope import Purpose
from protocols.ids import NodeId
from tests.privacy.encrypted_network import HOLDER, EncryptedNetwork
from tests.privacy.sum_network import CONTEXT, OTHER_CONTEXT, identity, node, session_of

PARTIES = 5


@pytest.fixture(params=list(SCHEMES))
def network(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EncryptedNetwork]:
    """Five hospitals, one of which may collude; two steps."""
    found = EncryptedNetwork(PARTIES, scheme=request.param, folder=tmp_path, steps=2, colluders=1)
    yield found
    found.close()


def vector(index: int) -> np.ndarray:
    return np.array([100 + index, -index], dtype=np.int64).view(np.uint64)


def shown(network: EncryptedNetwork, *, step: int = 0) -> None:
    """Bring a step to where every ciphertext lies before the coordinator."""
    network.keys(step)
    for index in range(PARTIES):
        network.send(index, vector(index), step=step)
    commitments, fixed = network.fix(step)
    for index in range(PARTIES):
        network.release(index, commitments, fixed, step=step)


def added(network: EncryptedNetwork, *indices: int, step: int = 0) -> bytes:
    """Add some of the ciphertexts, as anybody can."""
    total = network.scheme.form.empty_sum(2)
    for index in indices:
        network.scheme.form.add(total, network.sent[index, step], length=2)
    return network.scheme.form.pack(total)


def opened(
    network: EncryptedNetwork,
    total: bytes,
    survivors: tuple[NodeId, ...],
    endorsements: dict[NodeId, bytes],
    *,
    step: int = 0,
) -> np.ndarray:
    return network.holder.open(
        network.parameters, step=step, survivors=survivors, total=total, endorsements=endorsements
    )


def endorsed(network: EncryptedNetwork, index: int, survivors: list[NodeId], *, step: int = 0) -> bytes:
    """Show one party the ciphertexts of `survivors`, and return what it signs."""
    for other in survivors:
        if other != node(index):
            ciphertext = network.sent[int.from_bytes(other.raw, "big"), step]
            network.parties[index].take(other, ciphertext, step=step)
    return network.parties[index].endorse(step=step, survivors=survivors)


def test_the_honest_run_of_these_tests_opens_the_total(network: EncryptedNetwork) -> None:
    total = network.run({i: vector(i) for i in range(PARTIES)})
    assert total.view(np.int64).tolist() == [510, -10]


def test_one_hospitals_ciphertext_is_not_opened(network: EncryptedNetwork) -> None:
    shown(network)
    everybody = [node(i) for i in range(PARTIES)]
    endorsements = {node(i): endorsed(network, i, everybody) for i in range(PARTIES)}
    for survivors in ((node(2),), tuple(everybody)):
        with pytest.raises(ProtocolViolation):
            opened(network, network.sent[2, 0], survivors, endorsements)
    assert opened(network, added(network, *range(PARTIES)), tuple(everybody), endorsements) is not None


def test_a_partial_sum_is_endorsed_by_nobody_and_not_opened(network: EncryptedNetwork) -> None:
    shown(network)
    few = [node(0), node(1)]
    for index in (0, 1):
        with pytest.raises(TooFewSurvivors):
            endorsed(network, index, few)
    everybody = tuple(node(i) for i in range(PARTIES))
    with pytest.raises(TooFewReveals):
        opened(network, added(network, 0, 1), everybody, {})


def test_a_coordinator_that_says_one_sum_and_asks_for_another_gets_nothing(network: EncryptedNetwork) -> None:
    shown(network)
    everybody = [node(i) for i in range(PARTIES)]
    endorsements = {node(i): endorsed(network, i, everybody) for i in range(PARTIES)}
    for others in ((0, 1, 2, 3), (0, 0, 1, 2, 3, 4), (4,)):
        with pytest.raises(BadStatement):
            opened(network, added(network, *others), tuple(everybody), endorsements)


def test_too_few_endorsements_open_nothing(network: EncryptedNetwork) -> None:
    shown(network)
    everybody = [node(i) for i in range(PARTIES)]
    few = network.parameters.threshold - 1
    endorsements = {node(i): endorsed(network, i, everybody) for i in range(few)}
    total = added(network, *range(PARTIES))
    with pytest.raises(TooFewReveals):
        opened(network, total, tuple(everybody), endorsements)
    forged = Ed25519PrivateKey.generate()
    copied = endorsements | {node(4): endorsements[node(0)]}
    fields = encrypted_sum.endorsement(
        network.collector.form(0), survivors=tuple(everybody), total=digest(total)
    )
    signed = encrypted_sum.sign(fields, purpose=Purpose.SUM_ENDORSEMENT, signer=str(node(4)), key=forged)
    for wrong in (copied, endorsements | {node(4): signed}):
        with pytest.raises(BadStatement):
            opened(network, total, tuple(everybody), wrong)


def test_a_sum_is_opened_once_also_after_a_restart(network: EncryptedNetwork) -> None:
    shown(network)
    everybody = [node(i) for i in range(PARTIES)]
    endorsements = {node(i): endorsed(network, i, everybody) for i in range(PARTIES)}
    total = added(network, *range(PARTIES))
    opened(network, total, tuple(everybody), endorsements)
    with pytest.raises(OutOfOrder):
        opened(network, total, tuple(everybody), endorsements)
    network.holder = network.new_holder()
    with pytest.raises(OutOfOrder):
        opened(network, total, tuple(everybody), endorsements)
    with pytest.raises(StepReused):  # nor is there another key for the step
        network.holder.key(network.parameters, step=0, tolerance=1)
    with pytest.raises(StepReused):
        network.memory.opened(network.parameters.digest(), 0)


def test_endorsements_of_one_step_open_nothing_of_another(network: EncryptedNetwork) -> None:
    for step in (0, 1):
        shown(network, step=step)
    everybody = [node(i) for i in range(PARTIES)]
    first = {node(i): endorsed(network, i, everybody, step=0) for i in range(PARTIES)}
    with pytest.raises(BadStatement):
        opened(network, added(network, *range(PARTIES), step=1), tuple(everybody), first, step=1)
    with pytest.raises(BadStatement):
        opened(network, added(network, *range(PARTIES), step=0), tuple(everybody), first, step=1)


def test_no_second_set_of_survivors_is_endorsed_or_opened(network: EncryptedNetwork) -> None:
    """Two sums that differ by one hospital would give that hospital away."""
    shown(network)
    everybody, without = [node(i) for i in range(PARTIES)], [node(i) for i in range(PARTIES - 1)]
    first = {node(i): endorsed(network, i, everybody) for i in range(4)}
    for index in range(4):
        with pytest.raises((StepReused, OutOfOrder)):
            network.parties[index].endorse(step=0, survivors=without)
    opened(network, added(network, *range(PARTIES)), tuple(everybody), first)
    with pytest.raises(OutOfOrder):
        opened(network, added(network, *range(4)), tuple(without), first)


def test_two_stories_about_survivors_both_miss_the_threshold(network: EncryptedNetwork) -> None:
    shown(network)
    everybody, without = [node(i) for i in range(PARTIES)], [node(i) for i in range(PARTIES - 1)]
    stories = {
        tuple(everybody): {node(i): endorsed(network, i, everybody) for i in (0, 1)},
        tuple(without): {node(i): endorsed(network, i, without) for i in (2, 3)},
    }
    sums = {tuple(everybody): added(network, *range(5)), tuple(without): added(network, *range(4))}
    for survivors, endorsements in stories.items():
        with pytest.raises(TooFewReveals):
            opened(network, sums[survivors], survivors, endorsements)


def test_a_swapped_public_key_is_refused(network: EncryptedNetwork) -> None:
    public, statement = network.holder.key(network.parameters, step=0, tolerance=1)
    mine = network.scheme.new_secret().public_key
    with pytest.raises(BadStatement):
        network.parties[0].take_key(0, mine, statement)
    fields = {
        "key": digest(mine).hex(),
        "scheme": network.scheme.name,
        "session": network.parameters.digest().hex(),
        "step": 0,
    }
    forged = encrypted_sum.sign(
        fields, purpose=Purpose.SUM_KEY, signer=HOLDER, key=Ed25519PrivateKey.generate()
    )
    with pytest.raises(BadStatement):
        network.parties[0].take_key(0, mine, forged)
    with pytest.raises(BadStatement):  # the key of another step
        network.parties[0].take_key(1, public, statement)
    network.parties[0].take_key(0, public, statement)


def test_a_second_key_for_a_step_is_refused_even_if_the_key_holder_signed_it(
    network: EncryptedNetwork,
) -> None:
    from tests.privacy.encrypted_network import HOLDER_KEY

    network.keys()
    other = network.scheme.new_secret().public_key
    fields = {
        "key": digest(other).hex(),
        "scheme": network.scheme.name,
        "session": network.parameters.digest().hex(),
        "step": 0,
    }
    statement = encrypted_sum.sign(fields, purpose=Purpose.SUM_KEY, signer=HOLDER, key=HOLDER_KEY)
    with pytest.raises(StepReused):
        network.parties[0].take_key(0, other, statement)


def test_a_tampered_ciphertext_is_refused_by_every_hospital(network: EncryptedNetwork) -> None:
    shown(network)
    whole = network.sent[1, 0]
    wrong = bytes([whole[0] ^ 1]) + whole[1:]
    for tampered in (wrong, whole[:-5], whole + bytes(5), b"", network.sent[2, 0]):
        with pytest.raises(ProtocolViolation):
            network.parties[0].take(node(1), tampered, step=0)
        network.collector.settle(0)
    network.parties[0].take(node(1), whole, step=0)
    with pytest.raises(ProtocolViolation):
        network.parties[0].take(node(1), whole, step=0)


def test_residues_beyond_their_prime_reach_no_library(network: EncryptedNetwork) -> None:
    form = network.scheme.form
    with pytest.raises(ProtocolViolation):
        form.unpack(b"\xff" * form.ciphertext_bytes(1), length=1)
    with pytest.raises(ProtocolViolation):
        network.scheme.encryptor(b"\xff" * form.key_bytes)
    with pytest.raises(ProtocolViolation):
        network.scheme.encryptor(bytes(form.key_bytes - 1))


def test_a_colluder_cannot_enter_a_multiple_of_a_ciphertext_it_has_seen(network: EncryptedNetwork) -> None:
    """K·Enc(x) is Enc(K·x) to anybody: entered as one's own input it would make the total show x."""
    shown(network, step=0)
    multiple = added(network, *[0] * 1000)
    # in the same step everybody's input was fixed before the first was shown
    with pytest.raises((StepReused, OutOfOrder, ProtocolViolation)):
        network.parties[1].take(node(4), multiple, step=0)
    # in the next step the key is another one: what was encrypted before is noise under it
    network.keys(1)
    for index in range(4):
        network.send(index, vector(index), step=1)
    fields = network.parties[0]._steps[1].form.fields() | {"ciphertext": digest(multiple).hex()}  # type: ignore[union-attr]
    copied = encrypted_sum.sign(fields, purpose=Purpose.SUM_INPUT, signer=str(node(4)), key=identity(4))
    network.collector.commit(node(4), copied, step=1)
    commitments, fixed = network.fix(1)
    assert node(4) in commitments
    for index in range(4):
        network.release(index, commitments, fixed, step=1)
    network.sent[4, 1] = multiple
    network.collector.ciphertext(node(4), multiple, step=1)
    everybody = [node(i) for i in range(PARTIES)]
    endorsements = {node(i): endorsed(network, i, everybody, step=1) for i in range(4)}
    with pytest.raises(ProtocolViolation, match="honest"):
        opened(network, added(network, *range(PARTIES), step=1), tuple(everybody), endorsements, step=1)


def test_a_ciphertext_made_to_leak_the_key_makes_the_step_fail(network: EncryptedNetwork) -> None:
    """(0, K) decrypts to K·s: a colluder that entered it would read the secret key out of the total."""
    network.keys()
    for index in range(4):
        network.send(index, vector(index))
    form = network.scheme.form
    crafted = form.empty_sum(2)
    crafted[0, 1] = 2**30
    hostile = form.pack(crafted)
    fields = network.parties[0]._steps[0].form.fields() | {"ciphertext": digest(hostile).hex()}  # type: ignore[union-attr]
    statement = encrypted_sum.sign(fields, purpose=Purpose.SUM_INPUT, signer=str(node(4)), key=identity(4))
    network.collector.commit(node(4), statement, step=0)
    commitments, fixed = network.fix()
    for index in range(4):
        network.release(index, commitments, fixed)
    network.sent[4, 0] = hostile
    network.collector.ciphertext(node(4), hostile, step=0)
    everybody = [node(i) for i in range(PARTIES)]
    endorsements = {node(i): endorsed(network, i, everybody) for i in range(4)}
    with pytest.raises(ProtocolViolation, match="honest"):
        opened(network, added(network, *range(PARTIES)), tuple(everybody), endorsements)


def test_inputs_that_the_key_holder_has_not_fixed_are_shown_to_nobody(network: EncryptedNetwork) -> None:
    network.keys()
    for index in range(PARTIES):
        network.send(index, vector(index))
    commitments, fixed = network.fix()
    with pytest.raises(StepReused):  # another set for the same step
        network.holder.fix(network.parameters, dict(list(commitments.items())[:4]), step=0)
    fewer = dict(list(commitments.items())[:4])
    for wrong, statement in ((fewer, fixed), (commitments, fixed[:-5] + b'AAA="'), (commitments, b"")):
        with pytest.raises(ProtocolViolation):
            network.parties[0].release(step=0, commitments=wrong, fixed=statement)
    swapped = commitments | {node(1): commitments[node(2)]}
    with pytest.raises(ProtocolViolation):
        network.parties[0].release(step=0, commitments=swapped, fixed=fixed)
    network.release(0, commitments, fixed)
    with pytest.raises(StepReused):
        network.parties[0].release(step=0, commitments=commitments, fixed=fixed)


def test_inputs_of_too_few_are_neither_fixed_nor_shown(network: EncryptedNetwork) -> None:
    network.keys()
    for index in range(PARTIES):
        network.send(index, vector(index))
    network.collector.close(0)
    few = dict(list(network.collector.commitments(0).items())[: network.parameters.threshold - 1])
    with pytest.raises(TooFewSurvivors):
        network.holder.fix(network.parameters, few, step=0)
    with pytest.raises(TooFewSurvivors):
        network.parties[0].release(step=0, commitments=few, fixed=b"")


def test_parties_told_to_sum_different_things_are_not_added(network: EncryptedNetwork) -> None:
    network.keys()
    for index in range(PARTIES):
        network.send(index, vector(index), context=CONTEXT if index else OTHER_CONTEXT)
    statements = {node(i): network.collector._steps[0].commitments[node(i)][2] for i in range(PARTIES)}
    with pytest.raises(BadStatement):
        network.holder.fix(network.parameters, statements, step=0)
    assert network.collector.close(0) == tuple(node(i) for i in range(1, PARTIES))


def test_the_key_holder_makes_no_key_for_strangers_or_too_few(network: EncryptedNetwork) -> None:
    strangers = session_of(PARTIES + 1, steps=1, colluders=1)
    alone = session_of(2, steps=1, colluders=0)
    network.roster = type(network.roster)(
        network.roster.consortium,
        1,
        network.roster.issued_at,
        type(network.roster.settings)("Test", 3, 1, network.scheme.name),
        network.roster.nodes,
        (),
        network.roster.key_holders,
    )
    for terms, tolerance in ((strangers, 1), (alone, 0), (network.parameters, 0)):
        with pytest.raises(BadParameters):
            network.holder.key(terms, step=0, tolerance=tolerance)


def test_what_the_coordinator_holds_says_nothing_of_a_vector(network: EncryptedNetwork) -> None:
    """Two hospitals with the same vector send ciphertexts that agree as often as random ones do."""
    network.keys()
    for index in range(PARTIES):
        network.send(index, vector(0))
    commitments, fixed = network.fix()
    first, second = (np.frombuffer(network.release(i, commitments, fixed), dtype=np.uint8) for i in (0, 1))
    chance = (4 / 256 + 1 / 16) / 5  # residues are below 2^36: the fifth byte has four bits
    assert abs(float((first == second).mean()) - chance) < 0.003


def test_the_key_holder_with_the_coordinator_reads_a_hospital(network: EncryptedNetwork) -> None:
    """What is not promised: this is why the two are run by different people."""
    shown(network)
    session = network.parameters.digest()
    secret = network.holder._held[session, 0].secret
    assert np.array_equal(secret.decrypt(network.sent[2, 0], length=2), vector(2))


def test_the_key_holder_alone_was_sent_digests_and_sums_only(
    network: EncryptedNetwork, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything that is handed to it in a whole step, looked through for a hospital's ciphertext."""
    handed: list[bytes] = []
    fix, opening = network.holder.fix, network.holder.open

    def watched_fix(parameters, commitments, *, step):  # type: ignore[no-untyped-def]
        handed.extend(commitments.values())
        return fix(parameters, commitments, step=step)

    def watched_open(parameters, **asked):  # type: ignore[no-untyped-def]
        handed.extend([asked["total"], *asked["endorsements"].values()])
        return opening(parameters, **asked)

    monkeypatch.setattr(network.holder, "fix", watched_fix)
    monkeypatch.setattr(network.holder, "open", watched_open)
    network.run({i: vector(i) for i in range(PARTIES)})
    assert len(handed) == 2 * PARTIES + 1
    sizes = sorted(len(data) for data in handed)
    assert sizes[-1] == network.scheme.form.ciphertext_bytes(2)  # one sum, of all
    assert sizes[-2] < 2000
    assert not set(handed) & set(network.sent.values())
