"""What attacks on training show, beside what is claimed: lower bounds on ε, and membership by the model.

Membership inference is told on the UCI heart data, by the plan of `python -m tests.bench heart` at ε = 8,
where the data is there.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import numpy as np
import torch

from node.features.table import FeatureTable
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise
from sim.one_run_audit import audit_in_one_run
from sim.privacy_attacks import membership_auc
from sim.privacy_audit import audit
from tests.bench.figure import Figure
from tests.bench.heart import SHARED_HEART
from tests.bench.heart_data import FLAMBY_SEED, heart_study, sites
from tests.protocols.study_forms import study_form

CLAIMS = (1.0, 3.0, 8.0)
MODES = ("sampled", "adapting", "local")  # beside shared noise over all patients
MODES_AT = 8.0
MEMBERSHIP_AT = 8.0
CONFIDENCE = 0.95
SITES = 4


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield each bound beside the claim, and the attack's AUC beside that on a model without noise."""
    torch.set_num_threads(1)
    runs, canaries, models = (40, 100, 12) if quick else (1000, 1000, 32)
    for epsilon in CLAIMS:
        found = audit(
            _plan(epsilon, columns=24),
            runs=runs,
            sites=SITES,
            confidence=CONFIDENCE,
            bits=SecureBits(),
            generator=np.random.default_rng(1),
        )
        name = f"audit.epsilon_{epsilon:g}"
        yield Figure(f"{name}.many_runs", found.gaussian, "ε", epsilon, f"claimed; {2 * runs} runs")
        one = audit_in_one_run(
            _plan(epsilon, columns=1000),
            canaries=canaries,
            sites=SITES,
            confidence=CONFIDENCE,
            bits=SecureBits(),
            generator=np.random.default_rng(1),
        )
        yield Figure(f"{name}.one_run", one.bound, "ε", epsilon, f"claimed; {canaries} canaries")
    yield from _by_mode(runs=max(40, runs // 5), canaries=canaries)
    if SHARED_HEART.is_dir():
        for name, study in (("", heart_study()), (".network", network())):
            private, free = (lira(study, noise, models=models) for noise in (Noise.SHARES, Noise.NONE))
            yield Figure(f"audit.membership_auc{name}", private, "AUC", free, "without noise; heart")


def lira(study: Study, noise: Noise, *, models: int) -> float:
    """Return how well a plan's model tells members from others on the heart data, at ε = 8."""
    private = dataclasses.replace(study.privacy, epsilon=MEMBERSHIP_AT)
    study = dataclasses.replace(study, privacy=private)
    return membership_auc(
        study,
        _everyone(study),
        models=models,
        sites=SITES,
        noise=noise,
        bits=SecureBits(),
        generator=np.random.default_rng(3),
    )


def network() -> Study:
    """Return the heart plan with a network that, without noise, learns patients by heart."""
    form = heart_study().to_json()
    form["study"] |= {"model": "mlp", "hidden": [64]}
    form["study"].pop("prior_bias", None)
    for feature in form["features"]:
        feature.pop("prior", None)
    form["training"] |= {"rounds": 1, "steps_per_round": 150, "optimizer": "adam"}
    form["training"] |= {"learning_rate": 0.02, "momentum": 0.9, "l2": 0.0, "average": False}
    return Study.from_json(form)


def _by_mode(*, runs: int, canaries: int) -> Iterable[Figure]:
    """Yield both bounds for each other way to train with privacy."""
    common = {"sites": SITES, "confidence": CONFIDENCE, "bits": SecureBits()}
    for mode in MODES:
        few, wide = (_plan(MODES_AT, columns=columns, mode=mode) for columns in (24, 600))
        many = audit(few, runs=runs, generator=np.random.default_rng(1), **common)
        one = audit_in_one_run(wide, canaries=canaries, generator=np.random.default_rng(1), **common)
        name = f"audit.{mode}.epsilon_{MODES_AT:g}"
        yield Figure(f"{name}.many_runs", many.gaussian, "ε", MODES_AT, f"claimed; {2 * runs} runs")
        yield Figure(f"{name}.one_run", one.bound, "ε", MODES_AT, f"claimed; {canaries} canaries")


def _plan(epsilon: float, *, columns: int, mode: str = "") -> Study:
    features = [
        {"name": f"f{i}", "kind": "present", "table": "condition_occurrence", "concept_id": 1000 + i}
        for i in range(columns)
    ]
    form = study_form(features=features, privacy__epsilon=epsilon, training__rounds=2)
    if mode in ("sampled", "adapting"):
        form["training"]["sampling_rate"] = 0.5
    if mode == "adapting":
        form["clipping"] = {"quantile": 0.5}
    if mode == "local":
        form["training"]["mode"] = "local"
        form["local"] = {"local_steps": 2, "sampling_rate": 0.5, "update_clip": 1.0}
    return Study.from_json(form)


def _everyone(study: Study) -> FeatureTable:
    tables = [site.train for site in sites(SHARED_HEART, study, seed=FLAMBY_SEED)]
    count = sum(len(table) for table in tables)
    return FeatureTable(
        np.arange(1, count + 1, dtype=np.int64),
        np.concatenate([table.x for table in tables]),
        np.concatenate([table.mask for table in tables]),
        np.concatenate([table.y for table in tables]),
    )
