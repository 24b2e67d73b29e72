"""Small charts as SVG inside a page: nothing is fetched, nothing runs, and they follow light and dark.

Colours are those of the page's style sheet (classes `ink`, `soft`, `one`, `two`, `band`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 44
TICKS = 5  # at most, on an axis

STYLE = """
svg.chart { max-width: 100%; height: auto; }
.chart text { fill: var(--soft); font: 11px system-ui, sans-serif; } .chart text.key { fill: var(--ink); }
.chart .axis { stroke: var(--line); stroke-width: 1; fill: none; }
.chart .one { stroke: var(--one); fill: none; stroke-width: 2; }
.chart .two { stroke: var(--two); fill: none; stroke-width: 2; stroke-dasharray: 5 4; }
.chart .three { stroke: var(--soft); fill: none; stroke-width: 1.5; stroke-dasharray: 2 3; }
.chart .dot, .chart .bar { fill: var(--one); stroke: none; } .chart .minus { fill: var(--two); }
.chart .error { stroke: var(--one); stroke-width: 1; }
"""


@dataclass(frozen=True, slots=True)
class Series:
    """One line: its points (x, y), what it is called, which style it has ("one", "two" or "three").

    `errors`: how far each point reaches below and above. `dots`: whether points are marked.
    """

    name: str
    points: Sequence[tuple[float, float]]
    style: str = "one"
    errors: Sequence[tuple[float, float]] = ()
    dots: bool = True


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis: its label, its ends if they are to be these, whether only whole numbers stand at ticks."""

    label: str
    low: float | None = None
    high: float | None = None
    whole: bool = False


def lines(series: Sequence[Series], *, x: Axis, y: Axis, title: str, key_left: bool = False) -> str:
    """Return a chart of lines. Empty series are left out; the key stands at the right, or at the left."""
    shown = [one for one in series if one.points]
    if not shown:
        return ""
    reach = [p[1] for s in shown for p in s.points]
    for one in shown:
        for (_, py), (below, above) in zip(one.points if one.errors else (), one.errors, strict=True):
            reach += [py - below, py + above]
    across = _Scale.over([p[0] for s in shown for p in s.points], x, LEFT, WIDTH - RIGHT)
    up = _Scale.over(reach, y, HEIGHT - BOTTOM, TOP)
    parts = [_frame(across, up, x, y)]
    for one in shown:
        path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in one.points)
        parts.append(f'<polyline class="{one.style}" points="{path}"/>')
        for place, (px, py) in enumerate(one.points):
            if one.errors:
                below, above = one.errors[place]
                low, high = up(py - below), up(py + above)
                parts.append(f'<path class="error" d="M{across(px):.1f} {low:.1f}V{high:.1f}"/>')
            if one.dots:
                parts.append(f'<circle class="dot" cx="{across(px):.1f}" cy="{up(py):.1f}" r="2.6"/>')
    parts.append(_key(shown, LEFT + 12 if key_left else WIDTH - 168))
    return _chart("".join(parts), title)


def bars(values: Sequence[tuple[str, float]], *, title: str, low: float | None = None) -> str:
    """Return horizontal bars from zero (or `low`), each with its name and its value."""
    if not values:
        return ""
    row, left = 20, 190
    height = row * len(values) + 12
    bottom = min(0.0, *(v for _, v in values)) if low is None else low
    top = max(bottom + 1e-9, max((v for _, v in values), default=1.0), 0.0 if low is None else low)
    room = WIDTH - left - 54
    zero = left + room * (max(bottom, 0.0) - bottom) / (top - bottom)

    def at(value: float) -> float:
        return left + room * (value - bottom) / (top - bottom)

    parts = []
    for place, (name, value) in enumerate(values):
        y, end = 6 + row * place, at(value)
        start, width = min(zero, end), max(abs(end - zero), 0.5)
        kind = "bar" if value >= 0 else "minus"
        parts.append(
            f'<text class="key" x="{left - 6}" y="{y + 13}" text-anchor="end">{escape(_short(name))}</text>'
        )
        parts.append(
            f'<rect class="{kind}" x="{start:.1f}" y="{y + 2}" width="{width:.1f}" height="{row - 6}"/>'
        )
        parts.append(f'<text x="{max(end, zero) + 5:.1f}" y="{y + 13}">{number(value)}</text>')
    return _chart("".join(parts), title, height=height)


def number(value: float) -> str:
    """Return a value for a person: three digits, no exponent where none is needed.

    >>> number(0.8241), number(1234.5), number(-0.00002)
    ('0.824', '1234', '-2e-05')
    """
    if value and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.2g}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True, slots=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]

    @classmethod
    def over(cls, values: Sequence[float], axis: Axis, start: float, end: float) -> _Scale:
        low = min(values) if axis.low is None else axis.low
        high = max(values) if axis.high is None else axis.high
        if high <= low:
            low, high = low - 0.5, high + 0.5
        step = _step((high - low) / TICKS, whole=axis.whole)
        first = math.floor(low / step) if axis.low is None else math.ceil(low / step)
        last = math.ceil(high / step) if axis.high is None else math.floor(high / step)
        if axis.whole:
            first, last = math.ceil(low / step), math.floor(high / step)
        else:
            low, high = min(low, first * step), max(high, last * step)
        return cls(low, high, start, end, tuple(step * n for n in range(first, last + 1)))

    def __call__(self, value: float) -> float:
        return self.start + (self.end - self.start) * (value - self.low) / (self.high - self.low)


def _step(least: float, *, whole: bool) -> float:
    """Return a round number of 1, 2 or 5 that is at least `least`."""
    power = 10.0 ** math.floor(math.log10(least))
    found = next(factor * power for factor in (1.0, 2.0, 5.0, 10.0) if factor * power >= least * 0.999)
    return max(1.0, found) if whole else found


def _frame(across: _Scale, up: _Scale, x: Axis, y: Axis) -> str:
    base, side = HEIGHT - BOTTOM, LEFT
    parts = [f'<path class="axis" d="M{side} {TOP}V{base}H{WIDTH - RIGHT}"/>']
    for tick in across.ticks:
        parts.append(
            f'<text x="{across(tick):.1f}" y="{base + 15}" text-anchor="middle">{number(tick)}</text>'
        )
    for tick in up.ticks:
        parts.append(f'<path class="axis" d="M{side - 4} {up(tick):.1f}H{side}"/>')
        parts.append(f'<text x="{side - 7}" y="{up(tick) + 4:.1f}" text-anchor="end">{number(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x.label)}</text>')
    turn = f'transform="rotate(-90 12 {(TOP + base) / 2})"'
    parts.append(f'<text x="12" y="{(TOP + base) / 2}" {turn} text-anchor="middle">{escape(y.label)}</text>')
    return "".join(parts)


def _key(series: Sequence[Series], x: float) -> str:
    named = [one for one in series if one.name]
    parts = []
    for place, one in enumerate(named if len(series) > 1 else []):
        y = TOP + 8 + 15 * place
        parts.append(f'<path class="{one.style}" d="M{x} {y}h22"/>')
        parts.append(f'<text class="key" x="{x + 27}" y="{y + 4}">{escape(one.name)}</text>')
    return "".join(parts)


def _chart(inside: str, title: str, *, height: int = HEIGHT) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img">'
        f"<title>{escape(title)}</title>{inside}</svg>"
    )


def _short(name: str, *, at_most: int = 30) -> str:
    return name if len(name) <= at_most else name[: at_most - 1] + "…"
