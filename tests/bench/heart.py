"""The UCI heart data: federated under (ε = 1, δ = 1e-5)-DP, beside what it must be held against.

FLamby's rows, split and metric (the mean of the four hospitals' test accuracies), through the node's own
path: mapping, OMOP store, features, clipped gradients, noise shares, masked sums. How the plans were chosen,
without the test rows, stands in sim/studies/heart.toml and heart_small_budget.toml. Each patient is at one
hospital, as in FLamby: `max_sites_per_patient` is 1. One hospital may drop out or collude (`tolerance`), for
which the total carries 1.15 times the noise of one curator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from fedtwin.yardsticks import fit_logistic, metrics
from node.features.table import FeatureTable
from node.training import models
from node.training.own_fit import fitted
from privacy.rng import SecureBits
from protocols.study import Study
from sim.federation import Noise, federate
from tests.bench.figure import Figure
from tests.bench.heart_data import FLAMBY_SEED, Site, heart_study, hospitals, small_budget_study

SHARED_HEART = Path(__file__).parents[3] / "shared" / "data" / "heart"
SEEDS = 10
RESPLITS = 10
FLAMBY_BEST = 0.785  # best federated mean over its shipped result files, without privacy
FLAMBY_POOLED = 0.795  # pooled, without privacy, from the same files
GOAL = 0.82
GOAL_OWN = 0.83  # with an intercept that never leaves the hospital
GOAL_OWN_RESPLIT = 0.82
GOAL_TENTH = 0.78  # at ε = 0.1
# Chosen as the packaged plans were: five-fold cross-validation on the training rows of FLamby's split.
INTERCEPT_STEPS = {"steps_per_round": 10}  # of intercepts that are trained along
# Cross-validation on those rows does not tell one rule for intercepts from another (docs/training.md), so
# this is the textbook's: the simplest within one standard error, on a model that can stand by itself.
EARNED = {"trained": "after", "kept": "earned"}
PRIOR_SHARE = 0.25  # of the score's weights, whose scale means nothing
PRIOR_STEPS = {"learning_rate": 0.2}  # who starts at a good place takes shorter steps
SMALL_BUDGET_PRIOR_STEPS = {"learning_rate": 0.5}
SMALL_BUDGET_DRAWS = 10  # times as many: noise draws differ more there, and two steps cost little

Vector = NDArray[np.float64]
Scorer = Callable[[FeatureTable], Vector]  # logits

# Risk factors as any textbook of cardiology names them, each with weight 1 on the plan's public scale: age,
# male sex, no chest pain among those sent to angiography, angina and ST depression on exercise, and a low
# heart rate reached. No patient of any hospital took part in it; the middle of the scale is the threshold.
TEXTBOOK = {
    "age": 1.0,
    "male": 1.0,
    "no-chest-pain=4": 1.0,
    "exercise-angina=1": 1.0,
    "st-depression": 1.0,
    "heart-rate-reached": -1.0,
}


def figures(*, quick: bool) -> Iterable[Figure]:
    """Yield the table; nothing if the data is not there."""
    if not SHARED_HEART.is_dir():
        return
    torch.set_num_threads(1)
    study = heart_study()
    seeds = 2 if quick else SEEDS
    everyone = hospitals(SHARED_HEART, study)
    flamby = [hospital.cut(seed=FLAMBY_SEED) for hospital in everyone]
    yield from table(study, flamby, seeds=seeds)
    resplit = [[h.cut(seed=seed) for h in everyone] for seed in range(2 if quick else RESPLITS)]
    private = [accuracy(federated(study, cut, Noise.SHARES), cut) for cut in resplit]
    textbook = [accuracy(textbook_score(study), cut) for cut in resplit]
    yield Figure("heart.resplit.federated_dp", mean(private), "accuracy", mean(textbook), "textbook, resplit")
    yield from with_intercepts(study, flamby, resplit, seeds=seeds)
    yield from with_intercepts_from_textbook(study, flamby, resplit, seeds=seeds)
    small = small_budget_study()
    flamby = [hospital.cut(seed=FLAMBY_SEED) for hospital in hospitals(SHARED_HEART, small)]
    yield from at_a_tenth(small, flamby, seeds=seeds)


def with_intercepts(
    study: Study, flamby: Sequence[Site], resplit: Sequence[Sequence[Site]], *, seeds: int
) -> Iterable[Figure]:
    """Yield what intercepts that never leave their hospitals give, the textbook score beside them."""
    own = changed(study, study={"local": "intercept"}, own_part=EARNED)
    runs = [with_own(own, flamby) for _ in range(seeds)]
    fixed = mean([run.accuracy for run in runs])
    yield Figure("heart.own_intercept_eps1", fixed, "accuracy", GOAL_OWN, f"goal; {seeds} noise draws")
    textbook = own_threshold_accuracy(textbook_score(study), flamby)
    yield Figure(
        "heart.own_intercept_eps1.vs_textbook", fixed, "accuracy", textbook, "textbook, own thresholds"
    )
    reruns = [with_own(own, cut) for cut in resplit]
    again = mean([run.accuracy for run in reruns])
    yield Figure("heart.resplit.own_intercept_eps1", again, "accuracy", GOAL_OWN_RESPLIT, "goal")
    textbook = mean([own_threshold_accuracy(textbook_score(study), cut) for cut in resplit])
    yield Figure(
        "heart.resplit.own_intercept_eps1.vs_textbook",
        again,
        "accuracy",
        textbook,
        "textbook, own thresholds",
    )
    yield from other_rules(study, flamby, resplit, earned=(runs, reruns))


def other_rules(
    study: Study,
    flamby: Sequence[Site],
    resplit: Sequence[Sequence[Site]],
    *,
    earned: tuple[Sequence[Fit], Sequence[Fit]],
) -> Iterable[Figure]:
    """Yield what other rules for the intercepts give, and what each rule's probabilities are worth."""
    usual = {"after": changed(study, study={"local": "intercept"}, own_part=EARNED | {"kept": "always"})}
    usual["along"] = changed(study, study={"local": "intercept"}, training=INTERCEPT_STEPS)
    usual["along_earned"] = changed(usual["along"], own_part={"kept": "earned"})
    for name, plan in usual.items():
        runs = [with_own(plan, flamby) for _ in earned[0]]
        reruns = [with_own(plan, cut) for cut in resplit]
        for where, ours, theirs in (("", earned[0], runs), ("resplit.", earned[1], reruns)):
            figure = f"heart.{where}own_intercept_eps1.{name}"
            hits, best = mean([run.accuracy for run in theirs]), mean([run.accuracy for run in ours])
            yield Figure(figure, hits, "accuracy", best, "earned, after")
            loss, best = mean([run.log_loss for run in theirs]), mean([run.log_loss for run in ours])
            yield Figure(f"{figure}.log_loss", loss, "nats", best, "earned, after")


def with_intercepts_from_textbook(
    study: Study, flamby: Sequence[Site], resplit: Sequence[Sequence[Site]], *, seeds: int
) -> Iterable[Figure]:
    """Yield the same for runs that start from the textbook score."""
    own = changed(from_textbook(study), study={"local": "intercept"}, own_part=EARNED, training=PRIOR_STEPS)
    fixed = mean([with_own(own, flamby).accuracy for _ in range(seeds)])
    name = "heart.from_textbook.own_intercept_eps1"
    yield Figure(name, fixed, "accuracy", GOAL_OWN, f"goal; {seeds} noise draws")
    textbook = own_threshold_accuracy(textbook_score(study), flamby)
    yield Figure(f"{name}.vs_textbook", fixed, "accuracy", textbook, "textbook, own thresholds")
    again = mean([with_own(own, cut).accuracy for cut in resplit])
    yield Figure(
        "heart.resplit.from_textbook.own_intercept_eps1", again, "accuracy", GOAL_OWN_RESPLIT, "goal"
    )


def at_a_tenth(study: Study, flamby: Sequence[Site], *, seeds: int) -> Iterable[Figure]:
    """Yield what is left at ε = 0.1, by a plan of fewer columns that lie around 0."""
    seeds *= SMALL_BUDGET_DRAWS
    scores = [accuracy(federated(study, flamby, Noise.SHARES), flamby) for _ in range(seeds)]
    yield Figure(
        "heart.federated_dp_eps0.1", mean(scores), "accuracy", GOAL_TENTH, f"goal; {seeds} noise draws"
    )
    textbook = accuracy(textbook_score(study), flamby)
    yield Figure("heart.federated_dp_eps0.1.vs_textbook", mean(scores), "accuracy", textbook, "textbook")
    prior = changed(from_textbook(study), training=SMALL_BUDGET_PRIOR_STEPS)
    started = mean([accuracy(federated(prior, flamby, Noise.SHARES), flamby) for _ in range(seeds)])
    name = "heart.from_textbook_eps0.1"
    yield Figure(name, started, "accuracy", GOAL_TENTH, f"goal; {seeds} noise draws")
    yield Figure(f"{name}.vs_textbook", started, "accuracy", textbook, "textbook")
    own = changed(study, study={"local": "intercept"}, own_part=EARNED)
    fixed = mean([with_own(own, flamby).accuracy for _ in range(seeds)])
    yield Figure("heart.own_intercept_eps0.1", fixed, "accuracy", GOAL_TENTH, f"goal; {seeds} noise draws")


def from_textbook(study: Study) -> Study:
    """Return the plan that starts from the textbook score, which knows no patient of these hospitals."""
    form = study.to_json()
    both = {name.partition("=")[0]: weight for name, weight in TEXTBOOK.items()}
    for feature in form["features"]:
        if feature["name"] in both:
            from_0 = feature["kind"] in ("sex", "category") and not feature.get("signed")
            feature["prior"] = PRIOR_SHARE * (1.0 + from_0) * both[feature["name"]]  # the score has -1 or 1
            form["study"]["prior_bias"] = form["study"].get("prior_bias", 0.0) - PRIOR_SHARE * from_0
    return Study.from_json(form)


def changed(study: Study, /, **sections: dict[str, object]) -> Study:
    """Return the plan with some keys changed."""
    form = study.to_json()
    for name, keys in sections.items():
        form[name] = form.get(name, {}) | keys
    return Study.from_json(form)


@dataclass(frozen=True, slots=True)
class Fit:
    """What one run is worth with the intercepts that hospitals keep: means over hospitals, on test rows."""

    accuracy: float
    log_loss: float


def with_own(study: Study, cut: Sequence[Site]) -> Fit:
    """Return FLamby's metric of one run after which each hospital fits the intercept that it keeps."""
    run = federate(study, [site.train for site in cut], noise=Noise.SHARES, bits=SecureBits())
    hits, nats = [], []
    for site in cut:
        own = fitted(study, run.params, site.train)
        logits = models.outputs(study, run.params, site.test, own=own)[:, 0]
        hits.append(float(((logits > 0) == (site.test.y > 0.5)).mean()))
        nats.append(float((np.logaddexp(0.0, logits) - site.test.y * logits).mean()))
    return Fit(mean(hits), mean(nats))


def table(study: Study, cut: Sequence[Site], *, seeds: int) -> Iterable[Figure]:
    """Yield every row on one split."""
    textbook = textbook_score(study)
    yield Figure(
        "heart.textbook_no_training_data", accuracy(textbook, cut), "accuracy", FLAMBY_BEST, "FLamby best"
    )
    yield Figure("heart.textbook_no_training_data.auc", auc(textbook, cut), "AUC")
    runs = [federated(study, cut, Noise.SHARES) for _ in range(seeds)]
    scores = [accuracy(run, cut) for run in runs]
    yield Figure("heart.federated_dp_eps1", mean(scores), "accuracy", GOAL, f"goal; {seeds} noise draws")
    yield Figure("heart.federated_dp_eps1.sd", float(np.std(scores, ddof=1)), "accuracy")
    yield Figure("heart.federated_dp_eps1.auc", mean([auc(run, cut) for run in runs]), "AUC")
    yield Figure("heart.federated_dp_eps1.vs_flamby", mean(scores), "accuracy", FLAMBY_BEST, "FLamby best")
    own = mean([own_threshold_accuracy(run, cut) for run in runs])
    yield Figure("heart.federated_dp_eps1.own_threshold", own, "accuracy", mean(scores), "one for all")
    per_site = [accuracy(federated(study, cut, Noise.PER_SITE), cut) for _ in range(seeds)]
    yield Figure("heart.noise_per_site_eps1", mean(per_site), "accuracy", mean(scores), "noise shares")
    clipped = accuracy(federated(study, cut, Noise.NONE), cut)
    yield Figure("heart.federated_without_noise", clipped, "accuracy", mean(scores), "noise shares")
    alone = [accuracy(linear(fit_logistic(s.train.x, s.train.y)), [s]) for s in cut]
    yield Figure("heart.local_only", mean(alone), "accuracy", mean(scores), "federated DP")
    everyone = linear(fit_logistic(*(np.concatenate([getattr(s.train, k) for s in cut]) for k in "xy")))
    yield Figure(
        "heart.pooled_not_private", accuracy(everyone, cut), "accuracy", FLAMBY_POOLED, "FLamby pooled"
    )


def federated(study: Study, cut: Sequence[Site], noise: Noise) -> Scorer:
    """Return the model of one run."""
    run = federate(study, [site.train for site in cut], noise=noise, bits=SecureBits())
    return lambda rows: models.logits(study, run.params, rows.x)


def textbook_score(study: Study) -> Scorer:
    """Return the score that uses no training data, on the plan's columns."""
    weights = np.array([TEXTBOOK.get(name, 0.0) for name in study.columns])
    from_0 = np.array(
        [
            feature.kind in ("sex", "category") and not feature.signed
            for feature in study.features
            for _ in feature.columns
        ]
    )
    return lambda rows: np.where(from_0, 2.0 * rows.x - 1.0, rows.x) @ weights


def linear(weights: Vector) -> Scorer:
    """Return the model of these weights and bias."""
    return lambda rows: rows.x @ weights[:-1] + weights[-1]


def own_threshold_accuracy(model: Scorer, cut: Sequence[Site]) -> float:
    """Return FLamby's metric if each hospital sets its own threshold, which then never leaves it."""
    hits = []
    for site in cut:
        logits, sick = model(site.train), site.train.y > 0.5
        ordered = np.sort(logits)
        between = np.concatenate([[ordered[0] - 1.0], (ordered[1:] + ordered[:-1]) / 2, [ordered[-1] + 1.0]])
        right = [((logits > b) == sick).mean() - 1e-6 * abs(b) for b in between]  # ties: nearest to 0
        threshold = between[int(np.argmax(right))]
        hits.append(((model(site.test) > threshold) == (site.test.y > 0.5)).mean())
    return float(np.mean(hits))


def accuracy(model: Scorer, cut: Sequence[Site]) -> float:
    """Return FLamby's metric: the mean over hospitals of the accuracy on their test rows."""
    return float(np.mean([_hit(model, site.test) for site in cut]))


def auc(model: Scorer, cut: Sequence[Site]) -> float:
    """Return the AUC over all test rows together."""
    return metrics(
        np.concatenate([model(site.test) for site in cut]), np.concatenate([site.test.y for site in cut])
    )[1]


def mean(values: Sequence[float]) -> float:
    """Return the mean as a plain number."""
    return float(np.mean(values))


def _hit(model: Scorer, rows: FeatureTable) -> float:
    return float(((model(rows) > 0) == (rows.y > 0.5)).mean())
