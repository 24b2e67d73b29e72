"""Batches of facts on a socket between two processes of one node: words in JSON, then Arrow's own bytes.

They hold what the source says of patients, identity with it: the socket has two ends, one in each process,
and no name; nothing is written to a file.
"""

from __future__ import annotations

import socket
import struct

import msgspec
import pyarrow as pa

from node.ingest.facts import FactBatch, Told, TurnedAway

_LENGTHS = struct.Struct("<QQ")  # of the words, and of the facts that come after them
_ENTRY = {"tag_field": "is"}


class Wanted(msgspec.Struct, tag="wanted", **_ENTRY):
    """Read this file. `reader` is a class of `module`, made with the words `made_with`."""

    module: str
    reader: str
    made_with: dict[str, str]
    path: bytes
    batch_records: int


class _Batch(msgspec.Struct, tag="batch", **_ENTRY):
    """A FactBatch but for its facts, which come after it."""

    turned_away: list[TurnedAway]
    records: int
    bytes_done: int
    kept: int
    told: list[Told]


class Done(msgspec.Struct, tag="done", **_ENTRY):
    """The file was read to its end."""


class Unreadable(msgspec.Struct, tag="unreadable", **_ENTRY):
    """What an UnreadableSource says."""

    source: str
    reason: str


class NotOpened(msgspec.Struct, tag="not-opened", **_ENTRY):
    """The number of an OSError."""

    number: int


class Broken(msgspec.Struct, tag="broken", **_ENTRY):
    """The class of any other error; its words may hold what stands in the file."""

    error: str


Answer = Done | Unreadable | NotOpened | Broken
_WANTED = msgspec.json.Decoder(Wanted)
_ANSWER: msgspec.json.Decoder[_Batch | Answer] = msgspec.json.Decoder(_Batch | Answer)


class Gone(ConnectionError):
    """The other process has closed its end, or is no more."""


def ask(line: socket.socket, wanted: Wanted) -> None:
    """Ask for a file. Raises: Gone."""
    send(line, msgspec.json.encode(wanted), b"")


def asked(line: socket.socket) -> Wanted | None:
    """Wait for what is asked for next; None if nothing will be."""
    try:
        words, _ = _receive(line)
    except Gone:
        return None
    return _WANTED.decode(words)


def frame(batch: FactBatch) -> tuple[bytes, pa.Buffer]:
    """Return a batch as what `send` takes."""
    words = _Batch(batch.turned_away, batch.records, batch.bytes_done, batch.kept, batch.told)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.facts.schema) as stream:
        stream.write_table(batch.facts.combine_chunks())
    return msgspec.json.encode(words), sink.getvalue()


def end(answer: Answer) -> tuple[bytes, bytes]:
    """Return the last word about a file as what `send` takes."""
    return msgspec.json.encode(answer), b""


def send(line: socket.socket, words: bytes, facts: bytes | pa.Buffer) -> None:
    """Send one frame, waiting until the other process has taken it. Raises: Gone."""
    rest = memoryview(facts).cast("B")
    try:
        line.sendall(_LENGTHS.pack(len(words), len(rest)) + words)
        line.sendall(rest)
    except (ConnectionError, TimeoutError):
        raise Gone from None


def answered(line: socket.socket) -> FactBatch | Answer:
    """Wait for the next frame about the file that was asked for. Raises: Gone."""
    words, facts = _receive(line)
    answer = _ANSWER.decode(words)
    if not isinstance(answer, _Batch):
        return answer
    with pa.ipc.open_stream(facts) as stream:
        table = stream.read_all()
    return FactBatch(
        table, answer.turned_away, answer.records, answer.bytes_done, kept=answer.kept, told=answer.told
    )


def _receive(line: socket.socket) -> tuple[bytes, pa.Buffer]:
    words, facts = _LENGTHS.unpack(_exactly(line, _LENGTHS.size))
    return bytes(_exactly(line, words)), pa.py_buffer(_exactly(line, facts))


def _exactly(line: socket.socket, size: int) -> bytearray:
    """Return so many bytes. One call of the kernel for all: each would wait for the interpreter's lock."""
    found = bytearray(size)
    view, have = memoryview(found), 0
    while have < size:
        try:
            got = line.recv_into(view[have:], 0, socket.MSG_WAITALL)
        except ConnectionError:
            raise Gone from None
        if got == 0:
            raise Gone
        have += got
    return found
