"""What a question is asked with, in the words that a researcher types."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Required, TypedDict, TypeVar

from protocols.cohort import Window
from protocols.statistic import MalformedStatistic, OneValue, Which

Watcher = Callable[[str, int], None]  # called with a stage and the number of sites it concerns
Word = TypeVar("Word", bound=StrEnum)


class Terms(TypedDict, total=False):
    """At what price and how a question is asked; `Client.ask` says what each means."""

    epsilon: Required[float]
    project: Required[str]
    delta: float | None
    mechanism: str
    max_sites_per_patient: int
    timeout_s: float
    progress: Watcher | None


def one_value(
    concept: int, *, descendants: bool, unit: int | None, which: str, window: tuple[int, int] | None
) -> OneValue:
    """Return how a patient gets one number. Raises: MalformedStatistic."""
    days = None
    if window is not None:
        try:
            days = Window(*window)
        except (TypeError, ValueError) as error:
            raise MalformedStatistic("window", "first and last day relative to the index date") from error
    return OneValue(concept, descendants, unit, word("which", which, Which), days)


def word(name: str, text: str, words: type[Word]) -> Word:
    """Return the word that a text is. Raises: MalformedStatistic, naming all there are."""
    try:
        return words(text)
    except ValueError:
        raise MalformedStatistic(name, f"one of {', '.join(words)}") from None
