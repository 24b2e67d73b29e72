"""HL7 v2: messages a second from bytes to facts and into a store, and acknowledged after the disk has them.

The floor is splitting at every separator and keeping nothing; a library is measured beside it where one is
installed (`pip install hl7`). Goals: 5,000 messages/s parsed and stored, with every rule on; 1,000/s
acknowledged with p99 below 200 ms. Speeds are by the clock; where other work shares the machine, the time of
the processor says more.
"""

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from contextlib import closing
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from deid.vault import PseudonymKey, Vault
from node.ingest.inbox import Inbox
from node.ingest.mllp import listening
from node.ingest.pipeline import Pipeline
from node.ingest.readers.hl7v2 import Hl7v2Reader
from node.omop import starter
from node.omop.store import OmopStore
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from tests.bench.figure import Figure
from tests.bench.hl7v2_messages import oru

GOAL_STORED, GOAL_ACKNOWLEDGED, GOAL_P99_MS = 5_000, 1_000, 200
LOADS = ((1, 1, "one sender that waits"), (8, 1, "8 senders that wait"), (8, 16, "8 senders, 16 ahead"))


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield the speed of reading, and of acknowledging."""
    with tempfile.TemporaryDirectory() as name:
        yield from _reading(Path(name), 2_000 if quick else 20_000)
        yield from _storing(Path(name), 2_000 if quick else 40_000)
        for senders, ahead, words in LOADS:
            each = (100 if quick else 2_000) // (4 if senders == 1 else 1)
            yield from asyncio.run(_acknowledging(Path(name), senders, each, ahead, words))


def _reading(folder: Path, messages: int) -> Iterable[Figure]:
    made = [oru(number) for number in range(messages)]
    path = folder / "messages.hl7"
    path.write_bytes(b"".join(made))
    begin = time.perf_counter()
    for message in made:
        _split(message.decode())
    bare = messages / (time.perf_counter() - begin)
    begin = time.perf_counter()
    facts = sum(batch.facts.num_rows for batch in Hl7v2Reader().read(path, batch_records=5_000))
    seconds = time.perf_counter() - begin
    rate = messages / seconds
    yield Figure(
        "hl7v2, file to facts", rate, "messages/s", bare, "splitting at every separator, nothing kept"
    )
    yield Figure("the same", facts / seconds, "facts/s")
    if find_spec("hl7") is not None:
        parse = import_module("hl7").parse
        some = [message.decode() for message in made[:200]]
        begin = time.perf_counter()
        for text in some:
            str(parse(text).segment("PID")[3][0])
        library = len(some) / (time.perf_counter() - begin)
        yield Figure("the same", rate, "messages/s", library, "the package hl7, parsing alone")


def _storing(folder: Path, messages: int) -> Iterable[Figure]:
    path = folder / "messages.hl7"
    path.write_bytes(b"".join(oru(number) for number in range(messages)))
    vault = Vault.open(folder / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SecureBits())
    with closing(vault), OmopStore.open(folder / "omop.duckdb") as store:
        starter.ensure(store, now=SystemClock().now())
        pipeline = Pipeline(store, vault, SystemClock())
        begin, used = time.perf_counter(), time.process_time()
        (source,) = pipeline.ingest([path]).sources
        seconds, used = time.perf_counter() - begin, time.process_time() - used
    if source.stored != messages:
        raise RuntimeError("not every message was stored")
    yield Figure("hl7v2, file to store", messages / seconds, "messages/s", GOAL_STORED, "goal")
    yield Figure("the same", sum(source.records.values()) / seconds, "records of the CDM/s")
    yield Figure("the same, of one processor", messages / used, "messages/s", GOAL_STORED, "goal")


def _split(text: str) -> None:
    for line in text.split("\r"):
        for field in line.split("|"):
            for part in field.split("~"):
                [component.split("&") for component in part.split("^")]


async def _acknowledging(folder: Path, senders: int, each: int, ahead: int, words: str) -> Iterable[Figure]:
    inbox = Inbox.open(folder / "inbox", clock=SystemClock())
    async with listening(inbox, host="127.0.0.1", port=0, clock=SystemClock()) as listener:
        arguments = [str(number) for number in (listener.port, senders, each, ahead)]
        client = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.bench.mllp_client", *arguments, stdout=subprocess.PIPE
        )
        out, _ = await client.communicate()
    inbox.close()
    found = json.loads(out)
    if found["accepted"] != senders * each:
        raise RuntimeError("not every message was acknowledged")
    waits = found["waits"]
    return [
        Figure(
            f"mllp, {words}", found["accepted"] / found["seconds"], "messages/s", GOAL_ACKNOWLEDGED, "goal"
        ),
        Figure("the same, p50", waits[len(waits) // 2] * 1000, "ms"),
        Figure("the same, p99", waits[int(len(waits) * 0.99)] * 1000, "ms", GOAL_P99_MS, "goal: below"),
    ]
