"""`fedtwin audit`: attack a study's own training path before anybody trains it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.options import Json
from fedtwin.screen import Exit, Stop, emit_fields, emit_json

if TYPE_CHECKING:
    from privacy.audit.noise import NoiseSeen


def audit(
    study: Annotated[
        Path, typer.Argument(metavar="STUDY", exists=True, dir_okay=False, help="A study as TOML.")
    ],
    runs: Annotated[
        int, typer.Option(min=20, help="How often to train with the canary, and as often without.")
    ] = 300,
    canaries: Annotated[
        int, typer.Option(min=0, help="Of the audit in one run; 0 leaves it out, else at least 30.")
    ] = 200,
    sites: Annotated[
        int | None, typer.Option(min=2, help="Default: the study's minimum.", show_default=False)
    ] = None,
    confidence: Annotated[
        float,
        typer.Option(min=0.5, max=0.999999, help="Of each bound: how rarely it may exceed a true ε by luck."),
    ] = 0.999,
    seed: Annotated[int, typer.Option(help="Of the made-up patients. Noise is always fresh.")] = 1,
    json: Json = False,
) -> None:
    """Show how much an attacker learns from a study's noisy totals, beside what it claims.

    Trains on made-up patients by the code that the nodes run, with and without one patient chosen to be
    conspicuous, and guesses which was which. The answer is a lower bound on ε: above the claim, the claim is
    wrong (exit code 1). So it is if the noise itself has not the promised size, or was used again in a later
    step. No patient data is read, and no budget is spent.
    """
    import numpy as np
    import torch

    from fedtwin.progress import bar
    from fedtwin.study_file import read_study
    from privacy.rng import SecureBits
    from sim.one_run_audit import audit_in_one_run
    from sim.privacy_audit import audit as attack

    torch.set_num_threads(1)  # models this small are slower on more
    plan = read_study(study)
    if plan.exact is not None:
        raise Stop(Exit.USAGE, "a study without noise claims no privacy: there is no claim to audit")
    count = plan.sites.minimum if sites is None else sites
    bits, generator = SecureBits(), np.random.default_rng(seed)
    with bar("training", total=2 * runs, unit="runs") as line:
        many = attack(
            plan,
            runs=runs,
            sites=count,
            confidence=confidence,
            bits=bits,
            generator=generator,
            watch=lambda done, of: line.to(done, total=of),
        )
        one = None
        if canaries:
            line.describe("training once with canaries")
            one = audit_in_one_run(
                plan, canaries=canaries, sites=count, confidence=confidence, bits=bits, generator=generator
            )
    noise = many.noise
    refuted = many.refuted or (one is not None and one.refuted) or not noise.as_promised
    if json:
        emit_json(
            {
                "plan_hash": plan.plan_hash().hex(),
                "epsilon": many.epsilon,
                "delta": many.delta,
                "confidence": confidence,
                "runs": runs,
                "sites": count,
                "gaussian_bound": many.gaussian,
                "any_mechanism_bound": many.any_mechanism,
                "attainable": many.attainable,
                "one_run": None
                if one is None
                else {
                    "canaries": one.canaries,
                    "guesses": one.guesses,
                    "right": one.right,
                    "bound": one.bound,
                },
                "noise": {
                    "numbers": noise.numbers,
                    "spread": noise.spread,
                    "too_small": noise.too_small,
                    "too_large": noise.too_large,
                    "used_again": noise.used_again,
                },
                "refuted": refuted,
            }
        )
    else:
        fields = {
            "claimed": f"ε = {many.epsilon:g}, δ = {many.delta:g}, for one patient",
            "shown by many runs": f"ε ≥ {many.gaussian:.2f}, if noise is Gaussian ({2 * runs} runs)",
            "of any mechanism": f"ε ≥ {many.any_mechanism:.2f}",
            "ever more runs tend to": f"ε = {many.attainable:.2f}, what this canary costs",
        }
        if one is not None:
            fields["shown by one run"] = f"ε ≥ {one.bound:.2f} ({one.right} of {one.guesses} guesses right)"
        fields["the noise"] = _of_noise(noise)
        fields["the claim"] = "is wrong: do not train this" if refuted else "stands"
        emit_fields(fields)
    if refuted:
        raise typer.Exit(Exit.FAULT)


def _of_noise(noise: NoiseSeen) -> str:
    """Say what the noise of the runs showed: found means found, at the module's rate of false alarms."""
    size = f"{noise.spread:.3f} of the promised standard deviation ({noise.numbers} numbers)"
    wrong = {
        "too small": noise.too_small,
        "too large": noise.too_large,
        "used again in a later step": noise.used_again,
    }
    found = [name for name, is_so in wrong.items() if is_so]
    return f"{size}: {', '.join(found) if found else 'as it should be'}"
