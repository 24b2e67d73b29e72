"""Files of signals as bytes: plain, gzip, or one member of a zip, never unpacked onto the disk.

Whoever sends a file may want to fill memory or disk: what comes out of a compressed one is counted while it
comes, and names inside of a zip are looked at but lead nowhere.
"""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from node.ingest.errors import UnreadableSource

MAX_RATIO = 200  # an Apple Health export shrinks by 20 to 40; a bomb by 1,000
FREE_BYTES = 1 << 24  # before the ratio counts: small files of zeros are no danger
MAX_BYTES = 1 << 36  # 64 GiB out of one file
MAX_MEMBERS = 100_000


class Stream:
    """Bytes that are counted, and stop when there are too many for what they came from."""

    def __init__(self, name: str, raw: IO[bytes], compressed_bytes: int | None) -> None:
        self._name = name
        self._raw = raw
        self._limit = (
            MAX_BYTES
            if compressed_bytes is None
            else min(MAX_BYTES, compressed_bytes * MAX_RATIO + FREE_BYTES)
        )
        self.bytes_done = 0

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes. Raises: UnreadableSource if it is damaged or a bomb."""
        try:
            part = self._raw.read(size)
        except (zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, OSError, RuntimeError):
            raise UnreadableSource(self._name, "damaged: cannot be unpacked") from None
        self.bytes_done += len(part)
        if self.bytes_done > self._limit:
            raise UnreadableSource(self._name, "unpacks to far more than any export: refused")
        return part

    def all(self, limit: int) -> bytes:
        """Return all bytes. Raises: UnreadableSource if there are more than `limit`."""
        parts = []
        while part := self.read(1 << 20):
            parts.append(part)
            if self.bytes_done > limit:
                raise UnreadableSource(self._name, f"more than {limit} bytes for a file of this kind")
        return b"".join(parts)


def whole_text(path: Path, *, limit: int) -> str:
    """Return a file as text, without its byte order mark. Raises: UnreadableSource, also beyond `limit`."""
    with opened(path) as stream:
        raw = stream.all(limit)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnreadableSource(path.name, "not UTF-8") from None


def is_zip(path: Path) -> bool:
    """Return whether the file begins as a zip."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def zipped(path: Path) -> tuple[str, ...]:
    """Return the names in a zip; none if it is damaged or has too many."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return ()
    return tuple(names) if len(names) <= MAX_MEMBERS else ()


@contextmanager
def opened(path: Path, wanted: Callable[[str], bool] = lambda name: True) -> Iterator[Stream]:
    """Open a file, unpacking gzip and zip; of a zip the one member that is wanted, nearest to its top.

    Raises: UnreadableSource if it cannot be read, is encrypted, or has none or several that are wanted.
    """
    with path.open("rb") as file:
        head = file.read(4)
        file.seek(0)
        if head[:2] == b"\x1f\x8b":
            with gzip.open(file) as unpacked:
                yield Stream(path.name, unpacked, path.stat().st_size)  # type: ignore[arg-type]
        elif head == b"PK\x03\x04":
            try:
                archive = zipfile.ZipFile(file)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
                raise UnreadableSource(path.name, "damaged: not a zip") from None
            with archive:
                member = _member(path.name, archive, wanted)
                try:
                    raw = archive.open(member)
                except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError):
                    raise UnreadableSource(path.name, "damaged or encrypted zip") from None
                with raw:
                    yield Stream(path.name, raw, max(member.compress_size, 1))
        else:
            yield Stream(path.name, file, None)


def _member(name: str, archive: zipfile.ZipFile, wanted: Callable[[str], bool]) -> zipfile.ZipInfo:
    found = [member for member in archive.infolist()[: MAX_MEMBERS + 1] if wanted(member.filename)]
    if len(archive.infolist()) > MAX_MEMBERS or not found:
        raise UnreadableSource(name, "a zip without what this reader reads")
    nearest = min(member.filename.count("/") for member in found)
    found = [member for member in found if member.filename.count("/") == nearest]
    if len(found) > 1:
        raise UnreadableSource(name, "a zip with several exports: whose is which is not said")
    return found[0]
