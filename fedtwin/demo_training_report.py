"""The page on the demo's training: a run's report with what only a demo may know beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin import model_package, training_report
from fedtwin.demo_report import METRIC, TrainingReport, model_rows
from fedtwin.model_export import keep_package
from fedtwin.patient_groups import Groups
from fedtwin.yardsticks import Split
from node.training import evaluation
from protocols.clock import SystemClock
from protocols.study import Study

FILE = "training.html"

Floats = NDArray[np.float64]


def write_page(
    run: str, *, home: Path, to: Path, found: TrainingReport, splits: Sequence[Split], why_pooled: str
) -> None:
    """Keep the run's model as a package with the coordinator, and write the page to the folder `to`."""
    package = model_package.read(keep_package(run, home=home, clock=SystemClock()))
    simulated = training_report.Comparison(
        metric=METRIC.capitalize(),
        why=why_pooled,
        rows=[
            (name.strip(), score.accuracy, score.auc, note)
            for name, score, note in model_rows(found, why_pooled=why_pooled)
        ],
        evaluation=_on_everybody(package.study, package.parameters, splits),
    )
    (to / FILE).write_text(training_report.report(package, simulated=simulated), encoding="utf-8")


def _on_everybody(study: Study, weights: Floats, splits: Sequence[Split]) -> dict[str, Any]:
    """Return how a linear model does on all held-out patients, as a hospital says it of its own."""
    outputs = np.concatenate([split.test_x @ weights[:-1] + weights[-1] for split in splits])[:, None]
    y = np.concatenate([split.test_y for split in splits])
    whose = np.repeat(np.arange(len(splits)), [len(split.test_y) for split in splits])
    groups: dict[str, Groups] = {
        "hospital": [(split.hospital, whose == place) for place, split in enumerate(splits)]
    } | {kind: _joined([split.groups[kind] for split in splits]) for kind in splits[0].groups}
    return {
        "task": study.outcome.task,
        "own_part": False,
        "overall": evaluation.performance(study.outcome, outputs, y),
        "calibration": evaluation.calibration(study.outcome, outputs, y),
        "groups": {
            kind: list(evaluation.by_group(study.outcome, outputs, y, each)) for kind, each in groups.items()
        },
    }


def _joined(parts: Sequence[Sequence[tuple[str, NDArray[np.bool_]]]]) -> Groups:
    """Return the groups of all hospitals' patients, one hospital after the other."""
    return [(same[0][0], np.concatenate([chosen for _, chosen in same])) for same in zip(*parts, strict=True)]
