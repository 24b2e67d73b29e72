"""What the key-holder has done stays done."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from keyholder.memory import StepMemory
from privacy.errors import OutOfOrder, StepReused
from protocols.clock import FixedClock

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
SESSION, OTHER = bytes(32), bytes(31) + b"\1"


def test_each_thing_happens_once_a_step_also_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "steps.sqlite"
    memory = StepMemory(path, clock=CLOCK)
    memory.made(SESSION, 0)
    memory.fixed(SESSION, 0)
    memory.opened(SESSION, 0)
    memory.made(SESSION, 1)
    memory.made(OTHER, 0)
    memory.close()
    memory = StepMemory(path, clock=CLOCK)
    for again in (memory.made, memory.fixed, memory.opened):
        with pytest.raises(StepReused):
            again(SESSION, 0)
    memory.opened(SESSION, 1)
    memory.fixed(OTHER, 0)
    assert memory.counts() == (3, 2)
    memory.close()
    assert path.stat().st_mode & 0o077 == 0


def test_nothing_happens_to_a_step_without_a_key(tmp_path: Path) -> None:
    memory = StepMemory(tmp_path / "steps.sqlite", clock=CLOCK)
    for early in (memory.fixed, memory.opened):
        with pytest.raises(OutOfOrder):
            early(SESSION, 0)
    memory.close()
