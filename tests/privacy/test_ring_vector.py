"""Ciphertexts as numbers: one encoding each, and nothing else is read."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from privacy import bfv, ckks
from privacy.errors import BadParameters, DoesNotFit, ProtocolViolation
from privacy.ring_vector import RingForm, signed_values

SMALL = RingForm("test", 4, (97, 101), (97, 101, 103), slots=4, largest_total=1000)
FORMS = (SMALL, bfv.FORM, ckks.FORM)


def residues(form: RingForm, length: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    shape = form.empty_sum(length).shape
    return rng.integers(0, np.array(form.data_primes)[:, None], shape).astype(np.uint64)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.scheme)
def test_what_is_packed_is_unpacked(form: RingForm) -> None:
    for length in (1, form.slots, form.slots + 1):
        values = residues(form, length, length)
        packed = form.pack(values)
        assert len(packed) == form.ciphertext_bytes(length)
        assert np.array_equal(form.unpack(packed, length=length), values)


@settings(max_examples=100, deadline=None)
@given(data=st.binary(min_size=80, max_size=80))
def test_any_bytes_are_refused_or_have_this_one_encoding(data: bytes) -> None:
    assert SMALL.block_bytes == 80
    try:
        values = SMALL.unpack(data, length=4)
    except ProtocolViolation:
        return
    assert SMALL.pack(values) == data


@settings(max_examples=100, deadline=None)
@given(bits=st.binary(min_size=16, max_size=16))
def test_small_residues_have_one_encoding(bits: bytes) -> None:
    data = b"".join(bytes([byte % 97, 0, 0, 0, 0]) for byte in bits)
    assert SMALL.pack(SMALL.unpack(data, length=1)) == data


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.scheme)
def test_a_residue_of_its_prime_is_refused_and_one_below_is_not(form: RingForm) -> None:
    values = form.empty_sum(1)
    for place, prime in enumerate(form.data_primes):
        values[0, 1, place, 3] = prime - 1
        form.unpack(form.pack(values), length=1)
        values[0, 1, place, 3] = prime
        with pytest.raises(ProtocolViolation):
            form.unpack(form.pack(values), length=1)
        values[0, 1, place, 3] = 0


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.scheme)
def test_addition_is_modulo_each_prime(form: RingForm) -> None:
    parts = [residues(form, 1, seed) for seed in range(5)]
    total = form.empty_sum(1)
    for part in parts:
        form.add(total, form.pack(part), length=1)
    exact = sum(part.astype(object) for part in parts) % np.array(form.data_primes, dtype=object)[:, None]
    assert (total == exact).all()


@pytest.mark.parametrize("size", [0, 1, 79, 81, 160])
def test_another_size_is_refused(size: int) -> None:
    with pytest.raises(ProtocolViolation):
        SMALL.unpack(bytes(size), length=4)
    with pytest.raises(ProtocolViolation):
        SMALL.unpack_key(bytes(size))


def test_the_primes_are_those_that_the_libraries_choose() -> None:
    from tenseal.sealapi import CoeffModulus

    assert tuple(m.value() for m in CoeffModulus.Create(ckks.DEGREE, ckks.BITS)) == ckks.KEY_PRIMES
    assert sorted(ckks.KEY_PRIMES) == sorted(bfv.KEY_PRIMES)  # 109 bits for n = 4096
    assert bfv.PLAIN_MODULUS % (2 * bfv.DEGREE) == 1
    assert bfv.PLAIN_MODULUS.bit_length() == 54
    assert pow(3, bfv.PLAIN_MODULUS - 1, bfv.PLAIN_MODULUS) == 1


def test_values_beyond_the_limit_are_no_vector() -> None:
    values = np.array([5, -5], dtype=np.int64)
    assert signed_values(values.view(np.uint64), largest=5).tolist() == [5, -5]
    for wrong in ([6], [-6], [-(2**63)], [2**63 - 1]):
        with pytest.raises(DoesNotFit):
            signed_values(np.array(wrong, dtype=np.int64).view(np.uint64), largest=5)
    for other in (np.zeros(0, np.uint64), np.zeros((1, 1), np.uint64), np.zeros(1), [1]):
        with pytest.raises(BadParameters):
            signed_values(other, largest=5)  # type: ignore[arg-type]


@pytest.mark.parametrize("sites", [1, 100])
def test_ckks_stays_far_from_where_rounding_would_err(sites: int) -> None:
    import tenseal

    secret = ckks.Secret()
    encryptor = ckks.Encryptor(secret.public_key)
    rng = np.random.default_rng(sites)
    most = ckks.FORM.largest_input(sites)
    total = ckks.FORM.empty_sum(ckks.FORM.slots)
    for _ in range(sites):
        packed = encryptor.encrypt(rng.choice([-most, most], ckks.FORM.slots))
        ckks.FORM.add(total, packed, length=ckks.FORM.slots)
    real = np.array(tenseal.ckks_vector_from(secret._context, ckks._seal().vector(total[0])).decrypt())
    assert np.abs(real - np.rint(real)).max() < 0.05 < ckks.RESIDUAL


@pytest.mark.parametrize("sites", [1, 100])
def test_bfv_keeps_noise_budget_for_many_more_sites(sites: int) -> None:
    from Pyfhel import PyCtxt

    secret = bfv.Secret()
    encryptor = bfv.Encryptor(secret.public_key)
    rng = np.random.default_rng(sites)
    most = bfv.FORM.largest_input(sites)
    total = bfv.FORM.empty_sum(bfv.FORM.slots)
    for _ in range(sites):
        packed = encryptor.encrypt(rng.choice([-most, most], bfv.FORM.slots))
        bfv.FORM.add(total, packed, length=bfv.FORM.slots)
    ciphertext = PyCtxt(pyfhel=secret._context)
    ciphertext.from_bytes(bfv._heads()[1] + total[0].astype("<u8").tobytes(), "int")
    assert secret._context.noise_level(ciphertext) >= 6
