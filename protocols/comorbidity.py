"""Comorbidity indices over ICD-10 codes: which group of diseases a code belongs to, and what groups weigh.

Codes are those of Quan et al. 2005 (Med Care 43:1130, table 1 and 2); weights those of Charlson et al. 1987
and, for Elixhauser's groups, of van Walraven et al. 2009. A code stands for all that begin with it. Of a mild
and a severe form of the same disease only the severe one counts towards a score.
"""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources

INDICES = ("charlson", "elixhauser")
MILDER = {  # group -> the one that takes its place
    "diabetes": "diabetes-complicated",
    "mild-liver": "severe-liver",
    "cancer": "metastatic-cancer",
    "solid-tumour": "metastatic-cancer",
    "hypertension": "hypertension-complicated",
}
_CODE = re.compile(r"[A-Z][0-9][0-9A-Z](\.?[0-9A-Z]{1,4})?")


@dataclass(frozen=True, slots=True)
class Group:
    """Diseases that count as one."""

    name: str
    weight: int
    prefixes: tuple[str, ...]  # without the point


@cache
def groups(index: str) -> tuple[Group, ...]:
    """Return the groups of an index, in the order of its columns."""
    text = resources.files("protocols").joinpath("comorbidities.csv").read_text()
    return tuple(
        Group(
            row["group"],
            int(row["weight"]),
            tuple(p for part in row["codes"].split() for p in _prefixes(part)),
        )
        for row in csv.DictReader(text.splitlines())
        if row["index"] == index
    )


def groups_of(index: str, code: str) -> tuple[int, ...]:
    """Return the places of the groups that an ICD-10 code belongs to; none for what is no such code.

    >>> [groups("charlson")[place].name for place in groups_of("charlson", "E11.22")]
    ['diabetes-complicated']
    """
    if not is_code(code):
        return ()
    bare = code.strip().upper().replace(".", "")
    return tuple(place for place, group in enumerate(groups(index)) if bare.startswith(group.prefixes))


def is_code(text: str) -> bool:
    """Return whether text has the form of an ICD-10 code."""
    return _CODE.fullmatch(text.strip().upper()) is not None


def weights(index: str) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """Return each group's weight, and the place of the group that takes its place, if there is one."""
    names = [group.name for group in groups(index)]
    severe = (MILDER.get(name) for name in names)
    return (
        tuple(group.weight for group in groups(index)),
        tuple(names.index(name) if name in names else None for name in severe),
    )


def _prefixes(part: str) -> list[str]:
    """Return the codes of "I42.5-I42.9" or "I60-I69", without points."""
    first, _, last = part.replace(".", "").partition("-")
    if not last:
        return [first]
    digits = len(first) - 1
    return [f"{first[0]}{number:0{digits}d}" for number in range(int(first[1:]), int(last[1:]) + 1)]
