"""kill -9 at every step between reserve and answer: what was spent stays spent, nothing unpaid has left.

A history is one ledger and four to six lives of a node that answers questions with its real parts: admission,
SQL on a store, noise, secure sum, ledger. Each life is killed at a chosen passage of a chosen point (or
stopped, now and then), and the next opens what it left behind. What leaves the node is known to the test's
side however the node dies, and tests/threats/crash_oracle.py holds it against the rows of the file.

SIGKILL loses nothing that the kernel holds: this shows order and recovery. That bytes reach the disk is
SQLite's synchronous=FULL.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.threats.crash_oracle import Invariant
from tests.threats.crash_points import FLOW, IDLE, LEDGER, NOWHERE, POINTS, RECORDS
from tests.threats.crash_variants import HONEST, VARIANTS

ROOT = Path(__file__).parents[2]
IN_MEMORY = Path("/dev/shm")  # where there is one: a slow disk would show nothing more
BETWEEN = set(FLOW) | set(LEDGER) | set(RECORDS)  # reserve and answer, the ledger's own steps included
WRONG = [name for name in VARIANTS if name != HONEST]


def histories(first: int, last: int, *variants: str, timeout_s: float) -> dict[str, Any]:
    """Run seeded histories in a process that does nothing else. Returns what was found, by variant."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if IN_MEMORY.is_dir() else None) as folder:
        done = subprocess.run(
            [sys.executable, "-m", "tests.threats.crash_histories", folder, str(first), str(last), *variants],
            cwd=ROOT,
            env=os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            timeout=timeout_s,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr[-2_000:]
    found: dict[str, Any] = json.loads(done.stdout)
    for name, each in found.items():
        print(f"{name}: {each['figures']} in {each['seconds']:.1f} s")
        print(f"  {each['kills']}")
    return found


def check(found: dict[str, Any], *, number: int) -> None:
    """Nothing is broken, and the histories were worth running."""
    assert found["broken"] == []
    figures, kills = found["figures"], found["kills"]
    assert figures["histories"] == number
    assert figures["lives"] >= 4 * number == 4 * figures["histories"]
    assert sum(kills.values()) == figures["lives"]
    assert sum(count for point, count in kills.items() if point in BETWEEN) > 1.5 * number
    assert figures["inputs"] > figures["shares"] > number, "some inputs are never opened, most are"
    assert figures["answered: laplace"] > number / 3 < figures["answered: gaussian"]
    seen = ("budget-exhausted", "replayed", "expired")
    assert all(figures[f"refused: {code}"] > number / 20 for code in seen)
    assert all(figures[f"released: {how}"] > number / 20 for how in ("restart", "expired", "cancelled"))
    assert figures["given again from the store"] > number / 20
    assert "refused: internal" not in figures, "a node has a word for whatever befalls it here"


def test_a_killed_node_gives_nothing_back_and_answers_nothing_unpaid() -> None:
    """The first of the histories below."""
    found = histories(0, 40, HONEST, timeout_s=240)[HONEST]
    check(found, number=40)
    assert len(found["kills"]) > 25, "many points, not a few"


@pytest.mark.slow
@pytest.mark.timeout(2_400)
def test_five_hundred_histories_of_kills_at_every_point() -> None:
    found = histories(0, 500, HONEST, timeout_s=2_300)[HONEST]
    check(found, number=500)
    assert set(found["kills"]) == set(POINTS), "no point is left out"
    assert min(found["kills"][point] for point in (*FLOW, *LEDGER, IDLE, NOWHERE)) >= 20
    assert found["figures"]["writes torn by the kernel"] >= 10


@pytest.fixture(scope="module")
def wrong() -> dict[str, Any]:
    """What was found of every node that is wrong on purpose."""
    return histories(0, 40, *WRONG, timeout_s=280)


@pytest.mark.parametrize("variant", WRONG)
def test_a_node_that_is_wrong_is_caught(wrong: dict[str, Any], variant: str) -> None:
    found = {invariant for _, invariant, _ in wrong[variant]["broken"]}
    assert found >= {invariant.value for invariant in VARIANTS[variant][1]}


def test_each_invariant_is_broken_by_some_wrong_node() -> None:

    assert {invariant for _, caught in VARIANTS.values() for invariant in caught} == set(Invariant)
