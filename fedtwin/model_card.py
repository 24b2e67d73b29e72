"""A model's card: what it is for, where it comes from, what it cost, and what nobody knows of it.

Everything in it is public to the consortium: the plan, and what the coordinator lawfully saw. How many
patients any hospital had is not known to the coordinator, and who fell out of a round stays with the lead.
"""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from coordinator.flower.run_folder import FINISHED, Checkpoint, RoundRecord, RunFolder, Status
from fedtwin.study_words import cohort_words, looks_ahead, model_words, outcome_words, plan_words
from fedtwin.training_run import looks, opened_steps, spent
from privacy.descent import digest
from privacy.study_noise import noise_multiplier
from protocols.refusal import RefusalCode
from protocols.study import Study

POINTS = 40  # rounds after which the cost is stated: composing many takes a while
SOFTWARE = ("fedtwin", "flwr", "numpy", "cryptography", "safetensors")

THREAT_MODEL = (
    "The unit is one patient: everything that is recorded of them at the hospitals that saw them.",
    "The promise holds against whoever sees the model, all rounds and every noisy sum, and knows all other"
    " patients.",
    "It holds if at most as many hospitals as the plan tolerates share what they know with the coordinator.",
    "Hospitals are taken to follow the protocol: one that lies can spoil the model, within its clip norm, but"
    " learns no more of the others' patients.",
    "Each hospital's own ledger is what counts; it also holds steps that were paid for and never opened.",
)
WITHOUT_NOISE = (
    "No noise was added: no (ε, δ) covers what these figures say of a patient, and two fits whose patients"
    " differ by one tell about that one. The hospitals' policies name this plan all the same.",
    "The coordinator saw totals over hospitals only, under masks.",
)
LIMITATIONS = (
    "Not a medical device, and not tried on patients outside the hospitals of this consortium.",
    "Hospitals with few patients are heard in proportion; their patients may be served worse.",
)
KNOWN_IN_PART = (
    "How well it predicts is known centrally only as far as the plan bought noisy figures of it. Each"
    " hospital can tell for its own patients: `fedtwin node evaluate`."
)
KNOWN_NOWHERE = (
    "How well it fits single hospitals is not known centrally. Each can hold it against its own patients:"
    " `fedtwin node evaluate`."
)
LOOKS_AHEAD = (
    "The plan lets features look at records after the index date, and so perhaps at what followed from the"
    " outcome: figures of how well it predicts may flatter it. A feature set as of a date rules that out."
)
NOISE = "Noise was added to every step: weights of features that few patients have are mostly noise."


def card_of(
    study: Study, *, run: str, status: Status, checkpoint: Checkpoint, folder: RunFolder, made_at: datetime
) -> dict[str, Any]:
    """Return the card of a run's model so far, as JSON. Raises: MalformedRun."""
    rounds = folder.rounds()
    chosen = study.feature_set
    return {
        "format": "fedtwin-model-card-v1",
        "name": study.name,
        "project": study.project,
        "run": run,
        "state": status.state,
        "made_at": made_at.isoformat(timespec="seconds"),
        "plan_hash": study.plan_hash().hex(),
        "parameters_digest": digest(checkpoint.parameters).hex(),
        "intended_use": _intended_use(study),
        "plan": [list(pair) for pair in plan_words(study).items()],  # in this order
        "cohort": study.cohort.to_json(),
        "outcome": study.outcome.to_json() | {"task": study.outcome.task},
        "columns": list(study.columns),
        "modalities": [{"name": m.name, "columns": len(m.columns)} for m in study.modalities if m.name],
        "feature_set": chosen
        and {"name": chosen.name, "version": chosen.version, "hash": chosen.hash().hex()},
        "priors": dict(zip((*study.columns, "bias"), study.priors, strict=True)) if study.priors else {},
        "model": {
            "kind": study.model,
            "parameters": study.parameters,
            "layers": {layer.name: [layer.outputs, layer.inputs] for layer in study.layout},
            "own_part": study.local,
        },
        "rounds": [_round(record, exact=study.exact is not None) for record in rounds],
        "metrics": [metric.to_json() for metric in status.metrics],
        "best_round": status.best_round,
        "stopped_early": status.stopped_early,
        "refusals": dict(Counter(code for record in rounds for code in record.refusals.values())),
        "privacy": _privacy(study, status, rounds, steps=max(checkpoint.steps, opened_steps(status, folder))),
        "provenance": {
            "plan_hash": study.plan_hash().hex(),
            "rounds": checkpoint.round,
            "rounds_planned": study.training.rounds,
            "steps": checkpoint.steps,
            "steps_planned": study.training.steps,
            "software": _software(),
        },
        "limitations": [
            *_of_this(study, status, checkpoint),
            *LIMITATIONS,
            *([KNOWN_NOWHERE] if study.exact else [KNOWN_IN_PART, NOISE]),
        ],
    }


def _intended_use(study: Study) -> str:
    of_whom = f"patients like these: {cohort_words(study)}"
    if study.exact is not None:
        return f"Research: {model_words(study)}, of {outcome_words(study)}, in {of_whom}."
    return (
        f"Research: to predict {outcome_words(study)}, for {of_whom}. Before use at a hospital, to be"
        " evaluated on that hospital's own patients."
    )


def _round(record: RoundRecord, *, exact: bool) -> dict[str, Any]:
    """Return what the consortium may know of a round: never which hospital, nor the length of a bare sum."""
    found = record.to_json()
    del found["refusals"]
    return found | ({"sum_norm": None, "noise_norm": None} if exact else {})


def _privacy(study: Study, status: Status, rounds: tuple[RoundRecord, ...], *, steps: int) -> dict[str, Any]:
    """Return what the run promised and what its `steps` opened sums cost, and how that grew."""
    privacy = study.privacy
    unit = f"one patient, seen at up to {privacy.max_sites_per_patient} of the hospitals"
    if study.exact is not None:
        return {"unit": unit, "epsilon": None, "after_rounds": [], "threat_model": list(WITHOUT_NOISE)}
    so_far, after = 0, []
    every = -(-len(rounds) // POINTS)
    for place, record in enumerate(rounds, start=1):
        so_far += record.steps
        if place % every == 0 or place == len(rounds):
            cost = spent(study, steps=so_far, looks=looks(status, until=record.round))
            after.append({"round": record.round, "epsilon": cost})
    return {
        "unit": unit,
        "epsilon": spent(study, steps=steps, looks=looks(status)),
        "epsilon_promised": privacy.epsilon,
        "delta": privacy.delta,
        "clip_norm": privacy.clip_norm,
        "noise_multiplier": noise_multiplier(study),
        "after_rounds": after,
        "threat_model": list(THREAT_MODEL),
    }


def _software() -> dict[str, str]:
    found = {}
    for name in SOFTWARE:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _of_this(study: Study, status: Status, checkpoint: Checkpoint) -> list[str]:
    found = []
    if status.state != FINISHED:
        found.append(
            f"The run is {status.state}: {checkpoint.round} of {study.training.rounds} rounds were trained."
        )
    elif checkpoint.steps < study.training.steps:
        found.append(
            f"{checkpoint.steps} of {study.training.steps} steps were opened; the others were lost in rounds"
            " that broke off."
        )
    if status.stopped_early:
        found.append("Training ended early: looks at validation patients brought no improvement any more.")
    if looks_ahead(study):
        found.append(LOOKS_AHEAD)
    if study.local != "none":
        found.append("Each hospital adds a part of its own, which is not in the package and never leaves it.")
    return found


def card_text(card: dict[str, Any]) -> str:
    """Return the card for a person, as Markdown."""
    privacy, made = card["privacy"], card["provenance"]
    sites = sorted({record["sites"] for record in card["rounds"]})
    lines = [
        f"# {card['name']}",
        "",
        card["intended_use"],
        "",
        "## Plan",
        "",
        *(f"- **{name}**: {text}" for name, text in card["plan"]),
        "",
        "## Privacy",
        "",
        _cost(privacy),
        "",
        *(f"- {line}" for line in privacy["threat_model"]),
        "",
        "## Where it comes from",
        "",
        f"- run `{card['run']}` ({card['state']}), {made['rounds']} of {made['rounds_planned']} rounds,"
        f" {made['steps']} of {made['steps_planned']} steps",
        f"- hospitals in a round: {_range(sites)}",
        f"- plan `{card['plan_hash']}`",
        f"- parameters `{card['parameters_digest']}`",
        *([_feature_set(card["feature_set"])] if card["feature_set"] else []),
        *([_priors(card["priors"])] if card["priors"] else []),
        "- " + ", ".join(f"{name} {number}" for name, number in made["software"].items()),
        "",
        "## Refusals",
        "",
        *([f"- {_refusal(code, count)}" for code, count in card["refusals"].items()] or ["None."]),
        "",
        "## Limitations",
        "",
        *(f"- {line}" for line in card["limitations"]),
        "",
        f"## Columns ({len(card['columns'])})",
        "",
        ", ".join(f"`{name}`" for name in card["columns"]),
        "",
    ]
    return "\n".join(lines)


def _cost(privacy: dict[str, Any]) -> str:
    if privacy["epsilon"] is None:
        return "None."
    return (
        f"ε {privacy['epsilon']:.3f} at δ {privacy['delta']:g} for {privacy['unit']};"
        f" at most {privacy['epsilon_promised']:g} was promised."
    )


def _feature_set(chosen: dict[str, Any]) -> str:
    return f"- feature set {chosen['name']} version {chosen['version']}, `{chosen['hash']}`"


def _priors(priors: dict[str, float]) -> str:
    stated = ", ".join(f"{name} {weight:g}" for name, weight in priors.items() if weight)
    return f"- public weights that it started from: {stated}"


def _refusal(code: str, count: int) -> str:
    times = "once" if count == 1 else f"{count} times"
    return f"`{code}`, {times}: {RefusalCode(code).help}"


def _range(counts: list[int]) -> str:
    if not counts:
        return "none"
    return str(counts[0]) if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]}"
