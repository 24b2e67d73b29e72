"""DICOM objects that were confirmed and are not loaded yet: files in the node's home, for its owner only.

Guarantee: when `put` returns, its object is on the disk, whole; after a crash at any moment each of them is a
file that `ready` lists. What was only partly written was not confirmed, and goes. Names are random.

    inbox/dicom/  0f3a...e1.dcm   ..0f3a (being written)   .lock
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from node.ingest.inbox import RESERVED, need_room, take_lock
from privacy import private_files

CLOSED, SPOOLED = ".dcm", ".spool"


class DicomInbox:
    """One listener's inbox. `put` may be called from any thread."""

    def __init__(self, folder: Path, lock: int, *, reserved: int) -> None:
        """Use `open`."""
        self.folder = folder
        self._lock = lock
        self._reserved = reserved

    @classmethod
    def open(cls, folder: Path, *, reserved: int = RESERVED) -> DicomInbox:
        """Open the inbox, clearing away what a crash left. Raises: InboxBusy."""
        lock = take_lock(folder)
        for path in folder.iterdir():
            if path.name.startswith(".") and path.name != ".lock":
                path.unlink()
        return cls(folder, lock, reserved=reserved)

    def put(self, encoded: bytes) -> None:
        """Write a whole file and wait until the disk has it. Raises: OSError, then it does not count."""
        self.room_for(len(encoded))
        private_files.write(self.folder / f"{secrets.token_hex(16)}{CLOSED}", encoded)

    def room_for(self, size: int) -> None:
        """Raise OSError (ENOSPC) if the disk would be left with less than is reserved for the node."""
        need_room(self.folder, size, reserved=self._reserved)

    def spool(self) -> Path:
        """Return a name for what is not an object yet; it goes at the next `open`."""
        return self.folder / f".{secrets.token_hex(16)}{SPOOLED}"

    def ready(self) -> list[Path]:
        """Return the files that can be loaded, oldest first."""
        found = [path for path in self.folder.glob(f"*{CLOSED}") if not path.name.startswith(".")]
        return sorted(found, key=lambda path: (path.stat().st_mtime_ns, path.name))

    def done(self, path: Path) -> None:
        """Forget a file that has been loaded."""
        path.unlink()
        private_files.sync_folder(self.folder)

    def close(self) -> None:
        """Let another listener in."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1
