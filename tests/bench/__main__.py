"""`make bench`: run every benchmark of this folder, one JSON line a figure.

A benchmark is a module here with `figures(*, quick: bool) -> Iterable[Figure]`. Ratios are taken in one run,
so a slow machine slows both sides.
"""

import argparse
import importlib
import sys

from tests.bench.figure import Figure

BENCHES = (
    "ingest",
    "signals",
    "timeline",
    "concept_maps",
    "deid_dicom",
    "claims",
    "genomes",
    "fhir",
    "fhir_omop",
    "hl7v2",
    "deid",
    "error",
    "count_latency",
    "vectors",
    "many_researchers",
    "circe_scale",
    "ten_sites",
    "encrypted",
    "secure_aggregation",
    "gradient_step",
    "flower_round",
    "heart",
    "train_fusion",
    "train_support2",
    "train_audit",
)


def main() -> int:
    """Run the benches named on the command line, or all of them; return 1 if one could not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, []], help="which (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: to see that they run")
    asked = parser.parse_args()
    failed = 0
    for name in asked.bench or BENCHES:
        sys.stderr.write(f"# {name}\n")
        try:
            found: list[Figure] = list(
                importlib.import_module(f"tests.bench.{name}").figures(quick=asked.quick)
            )
        except Exception as error:  # one bench that cannot run must not hide the others
            sys.stderr.write(f"# {name} could not run: {type(error).__name__}: {error}\n")
            failed = 1
            continue
        for figure in found:
            sys.stdout.write(figure.to_json() + "\n")
            sys.stdout.flush()
    return failed


if __name__ == "__main__":
    sys.exit(main())
