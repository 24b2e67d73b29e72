"""A model package on this hospital's own held-out patients. What comes out is exact, and stays here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin import exact_view
from fedtwin.model_package import ModelPackage
from fedtwin.node_evaluation_file import FORMAT
from fedtwin.patient_groups import Groups, groups_of
from fedtwin.screen import Exit, Stop
from node.features.splitting import in_training, in_validation
from node.features.study_rows import feature_table
from node.features.table import FeatureTable
from node.home import NodeHome
from node.keys import NodeKeys
from node.omop.store import OmopStore
from node.serve import split_key
from node.training import evaluation, exact_evaluation, models
from node.training.exact_evaluation import Fitted
from node.training.own_part import OwnParts
from privacy import private_files
from privacy.descent import digest
from privacy.exact_result import result
from privacy.ledger import Ledger
from protocols import canonical
from protocols.clock import Clock
from protocols.study import Study

STAYS = (
    "Exact figures of this hospital's own patients, without noise: not to leave the hospital, in no mail,"
    " paper or slide. A study can buy such figures from the budget."
)

Floats = NDArray[np.float64]


def evaluate(package: ModelPackage, *, home: Path, store: OmopStore, clock: Clock) -> dict[str, Any]:
    """Return how the model does on the patients of the study's cohort that this node never trains on.

    If this site has a part of its own of the model, that is used as it would be in care. An exact study whose
    fit took everybody here is held against these same people, and `exact.in_fit` says so.
    Raises: NoSuchTable; Stop if the plan trains on everybody, nobody is held out, or a fit has no answer.
    """
    study = package.study
    fitted = _fitted(package) if study.exact is not None else None
    in_fit = fitted is not None and study.training.train_fraction >= 1.0 and _took_part(study, home, clock)
    rows, share = _tried_on(study, home=home, store=store)
    groups = groups_of(study, rows, store)
    own = OwnParts(NodeHome(home).own_parts).load(study, final=True) if study.own_parameters else None
    return {
        "format": FORMAT,
        "stays": STAYS,
        "study": study.name,
        "plan_hash": package.plan_hash,
        "parameters_digest": digest(package.parameters).hex(),
        "made_at": clock.now().isoformat(timespec="seconds"),
        "data": store.epoch(),
        "task": study.outcome.task,
        "own_part": own is not None,
        "held_out_share": 0.0 if in_fit else share,
    } | (
        _of_predictions(package, rows, groups, own)
        if fitted is None
        else _of_fit(package, fitted, rows, groups, in_fit=in_fit)
    )


def _tried_on(study: Study, *, home: Path, store: OmopStore) -> tuple[FeatureTable, float]:
    """Return whom the model is tried on, and which share of the patients the plan holds out for it.

    An exact plan that takes everybody holds nobody out: all are returned, for whoever was not in the fit.
    """
    fraction = study.training.train_fraction
    tried_on = study.validation.fraction if study.validation is not None else 0.0
    if study.exact is None and fraction + tried_on >= 1.0:
        raise Stop(Exit.USAGE, "the plan trains on all patients: nobody is left to try the model on")
    table = feature_table(study, store)
    if not len(table):
        raise Stop(Exit.USAGE, "none of this hospital's patients are of that cohort")
    if fraction >= 1.0:
        return table, 1.0
    key = split_key(NodeKeys.load(NodeHome(home).keys).pseudonym)
    seen = in_training(table.person_ids, key=key, fraction=fraction)
    if tried_on:  # what they said decided when to stop, so they cannot judge the model
        seen |= in_validation(table.person_ids, key=key, after=fraction, fraction=tried_on)
    held_out = table.rows(~seen)
    if not len(held_out):
        raise Stop(Exit.USAGE, "none of this hospital's patients of that cohort were held out")
    return held_out, 1.0 - fraction - tried_on


def _took_part(study: Study, home: Path, clock: Clock) -> bool:
    """Return whether a sum of this plan has left this hospital, by its own ledger."""
    path = NodeHome(home).ledger
    if not path.exists():
        return False
    with Ledger(path, clock=clock, read_only=True) as ledger:
        return study.plan_hash().hex() in ledger.exact_releases()


def _fitted(package: ModelPackage) -> Fitted:
    exact_view.require_answer(result(package.study, package.parameters))
    return Fitted.of(package.study, package.parameters)


def _of_predictions(
    package: ModelPackage, rows: FeatureTable, groups: dict[str, Groups], own: Floats | None
) -> dict[str, Any]:
    outcome, y = package.study.outcome, rows.y.astype(np.float64)
    outputs = models.outputs(package.study, package.parameters, rows, own=own)
    return {
        "overall": evaluation.performance(outcome, outputs, y),
        "calibration": evaluation.calibration(outcome, outputs, y),
        "groups": {
            name: list(evaluation.by_group(outcome, outputs, y, each)) for name, each in groups.items()
        },
    }


def _of_fit(
    package: ModelPackage, fitted: Fitted, rows: FeatureTable, groups: dict[str, Groups], *, in_fit: bool
) -> dict[str, Any]:
    return {
        "exact": {
            "model": fitted.exact.model,
            "in_fit": in_fit,
            "curve": exact_evaluation.curve(fitted, package.parameters, rows),
        },
        "overall": exact_evaluation.performance(fitted, rows),
        "calibration": exact_evaluation.calibration(fitted, rows),
        "groups": {
            name: list(exact_evaluation.by_group(fitted, rows, each)) for name, each in groups.items()
        },
    }


def keep(found: dict[str, Any], *, home: Path) -> Path:
    """Write an evaluation into the node's own folder, for its owner only; return where."""
    folder = private_files.make_folder(NodeHome(home).evaluations)
    moment = found["made_at"].replace(":", "").replace("-", "")[:15]
    path = folder / f"{found['plan_hash'][:12]}-{moment}.json"
    private_files.write(path, canonical.encode(found))
    return path
