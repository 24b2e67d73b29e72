"""Count the benchmark's cohorts on one store with nothing but the SQL; prints the seconds of each."""

import sys
import time
from pathlib import Path

from node.omop.store import OmopStore
from node.queries.cohort import persons
from protocols.cohort import Cohort
from tests.bench.count_latency import cohorts


def main() -> None:
    """Arguments: the store, and how many rounds of cohorts. Waits for a line on stdin to start."""
    path, rounds = Path(sys.argv[1]), int(sys.argv[2])
    with OmopStore.open(path, read_only=True) as store:
        backend = store.connection

        def statement(form: dict[str, object]) -> str:
            return str(backend.compile(persons(Cohort.parse(form), store).count()))

        for warm in cohorts(rounds):
            backend.con.execute(statement(warm)).fetchone()
        asked = [statement(form) for round in range(rounds) for form in cohorts(round)]
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        sys.stdin.readline()
        for sql in asked:
            start = time.perf_counter()
            backend.con.execute(sql).fetchone()
            sys.stdout.write(f"{time.perf_counter() - start}\n")


if __name__ == "__main__":
    main()
