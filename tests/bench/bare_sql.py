"""Count the benchmark's cohorts on one store, as bare as it gets; prints the seconds of each."""

import sys
import time
from pathlib import Path

from node.omop.store import OmopStore
from node.queries.cohort import count
from protocols.cohort import Cohort
from tests.bench.count_latency import cohorts


def main() -> None:
    """Arguments: the store, and how often to go through the cohorts. Waits for a line on stdin to start."""
    path, rounds = Path(sys.argv[1]), int(sys.argv[2])
    asked = [Cohort.parse(form) for form in cohorts()]
    with OmopStore.open(path, read_only=True) as store:
        for cohort in asked[:2]:
            count(cohort, store)
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for _ in range(rounds):
            for cohort in asked:
                start = time.perf_counter()
                count(cohort, store)
                sys.stdout.write(f"{time.perf_counter() - start}\n")


if __name__ == "__main__":
    main()
