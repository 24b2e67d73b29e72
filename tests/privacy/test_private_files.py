"""Files for their owner's eyes, whole or not at all."""

import os
import stat
from pathlib import Path

import pytest

from privacy import private_files
from privacy.private_files import OpenToOthers


def test_a_file_is_its_owners_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_files.write(tmp_path / "a.key", b"secret")
        folder = private_files.make_folder(tmp_path / "x" / "keys")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_folder_that_was_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "keys").mkdir(mode=0o755)
    assert stat.S_IMODE(private_files.make_folder(tmp_path / "keys").stat().st_mode) == 0o700


def test_writing_again_replaces_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "roster.json"
    path.write_bytes(b"an older and longer text")
    path.chmod(0o644)
    private_files.write(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "x").touch()
    with pytest.raises(OSError, match="taken"):
        private_files.write(tmp_path / "taken", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_that_others_may_read_or_write_is_not_read(tmp_path: Path, mode: int) -> None:
    private_files.write(tmp_path / "a.key", b"secret")
    assert private_files.read_secret(tmp_path / "a.key") == b"secret"
    (tmp_path / "a.key").chmod(mode)
    with pytest.raises(OpenToOthers, match="chmod 600"):
        private_files.read_secret(tmp_path / "a.key")
