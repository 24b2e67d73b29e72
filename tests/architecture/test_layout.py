"""The folder is the import path, and nothing else on the path may take its place."""

import ast
import importlib
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("protocols", "privacy", "deid", "node", "coordinator", "keyholder", "sim", "fedtwin")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", PACKAGES)
def test_package_resolves_inside_the_repository(package: str) -> None:
    module = importlib.import_module(package)
    assert module.__file__ is not None
    assert Path(module.__file__).is_relative_to(ROOT)


def test_no_package_of_ours_takes_a_name_that_opacus_installs() -> None:
    assert not {"benchmarks", "examples"} & {path.name for path in ROOT.iterdir()}


def test_every_folder_with_code_is_a_package() -> None:
    missing = {str(path.parent) for path in SOURCES if not (path.parent / "__init__.py").exists()}
    assert not missing


def test_no_module_is_called_after_nothing() -> None:
    banned = {"utils", "helpers", "common", "base", "manager", "misc"}
    assert not [path for path in SOURCES if path.stem in banned]


def test_nothing_asks_the_time_but_the_system_clock() -> None:
    """`datetime.now` and `time.time` stand in one module only: privacy/clock.py or its like."""
    found = []
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in {"now", "utcnow", "today"}
                and isinstance(node.func.value, ast.Name)
                and node.func.value.id in {"datetime", "date"}
            ):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert {entry.split(":")[0] for entry in found} <= {"protocols/clock.py"}, found


def test_the_coordinator_starts_without_patient_data_tooling() -> None:
    """Import every coordinator module while none of it can be imported."""
    tooling = ("torch", "ibis", "duckdb", "presidio_analyzer", "opacus")
    script = (
        "import sys, importlib, pkgutil\n"
        f"for blocked in {tooling!r}: sys.modules[blocked] = None\n"
        "import coordinator\n"
        "for m in pkgutil.walk_packages(coordinator.__path__, 'coordinator.'):\n"
        "    importlib.import_module(m.name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_extras_exist_per_role() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {"node", "coordinator", "sim", "bfv", "dev"} <= set(extras)
