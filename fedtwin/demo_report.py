"""What the demo says at its end: what was learnt, what was spent, what was protected, where it all lies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedtwin.budget_view import ProjectBudget
from fedtwin.count_results import BreakdownResult, CountResult
from fedtwin.estimates import shown
from fedtwin.screen import emit_json, emit_table, say
from fedtwin.yardsticks import Score

METRIC = "mean over the hospitals of the accuracy on their own test patients"


@dataclass(frozen=True, slots=True)
class CountReport:
    """The private count, what is known of the truth, and how long an answer took at the client."""

    answer: CountResult
    truth: dict[str, int]
    p50_ms: float
    p95_ms: float
    asked: int


@dataclass(frozen=True, slots=True)
class TrainingReport:
    """Three models by the same metric, and what the private one cost."""

    local: Score
    federated: Score
    own_intercept: Score
    pooled: Score
    textbook: Score | None
    epsilon: float
    delta: float
    rounds: int
    steps: int
    seconds_per_round: float


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that came out of one demo."""

    hospitals: list[dict[str, Any]]
    count: CountReport
    by_sex: BreakdownResult
    spent: ProjectBudget  # by the project, as the coordinator saw it
    training: TrainingReport
    budgets: dict[str, dict[str, Any]]
    audits: dict[str, dict[str, Any]]
    folder: Path
    why_pooled: str
    question: str
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the one JSON object of `fedtwin demo --json`."""
        answer, training = self.count.answer, self.training
        rows = {
            "local": training.local,
            "federated": training.federated,
            "federated_own_intercept": training.own_intercept,
            "pooled": training.pooled,
        }
        if training.textbook is not None:
            rows["textbook"] = training.textbook
        return {
            "hospitals": self.hospitals,
            "count": {"question": self.question, **answer.to_json(), "truth": self.count.truth},
            "breakdown": self.by_sex.to_json(),
            "training": {
                **{name: row.accuracy for name, row in rows.items()},
                "metric": METRIC,
                "auc": {name: row.auc for name, row in rows.items()},
                "by_hospital": {name: row.to_json()["by_hospital"] for name, row in rows.items()},
                "epsilon": training.epsilon,
                "delta": training.delta,
                "rounds": training.rounds,
                "steps": training.steps,
                "seconds_per_round": training.seconds_per_round,
            },
            "query": {"p50_ms": self.count.p50_ms, "p95_ms": self.count.p95_ms, "asked": self.count.asked},
            "budget": self.budgets,
            "project": self.spent.to_json(),
            "audit": self.audits,
            "folder": str(self.folder),
            "seconds": self.seconds,
        }


def show(report: Report, *, as_json: bool) -> None:
    """Print the report: tables on stdout, words on stderr; or JSON on stdout."""
    _learnt(report)
    if as_json:
        emit_json(report.to_json())
    else:
        _tables(report)
    _protected(report)


def _learnt(report: Report) -> None:
    answer = report.count.answer
    low, high = answer.ci95
    say(f"\n[bold]What was learnt[/bold]\n  Patients with {report.question}:")
    interval = f"95 % interval {low:.1f} to {high:.1f}"
    say(f"  [bold]{answer.estimate:.1f}[/bold], {interval} (epsilon {answer.epsilon:g})")
    for label, number in report.count.truth.items():
        say(f"  {number} {label} (a demo knows; a consortium does not)")
    cells = ", ".join(
        f"{cell.name} {shown(cell.value, whole=True)} ({shown(cell.low, whole=True)} to"
        f" {shown(cell.high, whole=True)})"
        for cell in report.by_sex.cells
    )
    say(f"  By sex: {cells}")
    say(f"  Each of the two was charged {answer.charged}, for one patient.")
    say(f"  An answer took {report.count.p50_ms:.0f} ms (median of {report.count.asked - 1}).\n")


def model_rows(training: TrainingReport, *, why_pooled: str) -> list[tuple[str, Score, str]]:
    """Return the models that are compared: name, score, a word on privacy."""
    private = f"epsilon {training.epsilon:.2f}, delta {training.delta:g}"
    rows = [
        ("local only", training.local, "each hospital for itself, not private"),
        ("federated private", training.federated, private),
        ("  with own intercept", training.own_intercept, "fitted at each hospital, never leaves it"),
        ("pooled (not private)", training.pooled, f"only here: {why_pooled}"),
    ]
    if training.textbook is not None:
        rows.append(("textbook score", training.textbook, "uses no training data"))
    return rows


def _tables(report: Report) -> None:
    training = report.training
    rows = model_rows(training, why_pooled=report.why_pooled)
    emit_table(
        ("model", "accuracy", "AUC", "privacy"),
        [(name, f"{score.accuracy:.3f}", f"{score.auc:.3f}", note) for name, score, note in rows],
        title=f"Risk model after {training.rounds} rounds of {training.seconds_per_round:.1f} s; {METRIC}",
    )
    emit_table(
        ("hospital", "spent epsilon", "left", "releases", "audit entries"),
        [
            (
                name,
                f"{budget['spent']['epsilon']:.3f}",
                f"{budget['left']['epsilon']:.3f}",
                budget["spent"]["events"],
                report.audits[name]["entries"],
            )
            for name, budget in report.budgets.items()
        ],
        title="Charged to each hospital's own ledger, by itself, before anything left",
    )


def _protected(report: Report) -> None:
    spent = report.spent
    say("\n[bold]What was spent[/bold], as the coordinator saw it; each hospital's own ledger is what counts")
    for kind in spent.by_kind:
        say(f"  {kind.kind:<13} epsilon {kind.epsilon:.3f} in {kind.releases} releases")
    say(f"  together      epsilon {spent.epsilon:.3f} at delta {spent.delta:g}")
    say("\n[bold]What was protected[/bold]")
    say(f"  One patient: {report.count.answer.unit_of_privacy.removeprefix('one patient: ')}.")
    say("  No record left a hospital; the coordinator saw masked vectors and their noisy sums only.")
    say("  Every ledger and audit chain was checked just now and holds.")
    say("\n[bold]Where it lies[/bold] (nothing runs any more)")
    for name, place in (
        ("logs", report.folder / "logs"),
        ("ledgers", report.folder / "nodes" / "*" / "ledger.sqlite"),
        ("audit trails", report.folder / "nodes" / "*" / "audit.jsonl"),
        ("the model", report.folder / "model.json"),
        ("its package", report.folder / "coordinator" / "runs" / "*" / "model"),
        ("the training", report.folder / "training.html"),
    ):
        say(f"  {name:<13} {place}")
    say(f"\nDone in {report.seconds:.0f} s.")
