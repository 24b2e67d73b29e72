"""`fedtwin node listen-mllp` as a hospital starts it: a process that takes messages and loads them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from fedtwin.node_ingest import RULES
from node.home import NodeHome
from tests.bench.hl7v2_messages import oru
from tests.bench.mllp_client import send
from tests.fedtwin.conftest import Fedtwin
from tests.node.ingest.hl7v2_made import PID, PV1, message

SENT = [
    message("ADT^A01", PID, PV1),
    *(oru(i, patient=i % 7) for i in range(40)),
    message("SIU^S12", PID),
]


@contextmanager
def listening(home: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [
        sys.executable,
        "-m",
        "fedtwin",
        "node",
        "listen-mllp",
        "--port",
        "0",
        "--home",
        str(home),
        *options,
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ})
    try:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said == {"listening": True, "host": "127.0.0.1", "port": said["port"], "tls": False}
        yield process, said["port"]
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def stopped(process: subprocess.Popen[str]) -> Any:
    """Stop it as systemd does, and return its last words."""
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return json.loads(out.strip().splitlines()[-1])


def measurements(home: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(NodeHome(home).store), read_only=True) as store:
        return store.execute(
            "SELECT measurement_source_value, value_as_number, unit_source_value"
            " FROM measurement ORDER BY ALL"
        ).fetchall()


def test_messages_are_acknowledged_and_stand_in_the_store_after_the_stop(hospital: Path) -> None:
    with listening(hospital, "--load-every-s", "600") as (process, port):
        _, answers = asyncio.run(send(port, SENT, unanswered=8))
        assert [b"MSA|AA|" in answer for answer in answers] == [True] * len(SENT)
        assert list((hospital / "inbox" / "hl7v2").glob("0*.part"))
        said = stopped(process)
    assert said == {"listening": False, "answers": {"AA": len(SENT)}}
    assert not list((hospital / "inbox" / "hl7v2").glob("0*"))  # loaded, and so forgotten
    found = measurements(hospital)
    assert len(found) == 40 * 5
    assert [row for row in found if "2951-2" in row[0]] == [(found[80][0], 101.0, "mmol/L")] * 40  # sodium
    with duckdb.connect(str(NodeHome(hospital).store), read_only=True) as store:
        assert store.execute("SELECT count(*) FROM person").fetchone() == (8,)
        assert store.execute("SELECT count(*) FROM visit_occurrence").fetchone() == (1,)
        copied = store.execute("SELECT count(*) FROM fedtwin_timeline WHERE kind = 'measurement'").fetchone()
        assert copied == (len(found),)  # a timeline is read in milliseconds after a live load too
    assert "Doe" not in (hospital / "logs" / "listen-mllp.log").read_text()


def test_what_was_kept_is_loaded_after_a_kill(hospital: Path) -> None:
    with listening(hospital, "--load-every-s", "0") as (process, port):
        asyncio.run(send(port, SENT, unanswered=8))
        process.kill()
        process.wait()
    with listening(hospital, "--load-every-s", "600") as (process, _):
        stopped(process)
    assert len(measurements(hospital)) == 40 * 5


def test_the_same_messages_again_change_nothing(hospital: Path) -> None:
    for _ in range(2):
        with listening(hospital, "--load-every-s", "600") as (process, port):
            asyncio.run(send(port, SENT, unanswered=8))
            stopped(process)
    assert len(measurements(hospital)) == 40 * 5


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--host", "0.0.0.0"], "--allow"),
        (["--host", "nowhere"], "not an address"),
        (["--allow", "10.0.0.0/99"], "not an address"),
        (["--client-authority", __file__], "--tls"),
        (["--tls", "--key", __file__], "go together"),
    ],
)
def test_options_that_open_too_much_or_say_nothing_are_refused(
    fedtwin: Fedtwin, hospital: Path, options: list[str], words: str
) -> None:
    said = fedtwin("node", "listen-mllp", "--port", "0", "--home", hospital, *options)
    assert (said.code, words in said.err.replace("\n", " ")) == (2, True), said.err


def test_what_the_hospital_chose_about_facts_holds_for_messages_too(hospital: Path) -> None:
    """As for files: final results are turned away here, so none of them becomes a measurement."""
    (hospital / RULES).write_text('[status]\nmeasurement = ["amended"]\n')
    with listening(hospital, "--load-every-s", "600") as (process, port):
        asyncio.run(send(port, SENT, unanswered=8))
        stopped(process)
    assert measurements(hospital) == []
    (hospital / RULES).unlink()
    with listening(hospital, "--load-every-s", "600") as (process, port):
        asyncio.run(send(port, [oru(99, patient=1)], unanswered=8))
        stopped(process)
    assert len(measurements(hospital)) > 0
