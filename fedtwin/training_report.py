"""A training run as one page of HTML: no scripts, nothing fetched, readable in light and in dark.

It is made from a model's card (fedtwin.model_card), so a hospital makes the same page from a package as the
lead does from the run. With figures of one hospital (`fedtwin node evaluate`) in it the page must stay there,
and says so at its top. What is not known is said, and why.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from fedtwin import svg
from fedtwin.model_package import ModelPackage
from fedtwin.svg import Axis, Series, number
from fedtwin.training_report_exact import exact_part
from fedtwin.training_report_local import local_part
from fedtwin.training_report_page import page, table
from privacy.descent import unpacked
from protocols.refusal import RefusalCode

MOST_WEIGHTS = 40  # bars; more columns are told by a sentence
METRIC_WORDS = {"loss": "mean loss", "patients": "patients of the study"}


@dataclass(frozen=True, slots=True)
class Comparison:
    """What only a simulation knows: models of each hospital alone, federated and pooled, by one metric.

    Args:
        metric: what was measured, in words. why: why it may be known here.
        rows: (model, accuracy, AUC, a word on its privacy), in the order in which they are shown.
        evaluation: of the federated model on all hospitals' held-out patients, as a hospital makes one of
            its own.
    """

    metric: str
    why: str
    rows: Sequence[tuple[str, float, float, str]]
    evaluation: Mapping[str, Any] | None = None


def report(
    package: ModelPackage, *, local: Mapping[str, Any] | None = None, simulated: Comparison | None = None
) -> str:
    """Return the page of a run.

    Args: local: what `fedtwin node evaluate` kept, of the same model. Raises: ValueError for another model's.
    """
    card = package.card
    if local is not None and local.get("parameters_digest") != card["parameters_digest"]:
        raise ValueError("the evaluation is of another model than the report")
    parts = [
        _head(card),
        _plan(card),
        exact_part(package),
        _rounds(card),
        _metrics(card),
        _privacy(card),
        _compared(simulated) if simulated else "",
        local_part(local) if local else "",
        _weights(package),
        _refusals(card),
        _unknown(card, local=local, simulated=simulated),
        _provenance(package),
    ]
    warning = str(local["stays"]) if local else ""
    return page(f"{card['name']}: training report", "".join(parts), warning=warning)


def _head(card: Mapping[str, Any]) -> str:
    privacy, made = card["privacy"], card["provenance"]
    sites = [record["sites"] for record in card["rounds"]]
    seconds = [record["seconds"] for record in card["rounds"]]
    figures = [
        ("none", "privacy: no noise was added")
        if privacy["epsilon"] is None
        else (f"ε {privacy['epsilon']:.3f}", f"at δ {privacy['delta']:g}, for one patient"),
        (f"{made['rounds']} of {made['rounds_planned']}", f"rounds, {made['steps']} steps"),
        (_span(sites), "hospitals in a round"),
        (f"{np.mean(seconds):.1f} s" if seconds else "–", "a round"),
        (f"{card['model']['parameters']:,}", "parameters"),
    ]
    shown = "".join(
        f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in figures
    )
    state = f"<p>Run <code>{escape(card['run'])}</code>, {escape(card['state'])}. "
    return (
        f"<h1>{escape(card['name'])}</h1>{state}{escape(card['intended_use'])}</p>"
        f'<div class="figures">{shown}</div>'
    )


def _plan(card: Mapping[str, Any]) -> str:
    rows = [(escape(name), escape(text)) for name, text in card["plan"]]
    return "<h2>The plan</h2>" + table(("", ""), rows)


def _rounds(card: Mapping[str, Any]) -> str:
    rounds = card["rounds"]
    if not rounds:
        return "<h2>Rounds</h2><p>No round has ended yet.</p>"
    across, most = Axis("round", whole=True), max(r["sites"] for r in rounds)
    charts = [
        svg.lines(
            [Series("", [(r["round"], r[key]) for r in rounds])],
            x=across,
            y=y,
            title=y.label,
        )
        for key, y in (
            ("seconds", Axis("seconds", low=0.0)),
            ("sites", Axis("hospitals", low=0.0, high=most + 0.5, whole=True)),
        )
    ]
    heads = ["Round#", "Steps#", "Hospitals#", "hold the same model#", "Seconds#"]
    rows = [
        [*(f"{r[key]}" for key in ("round", "steps", "sites", "agreeing")), f"{r['seconds']:.1f}"]
        for r in rounds
    ]
    told = "What the coordinator lawfully knows: who answered, and in what time."
    if rounds[0]["sum_norm"] is not None:
        told = (
            "What the coordinator lawfully knows: lengths of noisy sums, who answered in time. As a sum comes"
            " near the length that its noise alone has, a step learns little more."
        )
        charts.insert(0, _norms(rounds, across))
        heads += ["Norm#", "of noise#"]
        for row, r in zip(rows, rounds, strict=True):
            row += [number(r["sum_norm"]), number(r["noise_norm"])]
    return (
        f"<h2>Rounds</h2><p>{told}</p>{_charts(charts if len(rounds) > 1 else [])}"
        f"<details><summary>Round by round</summary>{table(heads, rows)}</details>"
    )


def _norms(rounds: Sequence[Mapping[str, Any]], across: Axis) -> str:
    noise = [(r["round"], r["noise_norm"]) for r in rounds]
    shown = [Series("noisy sum", [(r["round"], r["sum_norm"]) for r in rounds])]
    if any(value > 0.0 for _, value in noise):
        shown.append(Series("noise alone", noise, "two", dots=False))
    return svg.lines(shown, x=across, y=Axis("norm of a step's sum", low=0.0), title="Norm of the sums")


def _metrics(card: Mapping[str, Any]) -> str:
    found: dict[str, list[Mapping[str, Any]]] = {}
    for metric in card["metrics"]:
        found.setdefault(metric["name"], []).append(metric)
    charts = [
        svg.lines(
            [
                Series(
                    "", [(m["round"], m["value"]) for m in some], errors=[(m["noise_sd"],) * 2 for m in some]
                )
            ],
            x=Axis("round", whole=True),
            y=Axis(METRIC_WORDS.get(name, name)),
            title=name,
        )
        for name, some in found.items()
    ]
    if not charts:
        return ""
    best = card.get("best_round")
    told = f" The model is that of round {best}, the best by them." if best else ""
    return (
        "<h2>On validation patients</h2><p>Noisy figures over all hospitals, which the plan bought; a bar is"
        f" a standard deviation of the noise.{told}</p>" + _charts(charts)
    )


def _privacy(card: Mapping[str, Any]) -> str:
    privacy = card["privacy"]
    lines = "".join(f"<li>{escape(line)}</li>" for line in privacy["threat_model"])
    after = privacy["after_rounds"]
    chart = ""
    unit = "" if privacy["epsilon"] is None else f"<p>The unit: {escape(privacy['unit'])}.</p>"
    if after:
        promised = privacy["epsilon_promised"]
        chart = svg.lines(
            [
                Series("spent", [(0, 0.0), *((row["round"], row["epsilon"]) for row in after)]),
                Series("promised", [(0, promised), (after[-1]["round"], promised)], "two", dots=False),
            ],
            x=Axis("round", whole=True),
            y=Axis(f"ε at δ {privacy['delta']:g}", low=0.0, high=1.25 * promised),
            title="Privacy spent",
        )
    return f"<h2>Privacy</h2>{unit}{_charts([chart] if chart else [])}<ul>{lines}</ul>"


def _compared(simulated: Comparison) -> str:
    rows = [
        (escape(name), f"{accuracy:.3f}", f"{auc:.3f}", escape(note))
        for name, accuracy, auc, note in simulated.rows
    ]
    chart = svg.bars([(name, accuracy) for name, accuracy, _, _ in simulated.rows], title="Accuracy", low=0.0)
    inside = simulated.evaluation
    everyone = local_part(inside, title="On all hospitals’ held-out patients, only here") if inside else ""
    return (
        f"<h2>Local, federated, pooled</h2><p>{escape(simulated.metric)}. Only here: {escape(simulated.why)}."
        f" In a consortium nobody can know the pooled row.</p>{_charts([chart])}"
        + table(("Model", "Accuracy#", "AUC#", "Privacy"), rows)
        + everyone
    )


def _weights(package: ModelPackage) -> str:
    study = package.study
    if len(study.layout) != 1 or study.outcome.outputs != 1 or study.hidden or study.exact is not None:
        return ""
    ((weights, biases),) = unpacked(study.layout, package.parameters).values()
    named = sorted(zip(study.columns, weights[0].tolist(), strict=True), key=lambda pair: -abs(pair[1]))
    more = len(named) - MOST_WEIGHTS
    what = "the log odds" if study.outcome.task == "binary" else "the prediction, whose half range is 1"
    also = f" The {more} smallest of {len(named)} are left out." if more > 0 else ""
    return (
        f"<h2>Weights</h2><p>What half of a column's public range, or a yes, adds to {what}, largest first;"
        f" the bias is {number(float(biases[0]))}. They carry the noise of all steps.{also}</p>"
        + _charts([svg.bars(named[:MOST_WEIGHTS], title="Weights")])
    )


def _refusals(card: Mapping[str, Any]) -> str:
    if not card["refusals"]:
        return "<h2>Refusals</h2><p>No hospital fell out of a round.</p>"
    rows = [
        (f"<code>{escape(code)}</code>", f"{count}", escape(RefusalCode(code).help))
        for code, count in card["refusals"].items()
    ]
    return (
        "<h2>Refusals</h2><p>How often a hospital fell out of a round, by the code that left it. Which"
        " hospital it was stays with the lead.</p>" + table(("Code", "Times#", "What it means"), rows)
    )


def _unknown(
    card: Mapping[str, Any], *, local: Mapping[str, Any] | None, simulated: Comparison | None
) -> str:
    found = ["How many patients each hospital has: no hospital tells anybody."]
    exact = (
        card["privacy"]["epsilon"] is None
    )  # its result is that of all records, and no sums of it are sold
    if not card["metrics"] and not exact:
        found.append(
            "How well the model predicts over all hospitals: the plan bought no figures of it ([validation])."
        )
    if local is None and simulated is None:
        found.append(
            "Calibration, and how it does by sex and age: exact figures never leave a hospital. Each can add"
            " its own to this page, for its own eyes: `fedtwin node evaluate`, then `train report --local`."
        )
    if simulated is None and not exact:
        found.append("What a model of all records in one place would reach: nobody may hold them.")
    limits = "".join(f"<li>{_with_code(line)}</li>" for line in (*found, *card["limitations"]))
    return f"<h2>What is not known, and limits</h2><ul>{limits}</ul>"


def _provenance(package: ModelPackage) -> str:
    card, signer = package.card, package.signer
    chosen = card["feature_set"]
    rows = [
        ("plan", f"<code>{card['plan_hash']}</code>"),
        ("parameters", f"<code>{card['parameters_digest']}</code>"),
        ("made", escape(card["made_at"])),
        ("software", escape(", ".join(f"{n} {v}" for n, v in card["provenance"]["software"].items()))),
        ("signed by", escape(signer.name) if signer else "nobody"),
    ]
    if chosen:
        rows.append(
            ("feature set", f"{escape(chosen['name'])} {chosen['version']}, <code>{chosen['hash']}</code>")
        )
    if card["priors"]:
        stated = ", ".join(f"{name} {weight:g}" for name, weight in card["priors"].items() if weight)
        rows.append(("public weights it started from", escape(stated)))
    return "<h2>Where it comes from</h2>" + table(("", ""), rows)


def _with_code(text: str) -> str:
    """Return text as HTML, what stands in backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if place % 2 else part for place, part in enumerate(parts))


def _charts(charts: Iterable[str]) -> str:
    return '<div class="charts">' + "".join(charts) + "</div>"


def _span(counts: Sequence[int]) -> str:
    if not counts:
        return "–"
    return f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
