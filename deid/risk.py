"""How far a person can be singled out in a table by what others may know of them.

The unit is one record per person. Records with the same quasi-identifiers form a class; somebody who knows
these of a person and that the person is in the table (the *prosecutor*) finds the right record with the
chance one over the size of the class. Nothing here knows which of a table's columns others may know: choosing
them is the judgement of whoever releases it. Missing values are a value of their own.

Source: El Emam, Dankar, Vaillancourt et al. 2009 (prosecutor risk); Sweeney 2002 (k-anonymity);
Machanavajjhala et al. 2007 (l-diversity); Samarati 2001 (generalization with suppression).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_CELL = 11  # CMS cell-size suppression policy: no cell of 1 to 10
MOST_LEVELS = 20_000  # combinations of generalization that are tried
SUPPRESSED = "*"

Codes = NDArray[np.int64]
Generalize = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Risk:
    """What a table lets somebody do who knows its quasi-identifiers of a person."""

    records: int
    quasi: tuple[str, ...]
    classes: int
    k: int  # records in the smallest class
    unique: int  # records alone in their class
    in_small_cells: int  # records in classes below `small_cell`
    small_cell: int
    highest: float  # prosecutor: 1 / k
    mean: float  # prosecutor: the share of records found if each is looked for once
    sizes: Mapping[int, int]  # records by the size of their class
    diversity: Mapping[str, int]  # per sensitive column, the fewest values within a class (l)

    def as_json(self) -> dict[str, Any]:
        """Return the figures as plain values."""
        bands = ((1, 1), (2, 4), (5, 10), (11, 19), (20, 99), (100, None))
        return {
            "records": self.records,
            "quasi_identifiers": list(self.quasi),
            "classes": self.classes,
            "k": self.k,
            "unique": self.unique,
            "unique_share": self.unique / self.records if self.records else 0.0,
            "in_small_cells": self.in_small_cells,
            "small_cell": self.small_cell,
            "prosecutor_risk": {"highest": self.highest, "mean": self.mean},
            "records_by_class_size": {
                f"{low}" if low == high else f"{low}-{high}" if high else f"{low}+": sum(
                    count for size, count in self.sizes.items() if low <= size <= (high or size)
                )
                for low, high in bands
            },
            "l_diversity": dict(self.diversity),
        }


def risk(
    columns: Mapping[str, Sequence[object]],
    *,
    quasi: Sequence[str],
    sensitive: Sequence[str] = (),
    small_cell: int = MIN_CELL,
) -> Risk:
    """Return what the quasi-identifiers of a table let somebody do.

    Args: columns: of the same length, one value per person.
    Raises: ValueError for a column that is not there, or without quasi-identifiers.
    """
    size = _checked(columns, quasi, sensitive)
    of_class, counts = classes_of([codes_of(columns[name]) for name in quasi], size)
    per_record = counts[of_class] if size else np.zeros(0, np.int64)
    sizes, records = np.unique(per_record, return_counts=True)
    k = int(counts.min()) if size else 0
    return Risk(
        records=size,
        quasi=tuple(quasi),
        classes=len(counts),
        k=k,
        unique=int((per_record == 1).sum()),
        in_small_cells=int((per_record < small_cell).sum()),
        small_cell=small_cell,
        highest=1 / k if k else 0.0,
        mean=len(counts) / size if size else 0.0,
        sizes={int(one): int(many) for one, many in zip(sizes, records, strict=True)},
        diversity={name: _diversity(of_class, codes_of(columns[name])) for name in sensitive},
    )


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Ways to say a value, from the exact one to nothing at all; each a function of the value."""

    levels: tuple[tuple[str, Generalize], ...]

    @property
    def steps(self) -> int:
        """How often it can be made coarser."""
        return len(self.levels) - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How coarse each column becomes, and which records leave, so that every class has k records."""

    k: int
    levels: Mapping[str, str]  # per column, the name of its level
    suppressed: NDArray[np.bool_]
    columns: Mapping[str, list[str]]  # the quasi-identifiers as generalized; "*" in records that leave
    loss: float  # 0: nothing changed, 1: nothing left


def plan(
    columns: Mapping[str, Sequence[object]],
    hierarchies: Mapping[str, Hierarchy],
    *,
    k: int,
    most_suppressed: float,
) -> Plan | None:
    """Return the least generalization by which every class that stays has k records; None if there is none.

    Every combination of levels is tried, so that no better one is missed; loss is the mean of how far each
    column went up its levels, plus the share of records that leave.

    Args: most_suppressed: the share of records that may leave, 0 to 1.
    Raises: ValueError for k below 2, a share out of range, or more than 20,000 combinations.
    """
    if k < 2 or not 0 <= most_suppressed < 1:
        raise ValueError("k is 2 or more, and a share from 0 to below 1 may leave")
    names = list(hierarchies)
    size = _checked(columns, names, ())
    combinations = list(product(*(range(len(hierarchies[name].levels)) for name in names)))
    if len(combinations) > MOST_LEVELS:
        raise ValueError(f"{len(combinations)} combinations of levels: choose fewer quasi-identifiers")
    values = {
        name: [[change(_text(value)) for value in columns[name]] for _, change in hierarchies[name].levels]
        for name in names
    }
    codes = {name: [codes_of(level) for level in values[name]] for name in names}
    best: tuple[float, tuple[int, ...], NDArray[np.bool_]] | None = None
    for chosen in sorted(combinations, key=lambda levels: _height(levels, hierarchies, names)):
        height = _height(chosen, hierarchies, names)
        if best is not None and height >= best[0]:
            break  # sorted: no later one can lose less
        of_class, counts = classes_of([codes[n][at] for n, at in zip(names, chosen, strict=True)], size)
        leave = counts[of_class] < k if size else np.zeros(0, bool)
        share = float(leave.mean()) if size else 0.0
        if share <= most_suppressed and (best is None or height + share < best[0]):
            best = (height + share, chosen, leave)
    if best is None:
        return None
    loss, chosen, leave = best
    return Plan(
        k=k,
        levels={n: hierarchies[n].levels[at][0] for n, at in zip(names, chosen, strict=True)},
        suppressed=leave,
        columns={
            name: [SUPPRESSED if gone else value for value, gone in zip(values[name][at], leave, strict=True)]
            for name, at in zip(names, chosen, strict=True)
        },
        loss=min(1.0, loss),
    )


def codes_of(values: Sequence[object]) -> Codes:
    """Return a number for each distinct value."""
    seen: dict[str, int] = {}
    return np.array([seen.setdefault(_text(value), len(seen)) for value in values], dtype=np.int64)


def classes_of(columns: Sequence[Codes], size: int) -> tuple[Codes, Codes]:
    """Return the class of each record, and how many records each class has."""
    of_class = np.zeros(size, dtype=np.int64)
    counts = np.array([size] if size else [], dtype=np.int64)
    for codes in columns:
        joined = of_class * (int(codes.max(initial=0)) + 1) + codes  # below 2^63: both are below the records
        _, of_class, counts = np.unique(joined, return_inverse=True, return_counts=True)
    return of_class, counts


def bands(width: int) -> Generalize:
    """Return what says of a number in which band of `width` it lies; what is no number stays.

    >>> bands(5)("1983"), bands(5)("unknown")
    ('1980-1984', 'unknown')
    """

    def band(value: str) -> str:
        try:
            low = int(float(value)) // width * width
        except ValueError:
            return value
        return f"{low}-{low + width - 1}"

    return band


def _diversity(of_class: Codes, sensitive: Codes) -> int:
    """The fewest distinct values of a column within a class."""
    if not len(of_class):
        return 0
    pairs = np.unique(np.stack([of_class, sensitive]), axis=1)
    return int(np.unique(pairs[0], return_counts=True)[1].min())


def _height(levels: Sequence[int], hierarchies: Mapping[str, Hierarchy], names: Sequence[str]) -> float:
    """How far up its levels a column went on average: 0 for exact, 1 for nothing left."""
    steps = [level / max(1, hierarchies[name].steps) for name, level in zip(names, levels, strict=True)]
    return sum(steps) / len(steps)


def _checked(columns: Mapping[str, Sequence[object]], quasi: Sequence[str], sensitive: Sequence[str]) -> int:
    if not quasi:
        raise ValueError("name the quasi-identifiers: what others may know of a person")
    for name in (*quasi, *sensitive):
        if name not in columns:
            raise ValueError(f"there is no column {name}")
    lengths = {len(columns[name]) for name in (*quasi, *sensitive)}
    if len(lengths) != 1:
        raise ValueError("the columns have different lengths")
    return lengths.pop()


def _text(value: object) -> str:
    return "" if value is None else str(value)
