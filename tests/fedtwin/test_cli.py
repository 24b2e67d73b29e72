"""The command: data on stdout, words on stderr, meaning in the exit code."""

import resource
import subprocess
import sys
import tomllib
from pathlib import Path
from types import FunctionType

import pytest

from fedtwin.cli import _is_ours
from fedtwin.screen import Exit
from sim.world import write_world
from tests.fedtwin.conftest import Fedtwin

ROOT = Path(__file__).parents[2]
GROUPS = (
    (),
    ("coordinator",),
    ("coordinator", "researcher"),
    ("node",),
    ("node", "policy"),
    ("node", "audit"),
    ("query",),
    ("train",),
)
PROMISED = (
    "coordinator init", "coordinator serve", "coordinator invite", "coordinator nodes", "coordinator revoke",
    "coordinator researcher add", "coordinator status", "node join", "node ingest", "node sources",
    "node serve", "node status",
    "node doctor", "node policy init", "node policy show", "node budget", "node approve",
    "node withdraw", "node studies", "node audit verify", "node audit tail", "node quarantine", "node cohort",
    "node store set", "node store own", "node store show", "node store changed", "node vocabulary load",
    "node vocabulary show", "node vocabulary starter", "node map suggest", "node map review",
    "node map accept", "node map list", "node notes", "node load-genomes", "node score-genomes",
    "query count", "query breakdown", "query histogram", "query mean", "query contingency", "query incidence",
    "query survival", "query attrition", "query feasibility", "query preview", "query budget",
    "query validate", "train propose", "train run", "train list", "train show", "train stop",
    "train resume", "train export", "train check", "train report", "node evaluate", "demo",
)  # fmt: skip
HEAVY = ("torch", "ibis", "duckdb", "opacus", "presidio_analyzer", "flwr", "pyarrow")


def outside(*commands: tuple[str, ...], block: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    """Run commands, until one fails, in one process of its own where the modules in `block` are missing."""
    script = (
        f"import sys\nfor name in {block!r}: sys.modules[name] = None\n"
        "from fedtwin.cli import run\n"
        f"sys.exit(next((code for c in {commands!r} if (code := run(list(c)))), 0))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("command", PROMISED)
def test_every_promised_command_explains_itself(fedtwin: Fedtwin, command: str) -> None:
    said = fedtwin(*command.split(), "--help")
    assert said.code == Exit.OK
    assert "Usage" in said.out


@pytest.mark.parametrize("command", [c for c in PROMISED if not c.endswith("serve")])
def test_every_command_but_serve_takes_json(fedtwin: Fedtwin, command: str) -> None:
    assert "--json" in fedtwin(*command.split(), "--help").out


def test_help_says_what_exit_codes_mean(fedtwin: Fedtwin) -> None:
    assert "3 refused" in fedtwin("--help").out


def test_help_starts_within_half_a_second_and_loads_nothing_heavy() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert outside(("--help",), block=(*HEAVY, "grpc", "numpy")).returncode == Exit.OK
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # processor time, not the clock on the wall: the machine may be busy with something else
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5


def test_version_is_that_of_the_project(fedtwin: Fedtwin) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert fedtwin("--version").out.strip() == f"fedtwin {version}"


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_without_a_verb_is_a_usage_error(fedtwin: Fedtwin, group: tuple[str, ...]) -> None:
    assert fedtwin(*group).code == Exit.USAGE


def test_an_unknown_option_and_a_missing_file_are_usage_errors(fedtwin: Fedtwin) -> None:
    assert fedtwin("coordinator", "status", "--nonsense").code == Exit.USAGE
    assert fedtwin("query", "validate", "/no/such/file").code == Exit.USAGE


def test_coordinator_commands_work_without_patient_data_tooling(tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "consortium"))
    commands = (
        ("coordinator", "init", "--host", "127.0.0.1", *home),
        ("coordinator", "invite", "North", *home),
        ("coordinator", "researcher", "add", "ann", "--project", "demo", *home),
        ("coordinator", "nodes", "--json", *home),
        ("coordinator", "status", "--json", *home),
        ("train", "list", "--json", *home),
    )
    done = outside(*commands, block=("torch", "ibis", "duckdb", "opacus", "presidio_analyzer"))
    assert done.returncode == Exit.OK, done.stderr[-500:]


def test_words_of_an_error_are_shown_only_if_they_are_ours() -> None:
    def ours() -> None:
        raise ValueError("the name is taken")

    def quoting() -> None:
        float("Jane Roe")

    shown = []
    for function in (ours, quoting):
        lent = FunctionType(function.__code__, {"__name__": "fedtwin.lent", "__builtins__": __builtins__})
        try:
            lent()
        except ValueError as error:
            shown.append(_is_ours(error))
    assert shown == [True, False]


def test_a_command_without_its_extra_says_what_to_install(hospital: Path) -> None:
    done = outside(("node", "ingest", str(hospital), "--home", str(hospital)), block=("duckdb", "pyarrow"))
    assert done.returncode == Exit.USAGE
    assert "fedtwin[node]" in "".join(done.stderr.split())


def test_tables_without_texts_are_taken_in_without_what_reads_notes(hospital: Path, tmp_path: Path) -> None:
    (site,) = write_world(tmp_path / "world", seed=1, sizes=(40,)).hospitals
    home = ("--home", str(hospital))
    done = outside(
        ("node", "policy", "init", *home),
        ("node", "ingest", str(site.files), *home),
        block=("torch", "presidio_analyzer", "spacy", "opacus", "flwr"),
    )
    assert done.returncode == Exit.OK, done.stderr[-500:]
