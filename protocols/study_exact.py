"""An exact study: statistics without noise, for hospitals whose policies name the very plan.

No (ε, δ) covers what such a study releases, so it has no section [privacy]; what hospitals give up instead
stands in docs/threat-model.md. With `mode = "exact"` in [training] (which then only has `train_fraction`
besides, 1 by default) and no `model` in [study], the section says what is computed:

    [exact]     model = "logistic" | "linear" | "poisson" | "cox" | "kaplan-meier"
                iterations: the most sums that Newton's method may take (25)
                tolerance: it ends once a step is shorter than this, in standard errors (1e-9)
                ridge: half of it times the sum of squared coefficients is taken off the log-likelihood; an
                intercept is not shrunk (0)
    of "cox"    ties = "efron" | "breslow"; grid_days, if a baseline hazard is asked for
    of a curve  grid_days = [...], public; or every_days: a grid of these up to the outcome's until_days

What goes with what: logistic a yes or no, linear an "amount", poisson a "count", the other two "days".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from protocols.model_layout import Layout, Linear
from protocols.study_fields import (
    Fields,
    MalformedStudy,
    checked_float,
    checked_int,
    checked_list,
    checked_name,
)
from protocols.study_outcome import Outcome

TASKS = {
    "logistic": "binary",
    "linear": "regression",
    "poisson": "count",
    "cox": "days",
    "kaplan-meier": "days",
}
TIES = ("efron", "breslow")
MAX_ITERATIONS = 100
MAX_COEFFICIENTS = 200  # the information has half its square of entries: 20,000 numbers a sum
MAX_GRID = 4_096  # eleven years of days
ITERATIONS = 25
TOLERANCE = 1e-9


@dataclass(frozen=True, slots=True)
class Exact:
    """What is computed exactly. Which fields are set follows from `model`, as above."""

    model: str
    iterations: int = 1
    tolerance: float = TOLERANCE
    ridge: float = 0.0
    ties: str = ""
    grid_days: tuple[int, ...] = ()

    @property
    def sums(self) -> int:
        """The most sums of a run: those of Newton's method, and one for a baseline at its end."""
        return self.iterations + (self.model == "cox" and bool(self.grid_days))

    @property
    def intercept(self) -> bool:
        """Whether the model has one."""
        return self.model in ("logistic", "linear", "poisson")

    def coefficients(self, columns: int) -> int:
        """Return how many coefficients are fitted, the intercept among them."""
        return 0 if self.model == "kaplan-meier" else columns + self.intercept

    def layout(self, columns: int) -> Layout:
        """Return the layers of the state: the linear predictor of a model, and the rest of the result."""
        rest = len(HEAD) + triangle(self.coefficients(columns)) + 2 * len(self.grid_days)
        state = Linear("exact", 0, rest, True)
        return (state,) if self.model == "kaplan-meier" else (Linear("out", columns, 1, True), state)

    def to_json(self) -> dict[str, Any]:
        """Return the fields that the model has."""
        found: dict[str, Any] = {"model": self.model}
        if self.model != "kaplan-meier":
            found |= {"iterations": self.iterations, "tolerance": self.tolerance, "ridge": self.ridge}
        if self.ties:
            found["ties"] = self.ties
        if self.grid_days:
            found["grid_days"] = list(self.grid_days)
        return found


# What stands in the state before the information and the grid (privacy.exact_state), and in this order.
HEAD = ("verdict", "people", "events", "sites", "log_likelihood", "log_likelihood_start")


def triangle(size: int) -> int:
    """Return how many entries the upper triangle of a square matrix has, its diagonal included."""
    return size * (size + 1) // 2


def parse_exact(fields: Fields, outcome: Outcome) -> Exact:
    """Return what the section [exact] describes. Raises: MalformedStudy."""
    model = checked_name(*fields.take("model"), tuple(TASKS))
    if TASKS[model] != outcome.task:
        raise MalformedStudy("outcome.kind", f"an exact {model} model has another kind of outcome")
    found: dict[str, Any] = {}
    if model != "kaplan-meier":
        found["iterations"] = checked_int(*fields.take("iterations", ITERATIONS), low=1, high=MAX_ITERATIONS)
        found["tolerance"] = checked_float(*fields.take("tolerance", TOLERANCE), above=0.0, high=1e-3)
        found["ridge"] = checked_float(*fields.take("ridge", 0.0), low=0.0, high=1e6)
    if model == "cox":
        found["ties"] = checked_name(*fields.take("ties", "efron"), TIES)
    if model == "kaplan-meier" or (model == "cox" and ("grid_days" in fields or "every_days" in fields)):
        found["grid_days"] = _grid(fields, outcome.until_days)
    fields.done()
    return Exact(model, **found)


def _grid(fields: Fields, until_days: int) -> tuple[int, ...]:
    if "every_days" in fields:
        step = checked_int(*fields.take("every_days"), low=1, high=until_days)
        grid = [*range(step, until_days, step), until_days]
    else:
        value, path = fields.take("grid_days")
        grid = [
            checked_int(day, path, low=0, high=until_days)
            for day in checked_list(value, path, at_most=MAX_GRID)
        ]
    path = f"{fields.path}.grid_days"
    if not grid or grid != sorted(set(grid)):
        raise MalformedStudy(path, "needs days in ascending order")
    if len(grid) > MAX_GRID:
        raise MalformedStudy(path, f"at most {MAX_GRID} days")
    return tuple(grid)
