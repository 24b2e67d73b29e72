"""What a demo runs on: hospitals that do not exist, or the four public UCI heart-disease hospitals."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fedtwin.screen import Exit, Stop
from sim.network import Site
from sim.world import write_world

# Known narrowing of a coronary artery, and a raised cholesterol.
HEART_COHORT: dict[str, Any] = {
    "index": {"kind": "condition", "concepts": [317576]},
    "include": [{"kind": "measurement", "concepts": [3027114], "unit": 8840, "value": {"min": 240}}],
}
MINIMUM_SITES = 3  # below, the demo's policy refuses: a sum of two says too much to either


@dataclass(frozen=True, slots=True)
class Material:
    """Sites, a question, a plan, and why it is allowed to look at all of it at once.

    Args:
        question: the cohort in words.
        why_pooled: why the demo may compute a pooled row, which no consortium can.
        truth: what is known of the answer: label → number.
        has_textbook: whether there is a score from a textbook to hold the models against.
    """

    sites: tuple[Site, ...]
    cohort: dict[str, Any]
    question: str
    study: Path
    why_pooled: str
    truth: dict[str, int]
    has_textbook: bool = False


def invented(folder: Path, *, seed: int) -> Material:
    """Write hospitals that do not exist into `folder`."""
    world = write_world(folder, seed=seed)
    count = world.truth["count"]
    return Material(
        sites=tuple(Site(hospital.slug, hospital.title, hospital.files) for hospital in world.hospitals),
        cohort=json.loads(world.cohort.read_bytes()),
        question="type 2 diabetes, HbA1c of 7.5 % or more within a year of the diagnosis, on metformin",
        study=world.study,
        why_pooled="these hospitals do not exist",
        truth={"recorded in the files": int(count["recorded"]), "in fact": int(count["in_fact"])},
    )


def heart(data: Path, folder: Path) -> Material:
    """Take each processed.*.data in `data` as one hospital. Raises: Stop if there are too few."""
    files = sorted(data.glob("processed.*.data"))
    if len(files) < MINIMUM_SITES:
        raise Stop(
            Exit.USAGE,
            f"{data} holds {len(files)} files named processed.*.data; at least {MINIMUM_SITES} hospitals are"
            " needed (UCI heart disease: cleveland, hungarian, switzerland, va)",
        )
    folder.mkdir(parents=True, exist_ok=True)
    study = folder / "heart.toml"
    study.write_bytes(resources.files("sim").joinpath("studies", "heart.toml").read_bytes())
    names = [file.name.split(".")[1] for file in files]
    return Material(
        sites=tuple(Site(name, name.capitalize(), file) for name, file in zip(names, files, strict=True)),
        cohort=HEART_COHORT,
        question="coronary disease at angiography and a cholesterol of 240 mg/dL or more",
        study=study,
        why_pooled="these records are public",
        truth={},
        has_textbook=True,
    )
