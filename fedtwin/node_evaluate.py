"""A model package on this hospital's own held-out patients. What comes out is exact, and stays here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedtwin.model_package import ModelPackage
from fedtwin.node_evaluation_file import FORMAT
from fedtwin.screen import Exit, Stop
from node.features.people import People
from node.features.splitting import in_training, in_validation
from node.features.study_rows import feature_table
from node.home import NodeHome
from node.keys import NodeKeys
from node.omop.store import OmopStore
from node.serve import split_key
from node.training import evaluation, models
from node.training.own_part import OwnParts
from privacy import private_files
from privacy.descent import digest
from protocols import canonical
from protocols.clock import Clock
from protocols.statistic import FEMALE, MALE

STAYS = (
    "Exact figures of this hospital's own patients, without noise: not to leave the hospital, in no mail,"
    " paper or slide. A study can buy such figures from the budget."
)
AGE_BANDS = ((0, 40), (40, 65), (65, 80), (80, 200))  # years at the index date; the last is open
SEXES = (("male", MALE), ("female", FEMALE))

Floats = NDArray[np.float64]


def evaluate(package: ModelPackage, *, home: Path, store: OmopStore, clock: Clock) -> dict[str, Any]:
    """Return how the model does on the patients of the study's cohort that this node never trains on.

    If this site has a part of its own of the model, that is used as it would be in care.
    Raises: NoSuchTable; Stop if the plan trains on everybody, or nobody is held out.
    """
    study = package.study
    if study.exact is not None:
        raise Stop(Exit.USAGE, "an exact study: its fit is its result, there is nothing to try")
    fraction = study.training.train_fraction
    tried_on = study.validation.fraction if study.validation is not None else 0.0
    if fraction + tried_on >= 1.0:
        raise Stop(Exit.USAGE, "the plan trains on all patients: nobody is left to try the model on")
    table = feature_table(study, store)
    people = People.read(study.cohort, store)
    key = split_key(NodeKeys.load(NodeHome(home).keys).pseudonym)
    seen = in_training(table.person_ids, key=key, fraction=fraction)
    if tried_on:  # what they said decided when to stop, so they cannot judge the model
        seen |= in_validation(table.person_ids, key=key, after=fraction, fraction=tried_on)
    held_out = table.rows(~seen)
    if not len(held_out):
        raise Stop(Exit.USAGE, "none of this hospital's patients of that cohort were held out")
    own = OwnParts(NodeHome(home).own_parts).load(study, final=True) if study.local_parameters else None
    outputs = models.outputs(study, package.parameters, held_out, own=own)
    y, at = held_out.y.astype(np.float64), people.at(held_out.person_ids)
    groups = {
        "sex": _sexes(people.sex[at]),
        "age": _ages(people.age_years[at]),
    }
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
        "held_out_share": 1.0 - fraction - tried_on,
        "overall": evaluation.performance(study.outcome, outputs, y),
        "calibration": evaluation.calibration(study.outcome, outputs, y),
        "groups": {
            name: list(evaluation.by_group(study.outcome, outputs, y, each)) for name, each in groups.items()
        },
    }


def _sexes(sex: NDArray[np.int64]) -> list[tuple[str, NDArray[np.bool_]]]:
    named = [(name, sex == concept) for name, concept in SEXES]
    return [*named, ("other or unknown", ~np.isin(sex, [concept for _, concept in SEXES]))]


def _ages(years: Floats) -> list[tuple[str, NDArray[np.bool_]]]:
    named = [
        (f"{low} to {high - 1}" if high < 200 else f"{low} and more", (years >= low) & (years < high))
        for low, high in AGE_BANDS
    ]
    return [*named, ("unknown", ~np.isfinite(years))]


def keep(found: dict[str, Any], *, home: Path) -> Path:
    """Write an evaluation into the node's own folder, for its owner only; return where."""
    folder = private_files.make_folder(NodeHome(home).evaluations)
    moment = found["made_at"].replace(":", "").replace("-", "")[:15]
    path = folder / f"{found['plan_hash'][:12]}-{moment}.json"
    private_files.write(path, canonical.encode(found))
    return path
