"""Find identity in many notes with several processes, each with a finder of its own on one core.

Guarantee: what comes back is what `NoteFinder.find` returns, in the order of the texts. The process that asks
only hands texts out and takes spans in; a chunk is small enough that no process waits long for the last.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context
from multiprocessing.synchronize import Barrier
from types import TracebackType
from typing import Self

from deid.lexicon.language import language as language_of
from deid.notes import NoteFinder
from deid.spans import Known, Span

_MOST_CHARACTERS = 40_000  # of a chunk: a second of work, two passes of the tagger
_SHARES = 8  # chunks for each process, where there is less to do than that
_OPENING_S = 300.0  # seconds; on a busy machine a finder opens in tens of them
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")  # read by a process as it starts


class NoteProcesses:
    """Processes that have their finders open. Costs about three seconds and 300 MB for each; make them once.

    Raises: ValueError if `processes` is less than 1 or there are no tables for the language.
    """

    def __init__(self, processes: int, *, language: str = "en") -> None:
        if processes < 1:
            raise ValueError("at least one process")
        self._processes, self._language = processes, language
        language_of(language)
        context = get_context("spawn")
        self._pool = ProcessPoolExecutor(
            processes,
            mp_context=context,
            initializer=_begin,
            initargs=(language, context.Barrier(processes)),
        )
        before = {name: os.environ.get(name) for name in _THREADS}
        os.environ.update(dict.fromkeys(_THREADS, "1"))
        try:
            for begun in [self._pool.submit(_found, [], (), language) for _ in range(processes)]:
                begun.result()
        except BaseException:
            self._pool.shutdown(cancel_futures=True)
            raise
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(cancel_futures=True)

    def find(self, texts: Sequence[str], *, known: Sequence[Sequence[Known]] = ()) -> list[list[Span]]:
        """Return the spans of each text, in order. Raises: NotRedacted as `NoteFinder.find` does."""
        if known and len(known) != len(texts):
            raise ValueError(f"{len(texts)} texts, but known identifiers of {len(known)}")
        parts = chunks([len(text) for text in texts], self._processes)
        done = [
            self._pool.submit(_found, texts[one], known[one] if known else (), self._language)
            for one in parts
        ]
        return [spans for one in done for spans in one.result()]


def find_parallel(
    texts: Sequence[str],
    *,
    known: Sequence[Sequence[Known]] = (),
    processes: int,
    language: str = "en",
) -> list[list[Span]]:
    """Return what `NoteFinder.find` returns, from processes that are started for it.

    Raises: NotRedacted as `find` does.
    """
    with NoteProcesses(processes, language=language) as running:
        return running.find(texts, known=known)


def chunks(lengths: Sequence[int], processes: int) -> list[slice]:
    """Return where to part texts of these lengths, in characters, among so many processes.

    >>> chunks([10_000] * 4, 1)
    [slice(0, 1, None), slice(1, 2, None), slice(2, 3, None), slice(3, 4, None)]
    """
    most = min(_MOST_CHARACTERS, -(-sum(lengths) // (_SHARES * processes)))
    parts, start, size = [], 0, 0
    for place, length in enumerate(lengths):
        if place > start and size + length > most:
            parts.append(slice(start, place))
            start, size = place, 0
        size += length
    if start < len(lengths):
        parts.append(slice(start, len(lengths)))
    return parts


@cache
def _finder(language: str) -> NoteFinder:
    return NoteFinder.open(language)


def _begin(language: str, all_open: Barrier) -> None:
    """Open this process's finder, and wait for the others: their environment is that of the start."""
    _finder(language).find(["Seen on 3/4/2019."])
    all_open.wait(_OPENING_S)


def _found(texts: Sequence[str], known: Sequence[Sequence[Known]], language: str) -> list[list[Span]]:
    return _finder(language).find(texts, known=known)
