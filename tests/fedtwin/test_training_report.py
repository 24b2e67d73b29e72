"""The report of a run: what is on the page, what is not, and that nothing on it runs or is fetched."""

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from statsmodels.stats.proportion import proportion_confint

from coordinator.flower.run_folder import STOPPED
from fedtwin import model_package, training_report_local
from fedtwin.model_export import packaged
from fedtwin.model_package import ModelPackage
from fedtwin.node_evaluation_file import FORMAT
from fedtwin.screen import Exit
from fedtwin.svg import Axis, Series, bars, lines, number
from fedtwin.training_report import Comparison, report
from node.features.table import FeatureTable
from node.training import evaluation
from privacy.exact_result import result
from privacy.rng import SecureBits
from privacy.validation import Metric
from protocols.clock import FixedClock
from protocols.study import Study
from sim.federation import Noise, federate
from tests.fedtwin.conftest import Fedtwin
from tests.fedtwin.trained import RUN, trained
from tests.protocols.exact_forms import exact_form, exact_study
from tests.protocols.study_forms import fusion_form, study_form
from tests.sim.test_exact_models import days, hospitals, yes_no

Outcome = Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float64]]
CLOCK = FixedClock(datetime(2031, 5, 1, tzinfo=UTC))
SIMULATED = Comparison(
    metric="Accuracy",
    why="these hospitals do not exist",
    rows=[("local only", 0.71, 0.75, "not private"), ("pooled", 0.82, 0.88, "not <private>")],
)


def package(home: Path, form: dict[str, Any], **status: Any) -> ModelPackage:
    folder = trained(home, Study.from_json(form))
    found = folder.status()
    assert found is not None
    folder.write_status(replace(found, **status))
    return model_package.opened(packaged(RUN, home=home, clock=CLOCK))


def evaluated(model: ModelPackage) -> dict[str, Any]:
    rng = np.random.default_rng(3)
    outputs, y = rng.normal(size=(80, 1)), rng.integers(0, 2, 80).astype(np.float64)
    outcome = model.study.outcome
    few = np.arange(80) < 12
    return {
        "format": FORMAT, "stays": "not to leave the hospital", "study": model.study.name,
        "plan_hash": model.plan_hash, "parameters_digest": model.card["parameters_digest"],
        "made_at": "2031-05-01T00:00:00+00:00", "data": "0" * 64, "task": "binary", "own_part": False,
        "held_out_share": 0.2, "overall": evaluation.performance(outcome, outputs, y),
        "calibration": evaluation.calibration(outcome, outputs, y),
        "groups": {"sex": list(evaluation.by_group(outcome, outputs, y, [("female", few), ("male", ~few)]))},
    }  # fmt: skip


class Page(HTMLParser):
    """Tags, what they name from elsewhere, and text; it raises if tags do not close."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.elsewhere: list[str] = []
        self.words = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.elsewhere += [v or "" for k, v in attrs if k in ("src", "href", "action") or k.startswith("on")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += f" {data}"


def test_the_page_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    model = package(tmp_path, study_form())
    page = Page(report(model, local=evaluated(model), simulated=SIMULATED))
    assert "script" not in page.tags
    assert page.elsewhere == []
    assert "svg" in page.tags
    assert "not <private>" in page.words  # escaped, so it is text
    assert "url(" not in report(model)


def test_the_page_says_what_was_spent_and_what_nobody_knows(tmp_path: Path) -> None:
    model = package(tmp_path, study_form())
    said = Page(report(model)).words
    assert f"ε {model.card['privacy']['epsilon']:.3f}" in said
    assert "the plan bought no figures of it" in said
    assert "exact figures never leave a hospital" in said
    assert "nobody may hold them" in said
    assert "For this hospital" not in said
    assert "deadline" in said
    assert "n-abab" not in said  # the hospital that fell out
    for name in model.study.columns:
        assert name in said  # the weights


def test_figures_of_a_hospital_make_the_page_its_own(tmp_path: Path) -> None:
    model = package(tmp_path, study_form())
    found = evaluated(model)
    said = Page(report(model, local=found)).words
    assert "For this hospital’s own eyes." in said
    assert "not to leave the hospital" in said
    assert f"{found['overall']['auc']:.3f}" in said
    assert "(few)" in said
    with pytest.raises(ValueError, match="another model"):
        report(model, local=found | {"parameters_digest": "0" * 64})


def test_looks_at_the_model_are_shown_with_their_noise(tmp_path: Path) -> None:
    looks = {"every": 1, "fraction": 0.1, "share": 0.1, "loss_bound": 2.0, "patience": 0}
    metrics = (Metric(1, "loss", 0.61, 0.04), Metric(2, "loss", 0.5, 0.04))
    model = package(tmp_path, study_form(validation=looks), metrics=metrics, best_round=2)
    page = report(model)
    said = Page(page).words
    assert "The model is that of round 2" in said
    assert "bought no figures" not in said
    assert page.count('class="error"') == 2
    plain = package(tmp_path / "plain", study_form(validation=looks))
    assert model.card["privacy"]["epsilon"] > plain.card["privacy"]["epsilon"]  # looks cost


LOCAL = {
    "local_steps": 5, "sampling_rate": 0.1, "aggregator": "fedadam", "server_learning_rate": 0.1,
    "update_clip": 1.0,
}  # fmt: skip


def locally(**changes: Any) -> dict[str, Any]:
    form = study_form(local=LOCAL, **changes)
    form["training"]["mode"] = "local"
    return form


def in_one_sum(**changes: Any) -> dict[str, Any]:
    form = study_form(training={"mode": "one-shot", "train_fraction": 0.8}, **changes)
    del form["privacy"]["clip_norm"]
    return form


@pytest.mark.parametrize(
    "form",
    [
        fusion_form("attention"),
        study_form(training__sampling_rate=0.2),
        study_form(clipping={"quantile": 0.5, "learning_rate": 0.2, "share": 0.02}),
        study_form(study__local="intercept", clipping={"quantile": 0.5}),
        locally(),
        locally(study__local="intercept"),
        in_one_sum(),
        in_one_sum(validation={"every": 1, "fraction": 0.1, "share": 0.2, "loss_bound": 2.0, "patience": 0}),
        study_form(study__model="mlp", study__hidden=[3]),
        study_form(study__local="intercept"),
        exact_form("logistic"),
        exact_form("kaplan-meier"),
    ],
)
def test_every_kind_of_plan_has_a_page_and_a_card(tmp_path: Path, form: dict[str, Any]) -> None:
    model = package(tmp_path, form)
    page = Page(report(model))
    assert "The plan" in page.words
    if model.study.exact is not None:
        assert model.card["privacy"]["epsilon"] is None
        assert "no noise was added" in page.words
        assert "Noise was added" not in page.words
        return
    assert model.card["privacy"]["epsilon"] <= model.study.privacy.epsilon
    assert ("Weights" in page.words) == (len(model.study.layout) == 1)
    x = np.zeros((3, len(model.study.columns)), dtype=np.float32)
    rows = FeatureTable(np.arange(3), x, np.ones(x.shape, dtype=bool), np.zeros(3, dtype=np.float32))
    assert model.predict(rows).shape == (3,)


@pytest.mark.parametrize(("model", "outcome"), [("logistic", yes_no), ("kaplan-meier", days)])
def test_the_result_of_an_exact_study_is_on_its_page(tmp_path: Path, model: str, outcome: Outcome) -> None:
    study = exact_study(model) if model == "kaplan-meier" else exact_study(model, columns=4)
    tables = hospitals(3, outcome, columns=len(study.columns))
    run = federate(study, tables, noise=Noise.SHARES, bits=SecureBits())
    trained(tmp_path, study, model=run.params)
    package = model_package.opened(packaged(RUN, home=tmp_path, clock=CLOCK))
    text = report(package)
    page, found = Page(text), result(study, run.params)
    assert f"{found.people:,} people of 3 hospitals" in page.words
    assert "norm of a step" not in page.words  # of a sum without noise
    assert all(record["sum_norm"] is None for record in package.card["rounds"])
    for one in found.coefficients:
        assert f"{one.estimate:.4f}" in page.words
    assert ("free of the outcome" in page.words) == (model == "kaplan-meier")
    assert (
        "bought no figures" not in page.words
    )  # there are none to buy, and its result is that of all records
    assert "in one place would reach" not in page.words
    assert "hold it against its own patients" in page.words


def test_a_run_that_stopped_is_reported_as_far_as_it_came(
    fedtwin: Fedtwin, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained(tmp_path, Study.from_json(study_form()), state=STOPPED, rounds=1)
    monkeypatch.chdir(tmp_path)
    said = fedtwin("train", "report", RUN, "--home", tmp_path, "--json")
    assert said.json["stays_here"] is False
    page = Page((tmp_path / f"{RUN}-report.html").read_text())
    assert "stopped: 1 of 2 rounds" in page.words


def test_a_hospital_makes_its_page_from_the_package(fedtwin: Fedtwin, tmp_path: Path) -> None:
    trained(tmp_path, Study.from_json(study_form()))
    model_package.write(packaged(RUN, home=tmp_path, clock=CLOCK), tmp_path / "p.zip")
    found = evaluated(model_package.read(tmp_path / "p.zip"))
    (tmp_path / "eval.json").write_text(json.dumps(found))
    to = tmp_path / "page.html"
    said = fedtwin("train", "report", tmp_path / "p.zip", "--local", tmp_path / "eval.json", "--to", to)
    assert said.code == Exit.OK
    assert "must not leave" in " ".join(said.err.split())
    assert to.stat().st_mode & 0o077 == 0
    (tmp_path / "eval.json").write_text(json.dumps(found | {"script": "<script>"}))
    said = fedtwin("train", "report", tmp_path / "p.zip", "--local", tmp_path / "eval.json", "--to", to)
    assert said.code == Exit.USAGE


def test_a_chart_keeps_its_points_inside_and_leaves_empty_lines_out() -> None:
    drawn = lines(
        [Series("a", [(1.0, -3.0), (2.0, 40.0)]), Series("none", [])], x=Axis("x"), y=Axis("y"), title="t"
    )
    points = re.findall(r"([\d.]+),([\d.]+)", re.findall(r'points="([^"]*)"', drawn)[0])
    assert all(52 <= float(x) <= 446 and 14 <= float(y) <= 206 for x, y in points)
    assert float(points[0][1]) > float(points[1][1])  # the smaller value lies lower
    assert "none" not in drawn
    assert lines([Series("none", [])], x=Axis("x"), y=Axis("y"), title="t") == ""
    assert lines([Series("", [(1.0, 2.0)])], x=Axis("x", whole=True), y=Axis("y", low=0.0), title="t")


@pytest.mark.parametrize(("share", "patients"), [(0.0, 15), (1.0, 15), (0.3, 40), (0.5, 1)])
def test_a_bin_has_the_interval_of_another_library(share: float, patients: int) -> None:
    below, above = training_report_local._wilson(share, patients)
    low, high = proportion_confint(share * patients, patients, method="wilson")
    assert (share - below, share + above) == pytest.approx((max(low, 0.0), min(high, 1.0)), abs=1e-6)
    assert above - below != pytest.approx(0.0) or share == 0.5


def test_error_bars_of_shares_stay_within_the_chart(tmp_path: Path) -> None:
    trained(tmp_path, Study.from_json(study_form()))
    model = model_package.opened(packaged(RUN, home=tmp_path, clock=CLOCK))
    text = report(model, local=evaluated(model))
    bars_of_error = re.findall(r'class="error" d="M[\d.]+ (-?[\d.]+)V(-?[\d.]+)"', text)
    assert len(bars_of_error) == 5  # of 80 patients: bins of 15 or more
    assert all(14 <= float(end) <= 206 for one in bars_of_error for end in one)


def test_bars_go_both_ways_from_zero() -> None:
    drawn = bars([("up", 2.0), ("down", -1.0)], title="t")
    (up, down) = re.findall(r'class="(\w+)" x="([\d.]+)" y="\d+" width="([\d.]+)"', drawn)
    assert (up[0], down[0]) == ("bar", "minus")
    assert float(down[1]) + float(down[2]) == pytest.approx(float(up[1]), abs=0.2)
    assert float(up[2]) == pytest.approx(2 * float(down[2]), abs=0.3)
    assert bars([], title="t") == ""


@pytest.mark.parametrize(
    ("value", "shown"), [(0.0, "0"), (12345.6, "12346"), (1e-7, "1e-07"), (-0.5, "-0.5")]
)
def test_numbers_are_for_people(value: float, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    model = package(tmp_path, study_form())
    (tmp_path / "page.html").write_text(report(model, local=evaluated(model), simulated=SIMULATED))
    with tempfile.TemporaryDirectory() as profile:  # it takes a moment to let go of
        done = subprocess.run(
            [
                "chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}",
                "--dump-dom", f"file://{tmp_path / 'page.html'}",
            ],
            capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
    assert "For this hospital" in done.stdout
    assert done.stdout.count("<polyline") == report(model, local=evaluated(model), simulated=SIMULATED).count(
        "<polyline"
    )
