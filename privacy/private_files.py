"""Files that only their owner may read, written whole or not at all."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
OTHERS = 0o077


class OpenToOthers(ValueError):
    """Others may read a file that holds a secret."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path}: others may read it; chmod 600 it, and think about who may have")
        self.path = path


def make_folder(path: Path) -> Path:
    """Make `path` and what is above it; `path` itself is for its owner only."""
    path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    path.chmod(FOLDER_MODE)
    return path


def write(path: Path, data: bytes) -> None:
    """Write `data` to `path`, mode 0600.

    Guarantee: after a crash the file is the old one or the new one, never a part; nobody else can open it at
    any moment; when this returns the new one is on the disk.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, FILE_MODE)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def read_secret(path: Path) -> bytes:
    """Return what the file holds. Raises: OpenToOthers if anybody but the owner may read it."""
    if stat.S_IMODE(path.stat().st_mode) & OTHERS:
        raise OpenToOthers(path)
    return path.read_bytes()


def sync_folder(path: Path) -> None:
    """Make the folder's list of names durable."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
