"""`fedtwin query` at a consortium of four hospitals: real TLS, real stores, the command as people type it."""

import contextlib
import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest

from coordinator.channel import open_channel
from coordinator.profile import Profile
from fedtwin import connect
from fedtwin.cli_query import EXAMPLES, breakdown, histogram, mean
from fedtwin.screen import Exit
from protocols import statistic_form
from protocols.refusal import RefusalCode, Refused
from protocols.statistic import KINDS, Breakdown, By, Histogram, Mean, OneValue, Which
from protocols.wire import fedtwin_pb2 as pb
from protocols.wire import fedtwin_pb2_grpc
from tests.fedtwin.conftest import EVERYBODY, OURS, Fedtwin
from tests.network.consortium import PROJECT

TRUE = 107 + 207 + 307 + 407  # patients with AF; 50 more at each hospital have none
TERMS = ("--epsilon", "1", "--max-sites-per-patient", "1", "--project", PROJECT)
SD = 6  # of one cell at these terms is 4.9


@pytest.fixture
def query(fedtwin: Fedtwin, asking: Path) -> Callable[..., Any]:
    """Run `fedtwin query VERB FILE …` with the researcher's profile."""

    def command(verb: str, *arguments: object) -> Any:
        with contextlib.chdir(asking):
            return fedtwin("query", verb, *arguments, "--profile", asking / "researcher")

    return command


def test_a_count_prints_a_table_its_cost_and_whom_it_protects(query: Callable[..., Any]) -> None:
    said = query("count", "ours.json", *TERMS)
    assert said.code == Exit.OK, said.err
    estimate = int(re.search(r"([\d,]+) patients \(95 % interval", said.out)[1].replace(",", ""))  # type: ignore[index]
    assert abs(estimate - TRUE) < 6 * SD
    for words in ("charged:", "epsilon 1, delta 1e-06", "one patient", "4 of 4"):
        assert words in said.out


def test_a_repeat_is_free_and_says_so_however_the_file_is_written(
    query: Callable[..., Any], asking: Path
) -> None:
    first = query("breakdown", "ours.json", "--by", "sex", *TERMS, "--json").json
    turned = {key: OURS[key] for key in reversed(OURS)}
    (asking / "turned.json").write_text(json.dumps(turned, indent=4))
    before = query("budget", "--project", PROJECT, "--json").json["epsilon"]
    again = query("breakdown", "turned.json", "--by", "sex", *TERMS, "--json")
    assert again.json["cells"] == first["cells"]
    assert again.json["charged"] == {"epsilon": 0.0, "delta": 0.0, "releases": 0}
    assert "nothing was charged" in again.err
    assert query("budget", "--project", PROJECT, "--json").json["epsilon"] == before


def test_a_breakdown_is_near_the_truth_and_adds_up(query: Callable[..., Any]) -> None:
    found = query(
        "breakdown", "ours.json", "--by", "age_band", "--edges", "40,80", "--total", *TERMS, "--json"
    ).json
    cells = {name: cell["value"] for name, cell in found["consistent"].items()}
    assert abs(cells["40 to 79"] - TRUE) < 10 * SD
    assert sum(cells.values()) == pytest.approx(found["total"]["value"])


def test_survival_writes_a_picture_and_a_curve(query: Callable[..., Any], asking: Path) -> None:
    said = query(
        "survival", "everybody.json", "--outcome", "atlas.json", "--horizon-days", 60, "--interval-days", 30,
        *TERMS, "--json", "--plot", "curve.svg",
    )  # fmt: skip
    assert said.code == Exit.OK, said.err
    assert [row["until day"] for row in said.json["curve"]] == ["30", "60"]
    assert "<svg" in (asking / "curve.svg").read_text()
    assert "curve.svg" in said.err


def test_an_atlas_export_is_counted_as_it_is_with_laplace_noise(query: Callable[..., Any]) -> None:
    found = query("count", "atlas.json", *TERMS, "--mechanism", "laplace", "--json").json
    assert abs(found["estimate"] - TRUE) < 30
    assert found["delta"] == 0.0
    assert "Laplace" in found["mechanism"]


def test_attrition_names_the_criteria_in_the_order_of_the_file(query: Callable[..., Any]) -> None:
    found = query("attrition", "ours.json", *TERMS, "--json").json
    assert [row["after"] for row in found["remaining"]] == ["before any rule", "sex male", "age 40 or more"]
    assert all(abs(row["value"] - TRUE) < 10 * SD for row in found["remaining"])


def test_a_preview_is_free_and_says_the_error_that_comes(query: Callable[..., Any]) -> None:
    terms = ("--epsilon", "0.5", "--max-sites-per-patient", "1", "--project", PROJECT)
    before = query("budget", "--project", PROJECT, "--json").json
    seen = query("feasibility", "ours.json", "--at-least", 100, *terms, "--preview", "--json").json
    assert query("budget", "--project", PROJECT, "--json").json == before
    found = query("feasibility", "ours.json", "--at-least", 100, *terms, "--json").json
    assert seen["cells"] == list(found["cells"])
    assert seen["expected_error_95"]["hospitals"] == pytest.approx(
        1.96 * found["standard_deviation"], rel=1e-3
    )
    after = query("budget", "--project", PROJECT, "--json").json
    assert after["epsilon"] == pytest.approx(seen["project"]["epsilon_after"])
    assert after["releases"] == before["releases"] + 1
    assert after["by_kind"]["feasibility"]["releases"] == 1


def test_preview_and_budget_print_tables(query: Callable[..., Any], asking: Path) -> None:
    (asking / "statistic.json").write_text('{"kind": "breakdown", "by": "sex"}')
    said = query("preview", "ours.json", "--statistic", "statistic.json", *TERMS)
    assert said.code == Exit.OK, said.err
    assert "breakdown: 3 cells, nothing was spent" in said.out
    assert "laplace" in said.out
    assert PROJECT in query("budget", "--project", PROJECT).out


def test_python_asks_the_same(asking: Path) -> None:
    terms: dict[str, Any] = {"epsilon": 1.0, "project": PROJECT, "max_sites_per_patient": 1}
    with connect(asking / "researcher") as client:
        found = client.contingency(OURS, other=asking / "everybody.json", **terms)
        assert abs((found.cells[0].value or 0.0) - TRUE) < 10 * SD
        split = client.breakdown(asking / "ours.json", by="year", first_year=2019, last_year=2021, **terms)
        assert [cell.name for cell in split.cells] == ["2019", "2020", "2021", "other years"]
        assert abs((split.cells[1].value or 0.0) - TRUE) < 10 * SD
        cases = client.incidence(EVERYBODY, outcome=OURS, first_year=2020, last_year=2020, **terms)
        assert len(cases.periods) == 1
        with pytest.raises(Refused) as refused:
            client.budget("not-mine")
    assert refused.value.code is RefusalCode.NOT_ALLOWED


def test_a_refusal_exits_with_its_own_code(query: Callable[..., Any]) -> None:
    said = query("count", "ours.json", "--epsilon", "1", "--project", "not-mine", "--json")
    assert said.code == Exit.REFUSED
    assert said.json["refused"] == "not-allowed"


@pytest.mark.parametrize(
    "event",
    ["{", '{"kind": "gaussian"}', '{"kind": "pure", "epsilon": -1.0, "count": 1}', "[" * 500, "1" * 2000],
)
def test_an_event_that_is_none_is_refused_by_the_mirror(asking: Path, event: str) -> None:
    profile = Profile.load(asking / "researcher")
    with open_channel(profile) as channel, pytest.raises(grpc.RpcError) as refused:
        fedtwin_pb2_grpc.ResearchStub(channel).Budget(
            pb.BudgetRequest(project=PROJECT, delta=1e-6, next=event), timeout=10
        )
    assert refused.value.details() == "malformed"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("breakdown", "ours.json", "--by", "shoe_size", *TERMS), "shoe_size"),
        (("breakdown", "ours.json", "--by", "age_band", "--edges", "40;80", *TERMS), "commas"),
        (("breakdown", "ours.json", "--by", "age_band", *TERMS), "edges"),
        (("breakdown", "ours.json", "--by", "age_band", "--edges", "80,40", *TERMS), "ascending"),
        (("mean", "ours.json", "--concept", "1", "--lower", "4", "--upper", "4", *TERMS), "above lower"),
        (("count", "ours.json", "--epsilon", "0"), "epsilon"),
        (("count", "ours.json", *TERMS, "--mechanism", "laplace", "--delta", "0.001"), "delta"),
        (("count", "ours.json", *TERMS, "--plot", "curve.doc"), ".svg"),
        (("count", "ours.json", *TERMS, "--plot", "nowhere/curve.svg"), "no such folder"),
        (("survival", "ours.json", "--outcome", "no.json", *TERMS), "no.json"),
    ],
)
def test_a_wrong_option_is_named_before_anybody_is_asked(
    query: Callable[..., Any], arguments: tuple[str, ...], words: str
) -> None:
    before = query("budget", "--project", PROJECT, "--json").json["releases"]
    said = query(*arguments)
    assert said.code == Exit.USAGE
    assert words in said.err
    assert query("budget", "--project", PROJECT, "--json").json["releases"] == before


def test_validate_takes_both_forms_and_names_their_rules(
    query: Callable[..., Any], fedtwin: Fedtwin, asking: Path
) -> None:
    ours = fedtwin("query", "validate", asking / "ours.json", "--json").json
    assert (ours["valid"], ours["form"], ours["rules"]) == (True, "fedtwin", ["sex male", "age 40 or more"])
    atlas = fedtwin("query", "validate", asking / "atlas.json", "--json").json
    assert (atlas["valid"], atlas["form"]) == (True, "circe")
    assert "1. sex male" in fedtwin("query", "validate", asking / "ours.json").err
    (asking / "wrong.json").write_text('{"include": [{"kind": "age", "min": 3}]}')
    wrong = fedtwin("query", "validate", asking / "wrong.json", "--json")
    assert wrong.code == Exit.USAGE
    assert wrong.json["path"] == "include[0].min"


def test_options_become_the_statistic_that_they_name() -> None:
    assert statistic_form.parse(breakdown("age_band", edges="18,65", total=True)) == Breakdown(
        By.AGE_BAND, (18, 65), total=True
    )
    assert statistic_form.parse(breakdown("year", first_year=2018, last_year=2020)) == Breakdown(
        By.YEAR, first_year=2018, last_year=2020
    )
    value = OneValue(3004410, descendants=False, unit=8554, which=Which.FIRST)
    assert statistic_form.parse(
        histogram(3004410, "4,6.5", descendants=False, unit=8554, which="first")
    ) == Histogram(value, (4.0, 6.5))
    found = statistic_form.parse(mean(3004410, 4, 14, window=(-365, 0)))
    assert isinstance(found, Mean)
    assert found.value.window is not None
    assert (found.value.window.from_days, found.lower, found.upper) == (-365, 4.0, 14.0)


@pytest.mark.parametrize("example", EXAMPLES.values(), ids=KINDS)
def test_the_example_of_each_command_is_in_its_help_and_parses(
    fedtwin: Fedtwin, example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = shlex.split(example)
    told = fedtwin("query", words[0], "--help").out
    assert " ".join(example.split()) in " ".join(told.split())
    assert "--json" in told
    for name in ("cohort.json", "other.json", "outcome.json", "atlas.json"):
        (tmp_path / name).write_text(json.dumps(OURS))
    monkeypatch.chdir(tmp_path)
    said = fedtwin("query", *words, "--profile", tmp_path / "none")
    assert "no profile.toml" in said.err  # all options were understood: only the credentials are missing


def test_every_statistic_has_a_command() -> None:
    assert [form.__name__ for form in EXAMPLES] == list(KINDS)
