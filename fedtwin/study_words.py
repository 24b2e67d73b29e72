"""A training plan in words, for a model's card and a run's report."""

from __future__ import annotations

from fedtwin.cohort_form import read, words
from protocols.study import Study
from protocols.study_features import Feature
from protocols.study_records import Records

CONCEPT = "concept"
EXACT = {
    "logistic": "logistic regression",
    "linear": "linear regression",
    "poisson": "Poisson regression",
    "cox": "Cox model, stratified by hospital",
    "kaplan-meier": "Kaplan-Meier curve",
}
KINDS = {"count": "how many records there are of", "days": "the days to"}


def plan_words(study: Study) -> dict[str, str]:
    """Return what the plan says, by what it is about, in the order in which a person asks."""
    sites = study.sites
    fall_out = f"{sites.tolerance} may fall out or collude without less noise in any sum"
    if study.exact is not None:
        fall_out = "none may fall out of a sum without noise"
    return {
        "patients": cohort_words(study),
        "predicts": outcome_words(study),
        "looks at": features_words(study),
        "model": model_words(study),
        "trained": training_words(study),
        "privacy": privacy_words(study),
        "hospitals": f"{sites.minimum} or more in each round; {fall_out}",
    }


def training_words(study: Study) -> str:
    """Return how it is trained, and on whom."""
    training, local, tried = study.training, study.local_training, study.validation
    if study.exact is not None:
        how = "in one exact sum" if training.steps == 1 else f"in up to {training.steps} exact sums"
    elif study.one_shot is not None:
        how = "from one noisy sum"
    else:
        how = f"in up to {training.rounds} rounds of {training.steps_per_round} steps"
    if local is not None:
        how += f", each of {local.local_steps} at the hospitals themselves ({local.aggregator})"
    if training.sampling_rate < 1.0:
        how += f", each on {training.sampling_rate:.3g} of the patients, drawn by chance"
    if study.clipping is not None:
        how += f", under a clip norm that leaves about {study.clipping.quantile:.0%} of gradients whole"
    if training.train_fraction >= 1.0:
        return f"{how}, on all of each hospital's patients"
    text = (
        f"{how}, on {training.train_fraction:.0%} of each hospital's patients; the others are only tried on"
    )
    return text + (f", {tried.fraction:.0%} of all while it is trained, with noise" if tried else "")


def privacy_words(study: Study) -> str:
    """Return what is promised to a patient."""
    privacy = study.privacy
    if study.exact is not None:
        return "none: sums without noise, of hospitals whose policies name this very plan"
    return (
        f"ε {privacy.epsilon:g} at δ {privacy.delta:g} for all that is known of one patient, seen at up to"
        f" {privacy.max_sites_per_patient} of the hospitals"
    )


def cohort_words(study: Study) -> str:
    """Return who is in."""
    cohort = study.cohort
    parts = list(read(cohort).rules)
    if cohort.index is not None:
        parts.insert(0, f"{words(cohort.index)} (its first record is the index date)")
    else:
        parts.append("as of the start of their first observation period")
    return "; ".join(parts)


def outcome_words(study: Study) -> str:
    """Return what is predicted."""
    outcome = study.outcome
    what = records_words(outcome.records)
    if outcome.kind == "present":
        return f"whether there is {what}"
    if outcome.kind == "value":
        return f"whether the latest value of {what} is {outcome.at_least:g} or more"
    if outcome.kind == "class":
        return f"which of {len(outcome.levels)} values {what} has"
    if outcome.kind == "amount":
        low, high = outcome.range or (0.0, 0.0)
        return f"the value of {what}, between {low:g} and {high:g}"
    if outcome.kind == "time":
        return f"the time to {what}, in {len(outcome.edges)} intervals up to day {outcome.edges[-1]}"
    return f"{KINDS.get(outcome.kind, outcome.kind)} {what}"


def records_words(records: Records) -> str:
    """Return which records are meant."""
    named = ", ".join(str(concept) for concept in records.concept_ids[:3])
    more = len(records.concept_ids) - 3
    text = records.table + (f" of {CONCEPT} {named}" if named else "")
    text += f" and {more} more" if more > 0 else ""
    if records.window is not None:
        text += f", day {records.window.from_days} to {records.window.to_days}"
    return text


def features_words(study: Study) -> str:
    """Return what the model sees, by modality if there are several."""
    if not study.features:
        return "nothing but the outcome"
    if study.fusion is None:
        return f"{len(study.columns)} columns of {len(study.features)} features: " + _listed(study.features)
    parts = [f"{m.name} ({len(m.columns)} columns)" for m in study.modalities]
    return f"{len(parts)} modalities, any of which may be missing: " + ", ".join(parts)


def _listed(features: tuple[Feature, ...]) -> str:
    shown = [feature.name for feature in features[:12]]
    more = len(features) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def model_words(study: Study) -> str:
    """Return what kind of model it is."""
    if study.exact is not None:
        return f"{EXACT[study.exact.model]}, as of all records in one place"
    kind = {"logistic": "linear" if study.outcome.task == "regression" else "logistic regression"}
    text = kind.get(study.model, "network")
    if study.fusion is not None:
        text = f"{study.fusion.kind} fusion of modalities"
    if study.hidden:
        text += f" with hidden layers of {' and '.join(map(str, study.hidden))}"
    text += f", {study.parameters:,} parameters"
    if study.priors:
        text += ", started from public weights"
    if study.local != "none":
        text += f"; each hospital adds {'an' if study.local == 'intercept' else 'a'} {study.local} of its own"
    return text
