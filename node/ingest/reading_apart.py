"""Read files in other processes, ahead of the store: reading is Python's work, and so is most of storing.

A reader can be read apart if it says how another process makes the same one (`apart`, node.ingest.facts).
Files are read in the order of the plan, each by one process from its beginning to its end, so that batches
are the same and come in the same order as without; while one file is stored, the next are begun. Each process
holds at most two batches, whatever the files are. What it reads comes over a socket without a name (identity
with it), never over a file. Pseudonyms and the vault stay here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from node.ingest import fact_frames
from node.ingest.errors import ReaderLost, UnreadableSource
from node.ingest.fact_frames import Answer, Broken, Gone, NotOpened, Unreadable, Wanted
from node.ingest.facts import FactBatch, Reader

FROM_BYTES = 16 << 20  # of files: a process takes a third of a second to start, and as much to read these
ENDS_WITHIN_S = 10.0  # of closing its socket
MOST_PROCESSES = 3  # one stores what two can hardly read as fast


def usable_processes() -> int:
    """Return how many processes an ingest takes by default: the processors it may use, three at most."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def can_be_apart(reader: Reader) -> bool:
    """Return whether another process can make the same reader."""
    return getattr(reader, "apart", None) is not None


class ReadingApart:
    """Files that other processes read. Leave it by `with`: no process outlives it.

    Args:
        files: in the order in which they will be asked for; one that is not read must not be.
        wanted: whether a file will be asked for after all, told shortly before it would be.
        processes: in all, with the one that stores; 1 reads here, as too few bytes do.
    """

    def __init__(
        self,
        files: Sequence[tuple[Path, Reader]],
        *,
        wanted: Callable[[Path, Reader], bool],
        batch_records: int,
        processes: int,
        from_bytes: int = FROM_BYTES,
    ) -> None:
        self._files = [(file, reader) for file, reader in files if can_be_apart(reader)]
        enough = processes > 1 and sum(file.stat().st_size for file, _ in self._files) >= from_bytes
        self._processes = [_Process() for _ in range(processes - 1 if enough else 0)]
        self._wanted = wanted
        self._batch_records = batch_records
        self._begun: dict[int, _Process] = {}
        self._first = 0  # of the files that were not asked for yet
        self._next = 0  # of those that were not begun

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            process.stop()

    def batches(self, file: Path, reader: Reader) -> Iterator[FactBatch]:
        """Yield what the reader makes of the file.

        Raises: UnreadableSource and OSError as the reader does; ReaderLost if its process ended or failed.
        """
        if not self._processes or not can_be_apart(reader):
            yield from reader.read(file, batch_records=self._batch_records)
            return
        number = next(n for n in range(self._first, len(self._files)) if self._files[n][0] == file)
        self._first = number + 1
        process = self._begun.pop(number, None) or self._begin(number)
        self._begun = {n: its for n, its in self._begun.items() if n > number}
        self._look_ahead()
        yield from process.batches(number)

    def _look_ahead(self) -> None:
        """Begin the files that come next, one for each process."""
        self._next = max(self._next, self._first)
        while self._next < len(self._files) and len(self._begun) < len(self._processes):
            number, self._next = self._next, self._next + 1
            if self._wanted(*self._files[number]):
                self._begun[number] = self._begin(number)

    def _begin(self, number: int) -> _Process:
        """Ask the process that has least to do."""
        process = min(self._processes, key=lambda one: len(one.asked))
        process.ask(number, *self._files[number], batch_records=self._batch_records)
        return process


class _Process:
    """One process that reads; it starts when it is first asked. `asked`: for which files, in their order."""

    def __init__(self) -> None:
        self.asked: deque[int] = deque()
        self._reader = ""
        self._line: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, number: int, file: Path, reader: Reader, *, batch_records: int) -> None:
        """Ask for a file. Raises: ReaderLost."""
        self._reader = reader.name
        form = type(reader)
        made_with: dict[str, str] = reader.apart  # type: ignore[attr-defined]  # it was asked for
        wanted = Wanted(form.__module__, form.__qualname__, made_with, os.fsencode(file), batch_records)
        try:
            fact_frames.ask(self._started(), wanted)
        except Gone:
            raise self._lost() from None
        self.asked.append(number)

    def batches(self, number: int) -> Iterator[FactBatch]:
        """Yield the batches of a file that was asked for; what came before it and was left is dropped.

        Raises: UnreadableSource, OSError, ReaderLost.
        """
        while self.asked[0] != number:
            self._answer()
        while self.asked and self.asked[0] == number:
            answer = self._answer()
            if isinstance(answer, FactBatch):
                yield answer
                del answer  # the next one is on its way, and two are enough
            elif isinstance(answer, Unreadable):
                raise UnreadableSource(answer.source, answer.reason)
            elif isinstance(answer, NotOpened):
                raise OSError(answer.number, os.strerror(answer.number))
            elif isinstance(answer, Broken):
                raise ReaderLost(self._reader, answer.error)

    def _answer(self) -> FactBatch | Answer:
        try:
            answer = fact_frames.answered(self._started())
        except Gone:
            raise self._lost() from None
        if not isinstance(answer, FactBatch):
            self.asked.popleft()
        return answer

    def _started(self) -> socket.socket:
        if self._line is None:
            self._line, its = socket.socketpair()
            with its:
                self._process = subprocess.Popen(
                    # -P: a folder of data from where an ingest is started may hold a `node` of its own
                    [sys.executable, "-P", "-m", "node.ingest.reader_process", str(its.fileno())],
                    pass_fds=[its.fileno()],
                    env=os.environ
                    | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,  # what a library writes there may hold what it reads
                )
        return self._line

    def _lost(self) -> ReaderLost:
        assert self._process is not None, "it had a socket"
        try:
            code = self._process.wait(ENDS_WITHIN_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        return ReaderLost(self._reader, f"signal {-code}" if code < 0 else f"exit code {code}")

    def stop(self) -> None:
        """End the process, whatever it does."""
        if self._line is not None and self._process is not None:
            self._line.close()
            self._process.kill()
            self._process.wait()
