"""The frame of a training report: its style sheet, and tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from fedtwin import svg

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6675; --paper: #fff; --line: #d9dee5;
  --one: #1f5fa8; --two: #c2571a; --warn: #fff1e6; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #14181e;
  --line: #2c343f; --one: #7db4f0; --two: #f2a071; --warn: #3a2618; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p, caption { color: var(--soft); } p { margin: .25rem 0 1rem; max-width: 46rem; }
ul { margin: .25rem 0 1rem; padding-left: 1.2rem; max-width: 46rem; } li { margin: .2rem 0; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { font-weight: 600; color: var(--soft); font-size: .85rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
.figures { display: flex; flex-wrap: wrap; gap: .75rem 2.5rem; margin: 1.25rem 0; }
.figures div { min-width: 7rem; } .figures b { display: block; font-size: 1.6rem; font-weight: 600; }
.figures span { color: var(--soft); font-size: .85rem; }
.charts { display: flex; flex-wrap: wrap; gap: 1rem 1.5rem; margin: .5rem 0 1rem; }
.warning { background: var(--warn); border-left: 4px solid var(--two); padding: .75rem 1rem;
  color: var(--ink); }
details summary { cursor: pointer; padding: .35rem 0; }
"""


def page(title: str, inside: str, *, warning: str = "") -> str:
    """Return the whole page. `inside` is HTML already; `warning` is text, at the top."""
    shown = (
        f'<p class="warning"><b>For this hospital’s own eyes.</b> {escape(warning)}</p>' if warning else ""
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src '
        f"'unsafe-inline'\"><title>{escape(title)}</title><style>{_STYLE}{svg.STYLE}</style></head>"
        f"<body><main>{shown}{inside}</main></body></html>\n"
    )


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are HTML already. A head that ends in # is of numbers."""
    numbers = [head.endswith("#") for head in heads]

    def cells(tag: str, values: Sequence[str]) -> str:
        marks = (' class="n"' if number else "" for number in numbers)
        return "".join(f"<{tag}{mark}>{value}</{tag}>" for mark, value in zip(marks, values, strict=True))

    head = cells("th", [escape(name.removesuffix("#")) for name in heads]) if any(heads) else ""
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
