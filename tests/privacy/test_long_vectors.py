"""What privacy.long_vectors promises, in a process of its own: its settings last as long as the process."""

import subprocess
import sys

FAULTS = """
import resource
import sys

import numpy as np

from privacy.long_vectors import SWITCH_S, ready_for_long_vectors

if sys.argv[1] == "ready":
    assert ready_for_long_vectors()
    assert abs(sys.getswitchinterval() - SWITCH_S) < 1e-9


def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def vectors():
    held = [np.empty(2**18, dtype=np.uint64) for _ in range(8)]  # 16 MiB in all
    for each in held:
        each.fill(1)


vectors()
before = faults()
for _ in range(20):
    vectors()
print(faults() - before)
"""


def faults(how: str) -> int:
    """Return how many pages twenty turns of eight vectors of 2 MiB took from the kernel."""
    ran = subprocess.run([sys.executable, "-c", FAULTS, how], check=True, capture_output=True, text=True)
    return int(ran.stdout)


def test_memory_of_vectors_stays_with_the_process() -> None:
    assert faults("ready") < 1_000
    assert faults("as it is") > 10_000
