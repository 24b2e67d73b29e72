"""What docs/deid.md shows is read by the code it is shown for."""

import re
from pathlib import Path

import pytest
import typer.main

from deid.evaluation import Report
from deid.structured import Action, Source, TableRules
from fedtwin.cli_deid import deid
from node.policy import Policy, starter

GUIDE = (Path(__file__).parents[2] / "docs" / "deid.md").read_text()


def test_every_command_is_in_the_guide_and_every_command_of_the_guide_exists() -> None:
    commands = set(typer.main.get_command(deid).commands)  # type: ignore[attr-defined]
    assert set(re.findall(r"fedtwin deid ([a-z]+)", GUIDE)) == commands


def test_every_option_of_the_guide_exists() -> None:
    group = typer.main.get_command(deid)
    options = {
        name
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for name in parameter.opts
    }
    assert set(re.findall(r"(?<![\w-])(--[a-z][a-z-]+)", GUIDE)) <= options


def test_the_rules_of_the_guide_are_rules(tmp_path: Path) -> None:
    (shown,) = re.findall(r"^```toml\n(.*?)^```", GUIDE, re.DOTALL | re.MULTILINE)
    (tmp_path / "rules.toml").write_text(shown)
    rules = TableRules.load(tmp_path / "rules.toml")
    assert rules.patient == "chart"
    assert rules.of(list(rules.columns), Source.TABLE)["zip"] is Action.ZIP3


def test_the_demand_of_the_guide_is_one() -> None:
    shown = GUIDE[GUIDE.index("    [deid]") :].partition("\n\n")[0].replace("    ", "")
    demand = Policy.parse(starter("cautious") + b"\n" + shown.encode()).deid
    assert demand is not None
    assert demand.min_char_recall == 0.99


@pytest.mark.parametrize("figure", re.findall(r"^\| `(\w+)`", GUIDE, re.MULTILINE))
def test_the_figures_of_the_guide_are_figures_of_the_report(figure: str) -> None:
    assert figure in {*Report.__dataclass_fields__, "surrogate", "tag", "redact"}
