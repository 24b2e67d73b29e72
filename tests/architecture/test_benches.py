"""What `make bench` and `make bench-train` run is there, and nothing in the folder is left out."""

import ast
import subprocess
from pathlib import Path

from tests.bench.__main__ import BENCHES, GROUPS

BENCH = Path(__file__).parents[1] / "bench"


def measuring() -> set[str]:
    """Return the modules of the folder that measure something: those with `figures`."""
    return {
        path.stem
        for path in BENCH.glob("*.py")
        if any(
            isinstance(node, ast.FunctionDef) and node.name == "figures"
            for node in ast.parse(path.read_text()).body
        )
    }


def test_every_bench_that_is_named_measures() -> None:
    assert set(BENCHES) <= measuring()


def test_all_benches_of_training_are_run_by_make_bench_train() -> None:
    group = GROUPS["training"]
    assert {name for name in measuring() if name.startswith("train_")} <= set(group)
    assert {"heart", "gradient_step", "flower_round", "secure_aggregation"} <= set(group)
    told = subprocess.run(
        ["make", "-n", "bench-train", "QUICK=1"], cwd=BENCH.parents[1], capture_output=True, text=True
    ).stdout
    assert "tests.bench training --quick" in told
