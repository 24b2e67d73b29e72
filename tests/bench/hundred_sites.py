"""Memory and seconds a round of Flower's simulation engine at 10, 30 and 100 sites, and how both grow.

Each size runs in a process of its own. Memory is the largest sum, over that process and all its children
(Ray's, the actors), of their proportional set sizes: pages that they share count once.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from tests.bench.figure import Figure

SIZES = (10, 30, 100)
LOOK_S = 1.0
TIMEOUT_S = 1_200.0

RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
from pathlib import Path
import numpy as np
from coordinator.flower.run_folder import RunFolder
from node.features.table import FeatureTable
from protocols.study import Study
from sim.flower_simulation import run_simulated
from tests.protocols.study_forms import study_form

sites, rounds, home = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
study = Study.from_json(study_form(
    study__model="mlp", study__hidden=[32], study__local="intercept", privacy__epsilon=8.0,
    training__rounds=rounds, training__steps_per_round=5, training__expected_patients=200 * sites,
    sites__minimum=sites, sites__tolerance=1,
))
draw = np.random.default_rng(1)
tables = []
for site in range(sites):
    x = draw.uniform(-1, 1, size=(200, len(study.columns))).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    tables.append(FeatureTable(np.arange(200), x, np.ones(x.shape, dtype=bool), y))
run_simulated(study, tables, home=home, run="bench")
print(json.dumps(RunFolder(home, "bench").status().seconds_per_round))
"""


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield seconds a round (median after the first) and memory at each size, and how they grow."""
    rounds = 3 if quick else 5
    found = {sites: _measured(sites, rounds=rounds) for sites in (SIZES[:2] if quick else SIZES)}
    for sites, (seconds, memory) in found.items():
        yield Figure(f"hundred_sites.round_at_{sites}", round(seconds, 3), "s/round")
        yield Figure(f"hundred_sites.memory_at_{sites}", round(memory), "MB")
    (few, (s_few, m_few)), (many, (s_many, m_many)) = min(found.items()), max(found.items())
    more = many - few
    yield Figure("hundred_sites.seconds_per_further_site", round((s_many - s_few) / more, 4), "s/round")
    yield Figure("hundred_sites.memory_per_further_site", round((m_many - m_few) / more, 2), "MB")


def _measured(sites: int, *, rounds: int) -> tuple[float, float]:
    """Return seconds a round, and the most memory that was held (MB)."""
    with tempfile.TemporaryDirectory(prefix="fedtwin-bench-") as home:
        argv = [sys.executable, "-c", RUN, str(sites), str(rounds), home]
        running = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        most, ends = 0.0, time.monotonic() + TIMEOUT_S
        while running.poll() is None and time.monotonic() < ends:
            most = max(most, sum(_pss_mb(pid) for pid in _tree(running.pid)))
            time.sleep(LOOK_S)
        running.kill()
        out, err = running.communicate()
    if running.returncode:
        raise RuntimeError(err[-2000:])
    return statistics.median(json.loads(out.splitlines()[-1])[1:]), most


def _tree(root: int) -> list[int]:
    """Return a process and all that came from it and still live."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left += [child for child, parent in parents.items() if parent == pid]
    return found


def _pss_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024.0


if __name__ == "__main__":
    for found in figures(quick=False):
        print(found.to_json())
