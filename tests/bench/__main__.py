"""`make bench`: run every benchmark of this folder, one JSON line a figure.

A benchmark is a module here with `figures(*, quick: bool) -> Iterable[Figure]`. Ratios are taken in one run,
so a slow machine slows both sides. `make bench-train` runs the group `training`,
`make bench-deid` the group `identity`; `QUICK=1` with fewer seeds and texts.
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
    "deid_cores",
    "deid_claims",
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
    "hundred_sites",
    "heart",
    "exact_models",
    "one_shot",
    "train_fusion",
    "train_support2",
    "train_modes",
    "train_audit",
)

GROUPS = {
    "training": BENCHES[BENCHES.index("secure_aggregation") :],  # what belongs to it stands last
    "identity": ("deid", "deid_cores", "deid_dicom", "deid_claims"),
}


def main() -> int:
    """Run the benches and groups named on the command line, or all; return 1 if one could not run."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("bench", nargs="*", choices=[*BENCHES, *GROUPS, []], help="which (default: all)")
    parser.add_argument("--quick", action="store_true", help="fewer repeats: to see that they run")
    asked = parser.parse_args()
    failed = 0
    named = [bench for name in asked.bench or BENCHES for bench in GROUPS.get(name, (name,))]
    for name in dict.fromkeys(named):
        sys.stderr.write(f"# {name}\n")
        try:
            for figure in importlib.import_module(f"tests.bench.{name}").figures(quick=asked.quick):
                _print(figure)
        except Exception as error:  # one bench that cannot run must not hide the others
            sys.stderr.write(f"# {name} could not run: {type(error).__name__}: {error}\n")
            failed = 1
    return failed


def _print(figure: Figure) -> None:
    """Print a figure as soon as it is there: a bench may take an hour."""
    sys.stdout.write(figure.to_json() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
