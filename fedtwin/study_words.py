"""A training plan in words, for a model's card and a run's report."""

from __future__ import annotations

from fedtwin.cohort_form import read, words
from protocols.cohort import Criterion, EventCriterion
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
NOUNS = {
    "condition_occurrence": "a condition",
    "drug_exposure": "a drug",
    "procedure_occurrence": "a procedure",
    "measurement": "a measurement",
    "observation": "an observation",
    "death": "death",
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
        "as of": as_of_words(study),
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
        return f"whether there is {what}" + (", on any day" if outcome.records.window is None else "")
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
    if records.source_values:
        named = ", ".join(records.source_values[:3])
        more = len(records.source_values) - 3
    text = NOUNS.get(records.table, records.table) + (
        f" of {'code' if records.source_values else CONCEPT} {named}" if named else ""
    )
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


def as_of_words(study: Study) -> str:
    """Return whether what the model sees, and who is in, was known on the index date: if not, which is not.

    A model that looks at what came later describes; in care, on the day itself, it will do worse.
    """
    found = []
    if study.feature_set is not None:
        found.append(f"what was recorded by the index date, day {study.feature_set.last_day} at the latest")
        if study.cohort.index is None and any(_ends_before(feature) for feature in study.features):
            found.append("windows that end before day 0 are empty: of nobody is anything known by then")
    elif study.features:
        late = [feature for feature in study.features if _looks_on(feature)]
        found.append(
            f"{_listed(tuple(late))}: ALSO AFTER the index date, and whether before the outcome is not asked"
            if late
            else "the index date, by the dates of records; some may have been recorded later"
        )
    decided = [one for one in study.cohort.include + study.cohort.exclude if _decided_later(one)]
    if decided or (study.cohort.index is not None and study.cohort.index.at_least > 1):
        found.append("who is in is ALSO decided by records after the index date")
    return "; ".join(found) or "the outcome alone"


def looks_ahead(study: Study) -> bool:
    """Return whether the plan lets the model see what was recorded after the index date."""
    return study.feature_set is None and any(_looks_on(feature) for feature in study.features)


def _looks_on(feature: Feature) -> bool:
    return feature.records is not None and (
        feature.records.window is None or feature.records.window.to_days > 0
    )


def _ends_before(feature: Feature) -> bool:
    window = feature.records.window if feature.records is not None else None
    return window is not None and window.to_days < 0


def _decided_later(criterion: Criterion) -> bool:
    if not isinstance(criterion, EventCriterion):
        return False
    return criterion.window is None or criterion.window.to_days > 0


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
        text += ", once the shared model is finished" if study.own_part.trained == "after" else ""
        text += ", as far as its own patients show need of it" if study.own_part.kept == "earned" else ""
    return text
