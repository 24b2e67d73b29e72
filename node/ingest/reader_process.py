"""The process that reads files for another one: `python -m node.ingest.reader_process FD`.

It is started by node.ingest.reading_apart, which holds the other end of the socket FD. It imports a reader
and what that needs, opens the files that it is asked for and nothing else, writes nothing, and ends when the
other end is closed. Errors go back without their words.
"""

from __future__ import annotations

import signal
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from importlib import import_module
from os import fsdecode
from pathlib import Path

import pyarrow as pa

from node.ingest import collector, fact_frames
from node.ingest.errors import UnreadableSource
from node.ingest.fact_frames import Broken, Done, Gone, NotOpened, Unreadable, Wanted
from node.ingest.facts import FactBatch, Reader

Frame = tuple[bytes, bytes | pa.Buffer]


def serve(line: socket.socket) -> None:
    """Read what is asked for, one file after the other, until the other end is closed.

    Memory: one batch that is being made and one that is on its way.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="send") as thread:
        sent: Future[None] | None = None
        try:
            while (wanted := fact_frames.asked(line)) is not None:
                for frame in _frames(wanted):
                    if sent is not None:
                        sent.result()
                    sent = thread.submit(fact_frames.send, line, *frame)
                    del frame
        except Gone:
            return


def _frames(wanted: Wanted) -> Iterator[Frame]:
    try:
        for batch in _batches(wanted):
            yield fact_frames.frame(batch)
    except UnreadableSource as error:
        yield fact_frames.end(Unreadable(error.source, error.reason))
    except OSError as error:
        yield fact_frames.end(NotOpened(error.errno or 0))
    except Exception as error:  # whatever it is, the other process ends the load with it
        yield fact_frames.end(Broken(type(error).__name__))
    else:
        yield fact_frames.end(Done())


def _batches(wanted: Wanted) -> Iterator[FactBatch]:
    reader: Reader = getattr(import_module(wanted.module), wanted.reader)(**wanted.made_with)
    batches = reader.read(Path(fsdecode(wanted.path)), batch_records=wanted.batch_records)
    while True:
        with collector.paused():
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


class WithoutPandas:
    """pyarrow imports pandas where it is installed, to know its types: longer than reading 16 MB takes."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """Say of pandas that there is none. Raises: ModuleNotFoundError."""
        if name == "pandas":
            raise ModuleNotFoundError("pandas is not used here", name=name)


def main() -> None:
    """Serve the socket that was handed over."""
    sys.meta_path.insert(0, WithoutPandas())
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this, and ends this with it
    with socket.socket(fileno=int(sys.argv[1])) as line:
        serve(line)


if __name__ == "__main__":
    main()
