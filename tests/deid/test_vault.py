"""Pseudonyms: stable, unlinkable without vault and key, never derived from the patient's own information."""

import hashlib
import sqlite3
import stat
from pathlib import Path

import numpy as np
import pytest

from deid.errors import WrongKey
from deid.vault import PseudonymKey, Vault
from tests.privacy.seeded_bits import SeededBits

KEY = PseudonymKey(bytes(range(32)))


def opened(path: Path, *, key: PseudonymKey = KEY, seed: int = 1) -> Vault:
    return Vault.open(path, key=key, bits=SeededBits(seed))


def test_the_same_patient_gets_the_same_pseudonym_after_a_restart(tmp_path: Path) -> None:
    first = opened(tmp_path / "v").pseudonyms(["a", "b", "a"], namespace="mrn")
    again = opened(tmp_path / "v", seed=2).pseudonyms(["b", "a"], namespace="mrn")
    assert first.ids[0] == first.ids[2] != first.ids[1]
    assert again.ids.tolist() == [first.ids[1], first.ids[0]]
    assert again.shift_days.tolist() == [first.shift_days[1], first.shift_days[0]]


def test_more_patients_than_are_remembered_keep_their_pseudonyms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deid.vault._REMEMBERED", 3)
    vault = opened(tmp_path / "v")
    names = [str(n) for n in range(10)]
    first = vault.pseudonyms(names, namespace="mrn")
    for _ in range(2):
        some = vault.pseudonyms(["3", "new", "9"], namespace="mrn")
        assert some.ids[[0, 2]].tolist() == first.ids[[3, 9]].tolist()
        assert vault.pseudonyms(names, namespace="mrn").ids.tolist() == first.ids.tolist()
    assert vault.pseudonyms(["3"], namespace="mrn", project="p").ids[0] != first.ids[3]


def test_numbers_of_names_are_keyed_blake2b_of_each(tmp_path: Path) -> None:
    names = [b"", b"a", b"a" * 200, b"a"]
    numbers = opened(tmp_path / "v").record_ids(names, label="group").tolist()
    key = KEY.keyed(b"record ids", b"group")
    digests = [hashlib.blake2b(name, digest_size=8, key=key).digest() for name in names]
    assert numbers == [int.from_bytes(digest, "big") & (2**63 - 1) for digest in digests]


def test_a_namespace_is_another_patient(tmp_path: Path) -> None:
    vault = opened(tmp_path / "v")
    assert vault.pseudonyms(["7"], namespace="mrn").ids != vault.pseudonyms(["7"], namespace="encounter").ids


def test_the_id_does_not_follow_from_source_id_and_key(tmp_path: Path) -> None:
    """45 CFR 164.514(c): with another random secret the same record number is another id."""
    one = opened(tmp_path / "one", seed=1).pseudonyms(["123"], namespace="mrn")
    two = opened(tmp_path / "two", seed=2).pseudonyms(["123"], namespace="mrn")
    assert one.ids != two.ids


def test_ids_are_positive_distinct_bigints_and_shifts_are_whole_days(tmp_path: Path) -> None:
    found = opened(tmp_path / "v").pseudonyms([str(i) for i in range(5_000)], namespace="mrn")
    assert found.ids.dtype == np.int64
    assert (found.ids > 0).all()
    assert len(set(found.ids.tolist())) == 5_000
    assert set(found.shift_days.tolist()) <= set(range(-365, 366)) - {0}
    assert len(set(found.shift_days.tolist())) > 700  # nearly all 730 appear
    assert abs(found.shift_days.mean()) < 12  # sd of the mean is 3 days


def test_the_file_holds_no_source_id_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    vault = opened(tmp_path / "v")
    vault.pseudonyms(["MRN-SMITH-1"], namespace="mrn")
    vault.close()
    assert b"SMITH" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert stat.S_IMODE((tmp_path / "v").stat().st_mode) == 0o600


def test_another_key_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "v").close()
    with pytest.raises(WrongKey):
        opened(tmp_path / "v", key=PseudonymKey(bytes(32)))


def test_a_secret_is_durable_before_its_pseudonym_is_known(tmp_path: Path) -> None:
    opened(tmp_path / "v").pseudonyms(["a"], namespace="mrn")
    seen = sqlite3.connect(tmp_path / "v").execute("SELECT count(*) FROM patient").fetchone()
    assert seen == (1,)


def test_the_key_hides_itself() -> None:
    assert repr(KEY) == str(KEY) == "PseudonymKey(<hidden>)"
    with pytest.raises(ValueError, match="32 bytes"):
        PseudonymKey(b"short")


def test_exports_for_two_projects_share_no_id_and_no_shift_and_hang_on_no_key_of_the_store(
    tmp_path: Path,
) -> None:
    vault = opened(tmp_path / "v")
    people = [str(number) for number in range(500)]
    store, a, b = (vault.pseudonyms(people, namespace="mrn", project=name) for name in ("", "a", "b"))
    assert not set(a.ids.tolist()) & set(b.ids.tolist())
    assert not set(a.ids.tolist()) & set(store.ids.tolist())
    same = (a.shift_days == b.shift_days).mean()
    assert same < 0.02  # 1 in 730 by chance
    assert abs(np.corrcoef(a.shift_days, store.shift_days)[0, 1]) < 0.2
    again = vault.pseudonyms(people, namespace="mrn", project="a")
    assert again.ids.tolist() == a.ids.tolist()


def test_a_rotated_project_key_gives_other_pseudonyms_and_is_gone_from_the_disk(tmp_path: Path) -> None:
    vault = opened(tmp_path / "v")
    before = vault.pseudonyms(["7"], namespace="mrn", project="a")
    other = vault.pseudonyms(["7"], namespace="mrn", project="b")
    reader = sqlite3.connect(tmp_path / "v")
    old = [row[0] for row in reader.execute("SELECT secret FROM project")]
    reader.close()
    assert vault.rotate("a") == 1
    assert vault.rotate("a") == 2
    assert vault.pseudonyms(["7"], namespace="mrn", project="a").ids != before.ids
    assert vault.pseudonyms(["7"], namespace="mrn", project="b").ids == other.ids
    vault.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert sorted(secret in left for secret in old) == [False, True]  # b's is still there
    with pytest.raises(ValueError, match="name"):
        opened(tmp_path / "v").rotate("")


def test_surrogate_keys_are_a_patients_own_and_another_for_each_project(tmp_path: Path) -> None:
    vault = opened(tmp_path / "v")
    one, two, again = vault.surrogate_keys(["1", "2", "1"], namespace="mrn")
    (projects,) = vault.surrogate_keys(["1"], namespace="mrn", project="a")
    drawn = [key.keyed(b"x") for key in (one, two, again, projects)]
    assert drawn[0] == drawn[2]
    assert len(set(drawn)) == 3
    assert "hidden" in repr(one)


def test_a_vault_made_before_projects_is_opened_as_it_is(tmp_path: Path) -> None:
    vault = opened(tmp_path / "v")
    before = vault.pseudonyms(["7"], namespace="mrn").ids
    vault.close()
    old = sqlite3.connect(tmp_path / "v")
    old.execute("DROP TABLE project")
    old.commit()
    old.close()
    assert opened(tmp_path / "v").pseudonyms(["7"], namespace="mrn").ids == before
