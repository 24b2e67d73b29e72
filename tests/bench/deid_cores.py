"""Finding identity with one process and with two: what the second core brings, and what each process takes.

With the processes' start, as `fedtwin deid text --processes 2` pays it, and without, as a hospital that reads
notes all day has it. Both pools are open and take turns, so that a busy machine is busy for both; where
others use the cores, the clock says less than the CPU seconds of a note: twice what one process uses for
them, by what two use, is what two free cores would bring. `load` says how many wanted to run as it began.
"""

import multiprocessing
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from deid.note_processes import NoteProcesses, find_parallel
from tests.bench.figure import Figure
from tests.deid.styles.documents import documents

NOTES, QUICK = 1_000, 150
TURNS = 5
GOAL = 1.9  # times one process: two cores, and what a machine's second core loses to the first
MOST_MIB = 1536.0


@dataclass
class Turns:
    """What each turn took: by the clock, in the processes, and in the one that asks; and the most memory."""

    clock_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    asking_s: list[float] = field(default_factory=list)


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield two processes against one, with and without their start, and the memory of each."""
    texts = _texts(QUICK if quick else NOTES)
    yield Figure("load as it began", os.getloadavg()[0], f"processes that want one of {os.cpu_count()} cores")
    started = {count: _with_start(texts, count) for count in (1, 2)}
    yield Figure(
        f"two processes against one, {len(texts)} notes, start included",
        started[1] / started[2],
        "times the notes a second",
        GOAL,
        "at least",
    )
    turns, peaks = _steady(texts, turns=2 if quick else TURNS)
    clock, cpu = ({n: median(getattr(of, what)) for n, of in turns.items()} for what in ("clock_s", "cpu_s"))
    name = "two processes against one, without start"
    yield Figure(f"{name}, by the clock", clock[1] / clock[2], "times the notes a second", GOAL, "at least")
    yield Figure(
        f"{name}, on cores of their own, from CPU seconds", 2 * cpu[1] / cpu[2], "times", GOAL, "at least"
    )
    for count, of in turns.items():
        yield Figure(f"a note, processes: {count}", 1000 * median(of.cpu_s) / len(texts), "ms of CPU")
    asking = median(turns[2].asking_s) / median(turns[2].cpu_s)
    yield Figure("the process that asks, of the CPU of the two that find", asking, "share", 0.02, "at most")
    yield Figure("most memory of a process that finds (VmHWM)", max(peaks), "MiB", MOST_MIB, "at most")


def _texts(count: int) -> list[str]:
    every = [document.text for document in documents()]
    return (every * -(-count // len(every)))[:count]


def _with_start(texts: list[str], processes: int) -> float:
    began = time.perf_counter()
    find_parallel(texts, processes=processes)
    return time.perf_counter() - began


def _steady(texts: list[str], *, turns: int) -> tuple[dict[int, Turns], list[float]]:
    measured = {1: Turns(), 2: Turns()}
    with NoteProcesses(1) as alone:
        first = _children()
        with NoteProcesses(2) as pair:
            pids = {1: first, 2: _children() - first}
            for running in (alone, pair):  # each meets its texts once: what it keeps of words is there then
                running.find(texts)
            for turn in range(turns):
                for count, running in ((1, alone), (2, pair)) if turn % 2 == 0 else ((2, pair), (1, alone)):
                    used, asked = sum(map(cpu_seconds, pids[count])), time.process_time()
                    began = time.perf_counter()
                    running.find(texts)
                    measured[count].clock_s.append(time.perf_counter() - began)
                    measured[count].cpu_s.append(sum(map(cpu_seconds, pids[count])) - used)
                    measured[count].asking_s.append(time.process_time() - asked)
            return measured, [peak_mib(pid) for pid in pids[1] | pids[2]]


def _children() -> set[int]:
    return {child.pid for child in multiprocessing.active_children() if child.pid is not None}


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of the cores, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_mib(pid: int | str = "self") -> float:
    """Return the most memory that a process has held. Not ru_maxrss: that is inherited from who starts it."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 1024
    raise ValueError("this kernel tells no VmHWM")
