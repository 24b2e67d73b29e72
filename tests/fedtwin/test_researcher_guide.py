"""The researcher's guide, run as it stands at four hospitals: commands, Python, the table of errors."""

import contextlib
import json
import re
import shlex
from pathlib import Path

import pytest

from fedtwin.cli_query import EXAMPLES
from fedtwin.preview import expected_errors
from protocols.question import Mechanism
from protocols.statistic import Count
from tests.fedtwin.answers import question
from tests.fedtwin.conftest import EVERYBODY, OURS, Fedtwin
from tests.network.consortium import PROJECT

GUIDE = (Path(__file__).parents[2] / "docs" / "researcher.md").read_text()


def blocks(language: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    return [text for named, text in fenced if named == language]


COMMANDS = [line for block in blocks("") for line in block.splitlines() if line.startswith("fedtwin ")]


@pytest.fixture(scope="module")
def desk(asking: Path) -> Path:
    """A researcher's folder with the files that the guide names. The project is called as it is here."""
    (asking / "ada-profile").symlink_to(asking / "researcher")
    (asking / "cohort.json").write_text(blocks("json")[0])
    (asking / "other.json").write_text(json.dumps(OURS))
    (asking / "outcome.json").write_text(json.dumps(EVERYBODY))
    return asking


def test_every_statistic_is_in_the_guide() -> None:
    asked = {line.split()[2] for line in COMMANDS}
    assert {form.__name__ for form in EXAMPLES} | {"budget", "validate"} <= asked


def test_the_commands_of_the_guide_run(desk: Path, fedtwin: Fedtwin) -> None:
    for line in COMMANDS:
        words = shlex.split(line.replace("--project stroke", f"--project {PROJECT}"))
        more = [] if words[2] == "validate" else ["--profile", "ada-profile"]
        with contextlib.chdir(desk):
            said = fedtwin(*words[1:], *more)
        assert said.code == 0, f"{line}\n{said.err}"
    assert (desk / "km.svg").exists()


def test_the_python_of_the_guide_runs(desk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (snippet,) = blocks("python")
    with contextlib.chdir(desk):
        exec(snippet.replace('"stroke"', repr(PROJECT)), {})
    assert "nothing was spent" in capsys.readouterr().out
    assert (desk / "km.png").exists()


@pytest.mark.parametrize("mechanism", list(Mechanism))
@pytest.mark.parametrize(("sites", "words"), [(1, "one hospital"), (2, "two hospitals")])
def test_the_errors_in_the_guide_are_those_of_the_plan(mechanism: Mechanism, sites: int, words: str) -> None:
    (row,) = [line for line in GUIDE.splitlines() if line.startswith(f"| {words}") and mechanism in line]
    shown = [int(figure) for figure in re.findall(r"± (\d+)", row)]
    for epsilon, figure in zip((0.2, 0.5, 1.0), shown, strict=True):
        asked = question(Count(), epsilon=epsilon, mechanism=mechanism, sites=sites)
        assert figure == pytest.approx(expected_errors(asked, sites=4, tolerance=1)["patients"], abs=0.5)
