"""What every result of a question has: a table, what was charged for it, how it is shown, the raw answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, ClassVar

from fedtwin.estimates import Estimate, Interval, finite, shown
from fedtwin.view import View
from privacy import accountant, release
from privacy.accountant import GaussianEvent
from privacy.reading import Answer

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Row = dict[str, str | float | None]


@dataclass(frozen=True, slots=True)
class Charge:
    """What each hospital charged for an answer, for one patient at all of their hospitals."""

    epsilon: float
    delta: float
    releases: int

    def __str__(self) -> str:
        if not self.releases:
            return "nothing: answered before"
        times = "" if self.releases == 1 else f", for {self.releases} releases together"
        return f"epsilon {self.epsilon:.3g}, delta {self.delta:g}{times}"


@dataclass(frozen=True, repr=False)
class Result(ABC):
    """A statistic read from one answer. Figures are made consistent; `raw` holds the unbiased noisy cells.

    Nothing here costs privacy: it is arithmetic on what was released.
    """

    WHOLE: ClassVar[frozenset[str]] = frozenset()  # columns of counts, shown without a fraction
    UNIT: ClassVar[int] = 1  # of a raw cell: what one of those that are counted adds to it
    COUNTED: ClassVar[str] = "patients in each cell"

    raw: Answer

    @property
    @abstractmethod
    def headline(self) -> str:
        """The result in one line."""

    @abstractmethod
    def table(self) -> list[Row]:
        """Return the rows, numbers as numbers: `pandas.DataFrame(result.table())` reads them."""

    @abstractmethod
    def figures(self) -> dict[str, Any]:
        """Return what is of this statistic alone, for a machine to read."""

    # ---- what it cost, and how it came about ----

    @property
    def charged(self) -> Charge:
        """What was charged: releases composed by the hospitals' own accountant; nothing if cached."""
        raw = self.raw
        if raw.cached:
            return Charge(0.0, 0.0, 0)
        if raw.releases == 1:
            return Charge(raw.epsilon, raw.delta, 1)
        event = release.price(raw.question)
        if isinstance(event, GaussianEvent):
            both = accountant.epsilon([event.times(raw.releases)], delta=raw.delta)
        else:
            both = raw.releases * raw.epsilon
        return Charge(both, raw.delta, raw.releases)

    @property
    def epsilon(self) -> float:
        """Of one release."""
        return self.raw.epsilon

    @property
    def delta(self) -> float:
        """Of one release."""
        return self.raw.delta

    @property
    def releases(self) -> int:
        """How often the hospitals released something for this answer: 1, or 2 after a retry."""
        return self.raw.releases

    @property
    def mechanism(self) -> str:
        """Which noise, in words."""
        return self.raw.mechanism

    @property
    def unit_of_privacy(self) -> str:
        """Whom (epsilon, delta) protects, in words."""
        return self.raw.unit_of_privacy

    @property
    def sites(self) -> int:
        """How many hospitals are in the sum. Which ones is not said."""
        return self.raw.contributors

    @property
    def standard_deviation(self) -> float:
        """Of the noise in one raw cell."""
        return self.raw.standard_deviation

    @property
    def answered_at(self) -> datetime:
        """When the release was made."""
        return self.raw.answered_at

    @property
    def cached(self) -> bool:
        """Whether the same question had been answered before: then nothing was charged this time."""
        return self.raw.cached

    # ---- how it is shown ----

    def to_json(self) -> dict[str, Any]:
        """Return everything for a machine to read; `cells` are the raw ones, infinite ends are null."""
        charged = self.charged
        raw = self.raw.to_json()
        for first_cell in (
            "estimate",
            "ci95",
        ):  # of the first raw cell: figures of the statistic take their place
            del raw[first_cell]
        return {
            **raw,
            "kind": self.raw.question.statistic.kind,
            **self.figures(),
            "charged": {
                "epsilon": charged.epsilon,
                "delta": charged.delta,
                "releases": charged.releases,
            },
        }

    def facts(self) -> dict[str, str]:
        """Return how the answer came about, in words."""
        raw = self.raw
        deviation = raw.standard_deviation / self.UNIT
        charged = str(self.charged)
        if raw.cached:
            charged += f" on {raw.answered_at:%d %B %Y, %H:%M} UTC"
        return {
            "charged": charged,
            "protects": raw.unit_of_privacy,
            "hospitals": f"{raw.contributors} of {raw.participants}",
            "mechanism": f"{raw.mechanism}, standard deviation {deviation:.3g} {self.COUNTED}",
        }

    def view(self) -> View:
        """Return what a console or a notebook shows."""
        rows = self.table()
        columns = list(rows[0]) if rows else []
        texts = [[_text(row[name], whole=name in self.WHOLE) for name in columns] for row in rows]
        return View(self.headline, [name.replace("_", " ") for name in columns], texts, self.facts())

    def __repr__(self) -> str:
        return f"{type(self).__name__}: {self.view().text()}"

    def _repr_html_(self) -> str:
        return self.view().html()

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw the result with its 95 % intervals on `ax`, or on a new figure. Return the axes.

        Raises: PlotNeedsMatplotlib unless the extra `plot` is installed.
        """
        from fedtwin.plots import draw  # lazily: matplotlib is an extra

        return draw(self, ax)


def interval_text(figure: Estimate, what: str = "", *, whole: bool = False) -> str:
    """Return a figure of `what` with its interval as one line."""
    ends = interval_words(figure.ci95, whole=whole)
    return f"{shown(figure.value, whole=whole)}{' ' if what else ''}{what} (95 % interval {ends})"


def interval_words(interval: Interval, *, whole: bool = False) -> str:
    """Return an interval in words."""
    return " to ".join(shown(end, whole=whole) for end in interval)


def json_rows(rows: list[Row]) -> list[Row]:
    """Return rows without infinities."""
    return [
        {name: finite(cell) if isinstance(cell, float) else cell for name, cell in row.items()}
        for row in rows
    ]


def _text(cell: str | float | None, *, whole: bool) -> str:
    return cell if isinstance(cell, str) else shown(cell, whole=whole)
