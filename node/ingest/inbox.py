"""Messages that were acknowledged and are not loaded yet: files in the node's home, for its owner only.

Guarantee: when `append` returns, its messages are on the disk; after a crash at any moment each of them is in
a file that `ready` lists. A message that was only partly written was not acknowledged, and is cut off.

    inbox/hl7v2/  001795276800000.hl7  001795276801000.part (being written)  .lock
Names are the milliseconds when a file was begun: no two are alike, and nothing of a message stands in one.
The files are MLLP frames, which the HL7 reader reads.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from node.ingest.readers.hl7v2_files import END, START
from privacy import private_files
from protocols.clock import Clock

OPEN, CLOSED = ".part", ".hl7"
FRAME_END = END + b"\r"
MAX_FILE = 32 << 20  # a load each: some thirty thousand messages
RESERVED = 256 << 20  # bytes of the disk that are left to the rest of the node: its ledger must never fail


class InboxBusy(Exception):
    """Another listener writes to this inbox."""


def take_lock(folder: Path) -> int:
    """Make an inbox's folder if there is none, and return its lock, held until closed. Raises: InboxBusy."""
    private_files.make_folder(folder)
    lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, private_files.FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise InboxBusy(str(folder)) from None
    return lock


def need_room(folder: Path, size: int, *, reserved: int) -> None:
    """Raises: OSError (ENOSPC) if `size` bytes more would leave less than `reserved` on the disk."""
    disk = os.statvfs(folder)
    if disk.f_bavail * disk.f_frsize < reserved + size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Inbox:
    """One listener's inbox. `append` and `rotate` may be called from any thread."""

    def __init__(self, folder: Path, lock: int, *, clock: Clock, max_file: int, reserved: int) -> None:
        self._folder = folder
        self._reserved = reserved
        self._lock = lock
        self._clock = clock
        self._max_file = max_file
        self._guard = threading.Lock()
        self._file: int | None = None
        self._path: Path | None = None
        self._size = 0
        self._last = max((int(path.stem) for path in self.ready()), default=0)

    @classmethod
    def open(cls, folder: Path, *, clock: Clock, max_file: int = MAX_FILE, reserved: int = RESERVED) -> Inbox:
        """Open the inbox, making whole what a crash left. Raises: InboxBusy."""
        lock = take_lock(folder)
        for path in sorted(folder.glob(f"*{OPEN}")):
            _made_whole(path)
        private_files.sync_folder(folder)
        return cls(folder, lock, clock=clock, max_file=max_file, reserved=reserved)

    def append(self, messages: Sequence[bytes]) -> None:
        """Write messages and wait until the disk has them. Raises: OSError; then none of them counts.

        So it does while the disk has less than `reserved` bytes left.
        """
        data = b"".join(part for message in messages for part in (START, message, FRAME_END))
        with self._guard:
            need_room(self._folder, len(data), reserved=self._reserved)
            if self._file is None:
                self._begin()
            try:
                _write(self._handle(), data)
                os.fdatasync(self._handle())
            except OSError:
                self._undo()
                raise
            self._size += len(data)
            if self._size >= self._max_file:
                self._finish()

    def rotate(self) -> None:
        """Close the file that is being written, if any, so that it can be loaded."""
        with self._guard:
            if self._file is not None and self._size:
                self._finish()

    def ready(self) -> list[Path]:
        """Return the files that can be loaded, oldest first."""
        return sorted(path for path in self._folder.glob(f"*{CLOSED}") if path.stem.isdecimal())

    def done(self, path: Path) -> None:
        """Forget a file whose messages have been loaded."""
        path.unlink()
        private_files.sync_folder(self._folder)

    def close(self) -> None:
        """Close what is open and let another listener in."""
        self.rotate()
        with self._guard:
            if self._file is not None:
                os.close(self._file)
                self._file = None
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _begin(self) -> None:
        self._last = max(self._last + 1, int(self._clock.now().timestamp() * 1000))
        self._path = self._folder / f"{self._last:015d}{OPEN}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
        self._file = os.open(self._path, flags, private_files.FILE_MODE)
        self._size = 0
        private_files.sync_folder(self._folder)

    def _handle(self) -> int:
        assert self._file is not None
        return self._file

    def _undo(self) -> None:
        """Cut off what was written in part; if even that fails, leave it to the next start and begin anew."""
        try:
            os.ftruncate(self._handle(), self._size)
        except OSError:
            os.close(self._handle())
            self._file = None

    def _finish(self) -> None:
        assert self._path is not None
        os.close(self._handle())
        self._file = None
        self._path.rename(self._path.with_suffix(CLOSED))
        private_files.sync_folder(self._folder)


def _write(file: int, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[os.write(file, left) :]


def _made_whole(path: Path) -> None:
    """Cut off a frame that was not finished, and close the file."""
    data = path.read_bytes()
    whole = data.rfind(FRAME_END) + len(FRAME_END) if FRAME_END in data else 0
    if whole == 0:
        path.unlink()
        return
    with path.open("r+b") as file:
        file.truncate(whole)
        os.fsync(file.fileno())
    path.rename(path.with_suffix(CLOSED))
