"""Fusion of seven modalities at simulated hospitals, held against the best that any model could do.

Training is what a node and a coordinator do (clipped gradients, noise shares, descent), with the masked sums
in this process. Non-private is the same descent over everybody's rows in one table, without noise. Most of
what is left to the best possible lies in the one pair of columns that only speaks together: a generic network
starts to overfit these patients before it finds it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fedtwin.yardsticks import fit_logistic, metrics
from node.features.table import FeatureTable
from node.training import inputs, models
from node.training.gradient import clipped_sums
from node.training.losses import losses
from privacy import descent
from privacy.rng import SecureBits
from protocols.study import Study
from sim import multimodal
from sim.federation import Noise, federate
from sim.multimodal import Patients
from tests.bench.figure import Figure

PATIENTS = 20_000
UNSEEN = 10_000
DROPPED = (0.0, 0.3, 0.6)
ADAM = {"optimizer": "adam", "momentum": 0.9, "learning_rate": 0.02, "steps_per_round": 60}
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "early": {"fusion": {"kind": "early", "modality_dropout": 0.15}, "training": ADAM},
    "intermediate": {
        "fusion": {"kind": "intermediate", "width": 8, "modality_dropout": 0.15},
        "training": ADAM | {"steps_per_round": 100},
    },
    "late": {
        "study": {"hidden": []},
        "fusion": {"kind": "late", "width": 8, "modality_dropout": 0.15},
        "training": ADAM | {"steps_per_round": 100, "learning_rate": 0.05},
    },
    "attention": {
        "fusion": {"kind": "attention", "width": 8, "modality_dropout": 0.15},
        "training": ADAM | {"steps_per_round": 100, "learning_rate": 0.05},
    },
}
DEFAULT = "early"
SITES = (4, 8, 20)


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield AUCs of every kind of fusion beside the best possible, and what clipping each patient costs."""
    torch.set_num_threads(1)
    patients = 4_000 if quick else PATIENTS
    unseen = multimodal.hospitals(seed=2, sites=4, patients=UNSEEN)
    tests = {share: _less(unseen, share) for share in DROPPED}
    best = {share: bayes(some) for share, some in tests.items()}
    for sites in SITES[:1] if quick else SITES:
        yield from _against_pooled(sites, patients, tests, best)
    train = multimodal.hospitals(seed=1, sites=4, patients=patients)
    scores: dict[str, list[float]] = {}
    for kind in ("early", "late") if quick else KINDS:
        study = multimodal.study(**KINDS[kind])
        run = federate(study, [p.table() for p in train], noise=Noise.SHARES, bits=SecureBits())
        scores[kind] = [auc(study, run.params, some) for some in tests.values()]
    for place, share in enumerate(DROPPED):
        top = max(found[place] for found in scores.values())
        for kind, found in scores.items():
            name = f"train.fusion.{kind}.missing{100 * share:.0f}"
            yield Figure(name, found[place], "AUC", top, "best of these kinds")
    alone = max(_single(train, tests[0.0], modality) for modality in range(len(multimodal.KINDS)))
    yield Figure(
        "train.fusion.eps3_against_one_modality", scores[DEFAULT][0], "AUC", alone, "best modality alone"
    )
    yield from clipping(quick=quick)


def _against_pooled(
    sites: int, patients: int, tests: dict[float, Sequence[Patients]], best: dict[float, float]
) -> Iterable[Figure]:
    study = multimodal.study(**KINDS[DEFAULT])
    train = [p.table() for p in multimodal.hospitals(seed=1, sites=sites, patients=patients)]
    private = federate(study, train, noise=Noise.SHARES, bits=SecureBits())
    pooled = federate(study, [multimodal.pooled(train)], noise=Noise.NONE, bits=SecureBits())
    for share, some in tests.items():
        name = f"train.fusion.{sites}sites.missing{100 * share:.0f}"
        free = auc(study, pooled.params, some)
        yield Figure(f"{name}.eps3", auc(study, private.params, some), "AUC", free, "pooled, not private")
        yield Figure(f"{name}.pooled", free, "AUC", best[share], "best possible")
    logistic = _logistic(train, tests[0.0])
    of_private = auc(study, private.params, tests[0.0])
    name = f"train.fusion.{sites}sites.missing0.eps3_against_logistic"
    yield Figure(name, of_private, "AUC", logistic, "pooled logistic regression to its optimum, not private")


def _logistic(train: Sequence[FeatureTable], some: Sequence[Patients]) -> float:
    """Return the AUC of a ridge logistic regression of all rows and of what is present."""
    fitted = fit_logistic(*_design(multimodal.pooled(train)))
    design, y = _design(multimodal.pooled([p.table() for p in some]))
    return metrics(design @ fitted[:-1] + fitted[-1], y)[1]


def _design(table: FeatureTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    present = inputs.presence(multimodal.study(), table)
    return np.column_stack([table.x, present]).astype(np.float64), table.y.astype(np.float64)


def clipping(*, quick: bool) -> Iterable[Figure]:
    """Yield the time of each patient's clipped gradient over that of plain SGD, on one batch."""
    table = multimodal.hospitals(seed=3, sites=1, patients=4096)[0].table()
    shapes = {
        "early": ({"kind": "early", "modality_dropout": 0.15}, [64]),
        "intermediate": ({"kind": "intermediate", "width": 16, "modality_dropout": 0.15}, [64]),
        "late": ({"kind": "late", "width": 16, "modality_dropout": 0.15}, []),
        "attention": ({"kind": "attention", "width": 16, "modality_dropout": 0.15}, [32]),
    }
    for kind, (fusion, hidden) in shapes.items():
        study = multimodal.study(fusion=fusion, study={"hidden": hidden})
        params = descent.initial(study)
        ratios = []
        for _ in range(3 if quick else 9):
            began = time.perf_counter()
            plain_gradient(study, params, table)
            between = time.perf_counter()
            clipped_sums(study, params, table)
            ratios.append((time.perf_counter() - between) / (between - began))
        yield Figure(
            f"train.fusion.{kind}.clipping_time", median(ratios), "ratio", 2.0, "goal, over plain SGD"
        )


def plain_gradient(study: Study, params: NDArray[np.float64], table: FeatureTable) -> None:
    """Compute the gradient of the summed loss as any training does, without a look at single patients."""
    layers = models.Layers.of(study, params)
    parameters = [tensor.requires_grad_() for pair in layers.tensors.values() for tensor in pair]
    seen = inputs.views(study, inputs.presence(study, table), table.person_ids, params)
    present = torch.from_numpy(seen).double()
    x = torch.from_numpy(table.x).double()[:, None].expand(-1, present.shape[1], -1)
    out = models.forward(study, layers, x, present)
    loss = losses(study.outcome, out, torch.from_numpy(table.y).double()).mean(dim=1).sum()
    torch.autograd.grad(loss, parameters)


def auc(study: Study, params: NDArray[np.float64], some: Sequence[Patients]) -> float:
    """Return the AUC over all hospitals' patients together."""
    table = multimodal.pooled([p.table() for p in some])
    return metrics(models.outputs(study, params, table)[:, 0], table.y)[1]


def bayes(some: Sequence[Patients]) -> float:
    """Return the AUC that no model exceeds on average."""
    y = np.concatenate([p.y for p in some]).astype(np.float64)
    return metrics(np.concatenate([multimodal.bayes_logits(p) for p in some]), y)[1]


def _less(some: Sequence[Patients], share: float) -> tuple[Patients, ...]:
    rng = np.random.default_rng(int(100 * share))
    return tuple(p.dropping(share, rng=rng) if share else p for p in some)


def _single(train: Sequence[Patients], some: Sequence[Patients], modality: int) -> float:
    """Return the AUC of a model of one modality alone, trained alike but without noise."""
    study = multimodal.study(**KINDS[DEFAULT])
    only = [_keeping(p, modality).table() for p in train]
    run = federate(study, [multimodal.pooled(only)], noise=Noise.NONE, bits=SecureBits())
    return auc(study, run.params, [_keeping(p, modality) for p in some])


def _keeping(some: Patients, modality: int) -> Patients:
    present = np.zeros_like(some.present)
    present[:, modality] = some.present[:, modality]
    return Patients(some.values, present, some.offered, some.y)
