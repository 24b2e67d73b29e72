"""What a result says follows from its answer: consistent figures, what was charged, how it is shown."""

import json
import math
import subprocess
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fedtwin.count_results import AttritionResult, BreakdownResult, CountResult, FeasibilityResult
from fedtwin.estimates import Estimate, odds_ratio, rate
from fedtwin.plots import save
from fedtwin.rate_results import ContingencyResult, MeanResult
from fedtwin.result import Result
from fedtwin.results import read
from fedtwin.time_results import IncidenceResult, SurvivalResult
from privacy.post_processing import CellNoise
from protocols.question import Mechanism
from protocols.statistic import (
    KINDS,
    MEAN_UNIT,
    UNIT,
    Attrition,
    Breakdown,
    By,
    Contingency,
    Count,
    Feasibility,
    Histogram,
    Incidence,
    Mean,
    OneValue,
    Statistic,
    Survival,
)
from tests.fedtwin.answers import OUTCOME, answered, question

ROOT = Path(__file__).parents[2]
HBA1C = OneValue(3004410)
QUESTIONS: dict[str, tuple[Statistic, list[int]]] = {
    "count": (Count(), [1234]),
    "breakdown": (Breakdown(By.SEX, total=True), [1234, 600, 630, 4]),
    "histogram": (Histogram(HBA1C, (4.0, 6.0, 8.0)), [10, 200, 300, 40, 500]),
    "mean": (Mean(HBA1C, 4, 14), [MEAN_UNIT * 500, -MEAN_UNIT * 200, MEAN_UNIT * 125]),
    "contingency": (Contingency(OUTCOME), [200, 1000, 800, 9000]),
    "incidence": (Incidence(OUTCOME, 2018, 2019), [UNIT * 50, UNIT * 60, 724 * 2000, 724 * 1900]),
    "survival": (Survival(OUTCOME, 90, 30), [50, 40, 30, 20, 20, 20, 700]),
    "attrition": (Attrition(), [400, 300, 200]),
    "feasibility": (Feasibility(100), [2]),
}


def result_of(kind: str, *, seed: int = 5, **changes: Any) -> Result:
    statistic, total = QUESTIONS[kind]
    terms = {name: changes.pop(name) for name in ("epsilon", "mechanism", "sites") if name in changes}
    return read(answered(question(statistic, **terms), total, seed=seed, **changes))


def test_there_is_a_result_for_each_statistic() -> None:
    assert set(QUESTIONS) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_says_what_it_cost_and_how_it_came_about(kind: str) -> None:
    found = result_of(kind, sites=2)
    assert (found.epsilon, found.delta, found.releases, found.sites) == (1.0, 1e-6, 1, 3)
    assert "2 hospitals" in found.unit_of_privacy
    assert found.mechanism.startswith("discrete Gaussian")
    value = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert value["kind"] == kind
    assert value["charged"] == {"epsilon": 1.0, "delta": 1e-6, "releases": 1}
    assert list(value["cells"]) == list(found.raw.labels)
    assert value["contributors"] == 3
    for words in ("epsilon 1", "at most 2 hospitals", "3 of 3"):
        assert words in repr(found)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mechanism", list(Mechanism))
def test_every_result_stays_within_what_can_be_when_the_noise_is_all_there_is(
    kind: str, mechanism: Mechanism
) -> None:
    statistic, total = QUESTIONS[kind]
    asked = question(statistic, epsilon=0.01, mechanism=mechanism)
    for seed in range(20):
        found = read(answered(asked, [0] * len(total), seed=seed))
        json.dumps(found.to_json(), allow_nan=False)
        repr(found)
        for row in found.table():
            figures = [cell for name, cell in row.items() if name in ("estimate", "patients", "survival")]
            assert all(not isinstance(cell, float) or cell >= 0.0 for cell in figures)
            low, high = row.get("low", 0.0), row.get("high", 0.0)
            assert isinstance(low, float)
            assert isinstance(high, float)
            assert low <= high


def test_a_breakdown_with_its_total_adds_up() -> None:
    found = result_of("breakdown")
    assert isinstance(found, BreakdownResult)
    assert sum(cell.value or 0.0 for cell in found.cells) == pytest.approx(found.total.value)
    measured = found.raw.estimates[0]
    apart = measured - sum(found.raw.estimates[1:])
    assert found.total.value == pytest.approx(measured - apart / 4)  # three cells and the total share it


def test_a_breakdown_of_hospitals_adds_up_to_those_that_answered() -> None:
    asked = question(Breakdown(By.SITE_COUNT_BAND, edges=(10, 100)))
    found = read(answered(asked, [0, 1, 2], seed=1))
    assert isinstance(found, BreakdownResult)
    assert sum(cell.value or 0.0 for cell in found.cells) == pytest.approx(3)
    assert found.what == "hospitals"
    assert all(0 <= cell.low <= cell.high <= 3 for cell in found.cells)


def test_a_survival_curve_and_an_attrition_table_only_fall() -> None:
    for seed in range(10):
        survival = result_of("survival", epsilon=0.2, seed=seed)
        attrition = result_of("attrition", epsilon=0.2, seed=seed)
        assert isinstance(survival, SurvivalResult)
        assert isinstance(attrition, AttritionResult)
        for figures in (survival.curve, attrition.remaining):
            values = [figure.value or 0.0 for figure in figures]
            assert all(before >= after >= 0.0 for before, after in pairwise(values))


def test_figures_without_noise_to_speak_of_are_those_worked_out_by_hand() -> None:
    wide = {kind: result_of(kind, epsilon=64.0) for kind in KINDS}
    odds, incidence, mean, curve = (wide[k] for k in ("contingency", "incidence", "mean", "survival"))
    assert isinstance(odds, ContingencyResult)
    assert isinstance(incidence, IncidenceResult)
    assert isinstance(mean, MeanResult)
    assert isinstance(curve, SurvivalResult)
    assert odds.odds_ratio.value == pytest.approx(200 * 9000 / (1000 * 800), rel=0.01)
    years = 2000 * 365 / 365.25
    assert incidence.periods[0].person_years.value == pytest.approx(years, rel=0.01)
    assert incidence.periods[0].rate.value == pytest.approx(1000 * 50 / years, rel=0.02)
    assert mean.mean.value == pytest.approx(9 - 0.4 * 5, abs=0.02)
    assert mean.sd.value == pytest.approx(5 * math.sqrt(0.25 - 0.16), abs=0.1)
    expected = (1 - 50 / 880) * (1 - 40 / 810) * (1 - 30 / 750)
    assert curve.curve[-1].value == pytest.approx(expected, abs=0.005)
    assert curve.days == (30, 60, 90)


def test_two_releases_are_charged_as_their_composition_and_a_repeat_as_nothing() -> None:
    once, twice = result_of("count").charged, result_of("count", releases=2).charged
    assert (once.epsilon, once.releases) == (1.0, 1)
    assert 1.3 < twice.epsilon < 2.0  # composed, not added
    pure = result_of("count", releases=2, mechanism=Mechanism.LAPLACE).charged
    assert (pure.epsilon, pure.delta) == (2.0, 0.0)
    again = result_of("count", cached=True)
    assert (again.charged.epsilon, again.charged.releases) == (0.0, 0)
    assert "nothing: answered before" in repr(again)


def test_a_result_names_the_rules_of_its_cohort() -> None:
    statistic, total = QUESTIONS["attrition"]
    found = read(answered(question(statistic), total, seed=1), rules=("has a value", "is adult"))
    assert [row["after"] for row in found.table()] == ["before any rule", "has a value", "is adult"]


def test_feasibility_lies_between_none_and_all_hospitals() -> None:
    for seed in range(20):
        found = result_of("feasibility", epsilon=0.1, seed=seed)
        assert isinstance(found, FeasibilityResult)
        assert 0.0 <= found.ci95[0] <= found.estimate <= found.ci95[1] <= 3.0


def test_a_count_keeps_the_unbiased_answer_beside_what_is_shown() -> None:
    statistic = Count()
    below = [
        found
        for seed in range(30)
        if (found := read(answered(question(statistic), [0], seed=seed))).raw.estimate < 0
    ]
    assert below
    for found in below:
        assert isinstance(found, CountResult)
        assert found.estimate == 0.0
        assert found.to_json()["cells"]["patients"] < 0


def test_an_odds_ratio_is_unknown_where_a_cell_is_hidden() -> None:
    noise = CellNoise(5.0, 1.96, 0.95)
    found = odds_ratio((3.0, 100.0, -2.0, 50.0), noise=noise)
    assert (found.value, found.low, found.high) == (None, 0.0, math.inf)
    open_above = odds_ratio((200.0, 100.0, 5.0, 500.0), noise=noise)  # 5 ± 9.8 may be 0
    assert open_above.high == math.inf
    assert 0.0 < open_above.low < (open_above.value or 0.0)
    assert open_above.to_json()["ci95"][1] is None


def test_a_rate_over_hidden_person_time_is_unknown() -> None:
    found = rate("rate", 5.0, -1.0, events_deviation=2.0, time_deviation=3.0, factor=1.96, per=1000.0)
    assert found.value is None
    assert found.high == math.inf


def test_an_interval_is_stretched_to_hold_its_figure() -> None:
    found = Estimate.around("x", 0.0, (-9.0, -1.0), lowest=0.0)
    assert (found.low, found.high) == (0.0, 0.0)
    assert Estimate.around("x", 2.0, (3.0, 5.0)).ci95 == (2.0, 5.0)


class Page(HTMLParser):
    """Checks that every tag is closed in turn, and remembers tags and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen |= {tag, *(f"@{name}" for name, _ in attrs)}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("kind", KINDS)
def test_a_notebook_view_is_small_whole_and_runs_nothing(kind: str) -> None:
    found = result_of(kind)
    html = found._repr_html_()
    page = Page(html)
    assert page.seen <= {
        "div", "p", "strong", "table", "thead", "tbody", "tr", "th", "td", "br", "@style",
    }  # fmt: skip
    assert len(html) < 10_000
    assert found.headline in page.text
    assert "#" not in html  # no fixed colour: readable on light and dark pages


def test_a_notebook_view_escapes_what_a_file_calls_its_rules() -> None:
    statistic, total = QUESTIONS["attrition"]
    hostile = "<script>alert(1)</script>"
    found = read(answered(question(statistic), total, seed=1), rules=(hostile, '"><img src=x>'))
    page = Page(found._repr_html_())
    assert not {"script", "img", "@src"} & page.seen
    assert hostile in page.text


def test_long_tables_are_cut_in_a_view_and_whole_in_the_table() -> None:
    asked = question(Histogram(HBA1C, tuple(float(edge) for edge in range(101))))
    found = read(answered(asked, [5] * 103, seed=1))
    assert len(found.table()) == 104
    assert "and 64 more" in repr(found)
    assert "and 64 more" in Page(found._repr_html_()).text


@pytest.mark.parametrize("kind", KINDS)
def test_every_result_draws_itself(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "picture.svg"
    save(result_of(kind).plot(), file)
    assert "<svg" in file.read_text()


def test_a_result_draws_on_axes_that_it_is_given() -> None:
    from matplotlib.figure import Figure

    left, right = Figure().subplots(1, 2)
    assert result_of("survival").plot(left) is left
    assert left.lines
    assert not right.lines


def test_without_matplotlib_a_picture_names_the_extra() -> None:
    script = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from tests.fedtwin.test_results import result_of\n"
        "try: result_of('count').plot()\n"
        "except ValueError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "fedtwin[plot]" in done.stdout
