"""One interface, three back-ends: masked, BFV and CKKS sums give the same integers, bit for bit."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from privacy.encryption import SCHEMES
from privacy.errors import (
    BadParameters,
    DoesNotFit,
    OutOfOrder,
    StepReused,
    TooFewReveals,
    TooFewSurvivors,
)
from privacy.lattice import NoisePlan
from tests.privacy.encrypted_network import EncryptedNetwork
from tests.privacy.seeded_bits import SeededBits
from tests.privacy.sum_network import OTHER_CONTEXT, SumNetwork, plain_sum

BACK_ENDS = ("masked", "bfv", "ckks")
Network = SumNetwork | EncryptedNetwork
Make = Callable[..., Network]


@pytest.fixture(params=BACK_ENDS)
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    """Make networks of one back-end."""
    opened: list[EncryptedNetwork] = []

    def made(parties: int, **options: int) -> Network:
        if request.param == "masked":
            return SumNetwork(parties, **options).open()
        folder = tmp_path / str(len(opened))
        folder.mkdir()
        opened.append(EncryptedNetwork(parties, scheme=request.param, folder=folder, **options))
        return opened[-1]

    yield made
    for network in opened:
        network.close()


def words(values: list[int]) -> np.ndarray:
    return np.array(values, dtype=np.int64).view(np.uint64)


def limit(network: Network) -> int:
    """Return the largest value that one party may add."""
    if isinstance(network, SumNetwork):
        return 2**62 // len(network.parties)
    return network.parties[0].largest_input


@pytest.mark.parametrize(("parties", "length"), [(2, 1), (3, 64), (5, 2048), (4, 4097), (10, 64)])
def test_the_total_is_the_sum(make: Make, parties: int, length: int) -> None:
    network = make(parties)
    rng = np.random.default_rng(parties * length)
    most = limit(network)
    vectors = {i: words(rng.integers(-most, most, length, endpoint=True)) for i in range(parties)}
    assert np.array_equal(network.run(vectors), plain_sum(vectors, range(parties)))


def test_the_largest_values_are_added_without_wrapping(make: Make) -> None:
    network = make(3)
    most = limit(network)
    vectors = {i: words([most, -most, 0, 1, -1] * 500) for i in range(3)}
    assert np.array_equal(network.run(vectors), plain_sum(vectors, range(3)))


def test_a_hundred_hospitals_add_up(make: Make) -> None:
    network = make(100)
    most = limit(network)
    rng = np.random.default_rng(1)
    vectors = {i: words(rng.choice([-most, most, 0, 1], 300)) for i in range(100)}
    assert np.array_equal(network.run(vectors), plain_sum(vectors, range(100)))


def test_the_noise_plans_of_counts_and_of_reals_give_the_same_answer_everywhere(tmp_path: Path) -> None:
    counts = NoisePlan.for_counts(sigma=9.0, sensitivity=2, participants=4, tolerance=1, dimension=64)
    reals = NoisePlan.for_reals(
        sigma=5.0, l2_clip_norm=1.0, sites_per_patient=2, participants=4, tolerance=1, dimension=3000,
        largest=1000.0,
    )  # fmt: skip
    rng = np.random.default_rng(5)
    for plan, draw in (
        (counts, lambda: rng.integers(0, 50_000, 64)),
        (reals, lambda: rng.normal(0, 100, 3000).clip(-1000, 1000)),
    ):
        vectors = {i: plan.contribution(draw(), bits=SeededBits(i)) for i in range(4)}
        totals = [SumNetwork(4).open().run(vectors)]
        for scheme in SCHEMES:
            folder = tmp_path / f"{scheme}{plan.dimension}"
            folder.mkdir()
            network = EncryptedNetwork(4, scheme=scheme, folder=folder)
            totals.append(network.run(vectors))
            network.close()
        assert np.array_equal(totals[0], totals[1])
        assert np.array_equal(totals[0], totals[2])
        assert np.array_equal(plan.decode(totals[0]), plan.decode(totals[2]))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    vectors=st.integers(1, 40).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(-(2**37), 2**37), min_size=length, max_size=length), min_size=2, max_size=6
        )
    )
)
def test_any_integers_add_up(make: Make, vectors: list[list[int]]) -> None:
    given_words = {i: words(vector) for i, vector in enumerate(vectors)}
    total = make(len(vectors)).run(given_words)
    assert total.view(np.int64).tolist() == [sum(column) for column in zip(*vectors, strict=True)]


def test_steps_of_one_session_are_apart(make: Make) -> None:
    network = make(3, steps=3)
    for step in (2, 0, 1):
        vectors = {i: words([10 * step + i, -step]) for i in range(3)}
        assert np.array_equal(network.run(vectors, step=step), plain_sum(vectors, range(3)))


def test_a_party_that_never_sent_is_left_out(make: Make) -> None:
    network = make(5, colluders=1)
    vectors = {i: words([i + 1, 7]) for i in range(5)}
    network.die(4)
    assert np.array_equal(network.run(vectors), plain_sum(vectors, range(4)))


def test_a_sum_of_too_few_is_not_opened(make: Make) -> None:
    network = make(4, minimum_survivors=4)
    network.die(0)
    with pytest.raises(TooFewSurvivors):
        network.run({i: words([i]) for i in range(4)})


def test_too_few_helpers_open_nothing(make: Make) -> None:
    network = make(4, colluders=1)
    vectors = {i: words([i]) for i in range(4)}
    prepared(network, vectors)
    network.reveal(0)
    network.reveal(1)
    with pytest.raises(TooFewReveals):
        total_of(network)


def test_a_vector_that_is_none_is_refused_and_the_step_stays_usable(make: Make) -> None:
    network = make(3)
    if isinstance(network, EncryptedNetwork):
        network.keys()
    wrong = (np.zeros(3), np.zeros((1, 2), np.uint64), np.zeros(0, np.uint64), np.zeros(2, np.int64))
    for vector in wrong:
        with pytest.raises(BadParameters):
            network.send(0, vector)
    network.send(0, words([5]))


def test_a_step_is_sent_and_opened_once(make: Make) -> None:
    network = make(3)
    vectors = {i: words([i, 9]) for i in range(3)}
    network.run(vectors)
    with pytest.raises(StepReused):
        network.send(0, vectors[0])
    with pytest.raises((StepReused, OutOfOrder)):
        network.reveal(0)
    with pytest.raises((StepReused, OutOfOrder)):
        total_of(network)


def test_a_party_that_sums_something_else_is_left_out(make: Make) -> None:
    network = make(4, colluders=1)
    vectors = {i: words([i + 1]) for i in range(4)}
    if isinstance(network, EncryptedNetwork):
        network.keys()
    for index in range(4):
        if index != 2:
            network.send(index, vectors[index])
    network.send(2, vectors[2], context=OTHER_CONTEXT)
    prepared(network, {})
    if isinstance(network, SumNetwork):  # its masks do not cancel: the others see it as a dropout
        for index in (0, 1, 3):
            network.reveal(index)
    else:
        for index in (0, 1, 3):
            network.reveal(index)
    assert np.array_equal(total_of(network), plain_sum(vectors, (0, 1, 3)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_value_that_would_wrap_is_refused_before_anything_is_encrypted(scheme: str, tmp_path: Path) -> None:
    network = EncryptedNetwork(3, scheme=scheme, folder=tmp_path)
    network.keys()
    most = limit(network)
    for value in (most + 1, -most - 1, 2**63 - 1, -(2**63)):
        with pytest.raises(DoesNotFit):
            network.send(0, words([0, value]))
    network.send(0, words([most, -most]))
    network.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_party_that_vanishes_after_its_commitment_is_left_out(scheme: str, tmp_path: Path) -> None:
    network = EncryptedNetwork(5, scheme=scheme, folder=tmp_path, colluders=1)
    vectors = {i: words([i + 1, -i]) for i in range(5)}
    assert np.array_equal(network.run(vectors, late=(3,)), plain_sum(vectors, (0, 1, 2, 4)))
    network.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_sum_of_ciphertexts_has_the_same_bytes_everywhere(scheme: str, tmp_path: Path) -> None:
    network = EncryptedNetwork(3, scheme=scheme, folder=tmp_path)
    network.run({i: words([i]) for i in range(3)})
    form = network.scheme.form
    sums = []
    for order in ((0, 1, 2), (2, 0, 1)):
        total = form.empty_sum(1)
        for index in order:
            form.add(total, network.sent[index, 0], length=1)
        sums.append(form.pack(total))
    assert sums[0] == sums[1]
    assert len(sums[0]) == form.ciphertext_bytes(1)
    network.close()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_two_ciphertexts_of_one_vector_differ(scheme: str) -> None:
    encryptor = SCHEMES[scheme].encryptor(SCHEMES[scheme].new_secret().public_key)
    values = np.arange(5, dtype=np.int64)
    assert encryptor.encrypt(values) != encryptor.encrypt(values)


def prepared(network: Network, vectors: dict[int, np.ndarray]) -> None:
    """Bring a step to where its survivors help to open it; without vectors they were sent already."""
    if isinstance(network, EncryptedNetwork) and vectors:
        network.keys()
    for index, vector in vectors.items():
        network.send(index, vector)
    if isinstance(network, SumNetwork):
        network.collector.close(0)
        return
    commitments, fixed = network.fix()
    for survivor in sorted(commitments):
        network.release(int.from_bytes(survivor.raw, "big"), commitments, fixed)


def total_of(network: Network) -> np.ndarray:
    if isinstance(network, SumNetwork):
        return network.collector.total(0)
    return network.total()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_missing_library_is_named_with_its_extra(scheme: str) -> None:
    script = (
        "import sys\n"
        f"sys.modules[{SCHEMES[scheme].library!r}] = None\n"
        "from privacy.encryption import SCHEMES, MissingExtra\n"
        "try:\n"
        f"    SCHEMES[{scheme!r}].new_secret()\n"
        "except MissingExtra as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert f"pip install 'fedtwin[{scheme}]'" in done.stdout


def test_masked_sums_load_no_library_of_the_encrypted_ones() -> None:
    script = (
        "import sys, node.sums, coordinator.sums, keyholder.serve\n"
        "print([name for name in ('Pyfhel', 'tenseal') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"
