"""The report as one page of HTML: no scripts, nothing fetched, readable in light and in dark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from node.quality.catalogue import KINDS

_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6675; --paper: #fff; --line: #d9dee5;
  --good: #1f7a4d; --bad: #b3261e; --bar: #e7ebf0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #14181e;
  --line: #2c343f; --good: #5cc28f; --bad: #ff8a80; --bar: #252c36; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 70rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
p, caption { color: var(--soft); } p { margin: .25rem 0 1rem; max-width: 46rem; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: left; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } th { font-weight: 600; color: var(--soft); font-size: .85rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: .9em ui-monospace, monospace; } td code { overflow-wrap: anywhere; }
.good { color: var(--good); } .bad { color: var(--bad); }
.figures { display: flex; flex-wrap: wrap; gap: .75rem 2.5rem; margin: 1.25rem 0; }
.figures div { min-width: 8rem; } .figures b { display: block; font-size: 1.7rem; font-weight: 600; }
.figures span { color: var(--soft); font-size: .85rem; }
meter { width: 8rem; height: .7rem; vertical-align: middle; }
details summary { cursor: pointer; padding: .35rem 0; }
"""


def page(report: Mapping[str, Any], *, title: str = "Data quality") -> str:
    """Return the page."""
    checks = report["checks"]
    failed = [check for check in checks if check["status"] in ("failed", "error")]
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src ',
            f"'unsafe-inline'\"><title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(title)}</h1>",
            f"<p>Made {escape(_moment(report['made_at']))} from the data as of <code>"
            f"{escape(report['epoch'][:12])}</code>. The checks and their thresholds are those of the OHDSI"
            " Data Quality Dashboard that apply to these tables, and temporal ones of fedtwin."
            " Counts are of records at this hospital: for the hospital’s own eyes.</p>",
            _figures(report, failed),
            _categories(report),
            _failed(failed),
            _mapping(report["mapping"]),
            _kinds(report),
            _others(checks),
            "</main></body></html>\n",
        )
    )


def _figures(report: Mapping[str, Any], failed: Sequence[Mapping[str, Any]]) -> str:
    summary = report["summary"]
    figures = (
        (_share(summary["pass_rate"]), "of checks passed"),
        (str(len(failed)), "checks failed"),
        (_share(report["mapping"]["share"]), "of records mapped"),
        (f"{report['persons']:,}", "persons"),
    )
    return (
        '<div class="figures">'
        + "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for value, name in figures)
        + "</div>"
    )


def _categories(report: Mapping[str, Any]) -> str:
    rows = (_tally(escape(name), tally) for name, tally in report["by_category"].items())
    return "<h2>By category</h2>" + _table(_TALLY, rows, caption="Kahn’s categories of data quality")


def _kinds(report: Mapping[str, Any]) -> str:
    rows = (
        _tally(f"<code>{escape(name)}</code><br>{escape(KINDS[name].says)}", tally)
        for name, tally in report["by_check"].items()
    )
    return "<h2>By check</h2>" + _table(_TALLY, rows, caption="What is counted, and how its checks came out")


_TALLY = ("", "Pass rate", "", "Passed#", "Failed#", "Not applicable#")


def _tally(name: str, tally: Mapping[str, Any]) -> tuple[str, ...]:
    rate = tally["pass_rate"]
    bar = "" if rate is None else f'<meter min="0" max="1" value="{rate}"></meter>'
    return (
        name,
        _share(rate),
        bar,
        *(f"{tally[key]:,}" for key in ("passed", "failed", "not_applicable")),
    )


def _failed(failed: Sequence[Mapping[str, Any]]) -> str:
    if not failed:
        return '<h2>Failed checks</h2><p class="good">None.</p>'
    ordered = sorted(failed, key=lambda check: (-check["failing_percent"], check["table"], check["check"]))
    rows = (
        (
            f"<code>{escape(_place(check))}</code>",
            f"<code>{escape(check['check'])}</code><br>{escape(KINDS[check['check']].says)}"
            + (f" ({escape(check['why'])})" if check["why"] else ""),
            f"{check['failing']:,} of {check['of']:,}",
            f'<span class="bad">{check["failing_percent"]:.2f} %</span>',
            f"{check['limit_percent']:g} %",
        )
        for check in ordered
    )
    return "<h2>Failed checks</h2>" + _table(("Where", "Check", "Failing#", "Share#", "At most#"), rows)


def _mapping(mapping: Mapping[str, Any]) -> str:
    tables = (
        (
            f"<code>{escape(table['table'])}</code>",
            _share(table["mapped"] / table["records"]),
            f"{table['records']:,}",
            f"{table['codes_mapped']:,} of {table['codes']:,}",
        )
        for table in mapping["tables"]
    )
    codes = [
        (
            f"<code>{escape(code['table'])}</code>",
            f"<code>{escape(code['code'])}</code>",
            f"{code['records']:,}",
        )
        for code in mapping["top_unmapped"]
    ]
    heads = ("Table", "Records mapped#", "Records#", "Source codes mapped#")
    named = _table(("Table", "Source code", "Records#"), codes) if codes else ""
    rare = mapping["unmapped_codes_not_named"]
    return (
        "<h2>Mapping to standard concepts</h2>"
        + _table(heads, tables)
        + "<h2>Source codes without a concept</h2>"
        + ("<p>None that can be named.</p>" if not codes else "")
        + named
        + (f"<p>{rare:,} more are used for fewer than 11 persons each, and not named.</p>" if rare else "")
    )


def _others(checks: Sequence[Mapping[str, Any]]) -> str:
    passed = [check for check in checks if check["status"] == "passed"]
    rows = (
        (
            f"<code>{escape(_place(check))}</code>",
            f"<code>{escape(check['check'])}</code>",
            f"{check['failing']:,} of {check['of']:,}",
            f"{check['limit_percent']:g} %",
        )
        for check in passed
    )
    table = _table(("Where", "Check", "Failing#", "At most#"), rows)
    return f"<h2>Passed checks</h2><details><summary>All {len(passed):,}</summary>{table}</details>"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], *, caption: str = "") -> str:
    """A table of cells that are HTML already. A head that ends in # is of numbers."""
    numbers = [head.endswith("#") for head in heads]

    def cells(tag: str, values: Sequence[str]) -> str:
        marks = (' class="n"' if number else "" for number in numbers)
        return "".join(f"<{tag}{mark}>{value}</{tag}>" for mark, value in zip(marks, values, strict=True))

    head = cells("th", [escape(name.removesuffix("#")) for name in heads])
    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{told}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _place(check: Mapping[str, Any]) -> str:
    place = f"{check['table']}.{check['field']}" if check["field"] else str(check["table"])
    return f"{place} = {', '.join(map(str, check['concepts']))}" if check["concepts"] else place


def _share(value: float | None) -> str:
    """A share in percent, never rounded up to 100."""
    if value is None:
        return "–"
    return f"{int(value * 1000) / 10:.1f} %" if value < 1 else "100 %"


def _moment(text: str) -> str:
    return text[:16].replace("T", " ") + " UTC"
