"""The page on which a person goes through what was missed and what was removed for nothing.

It holds the texts, identity included: it is written for its owner only (0600), fetches nothing and runs no
script. Documents with leaks come first, then those with needless removals, each text with its marks.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from deid.evaluation import Excess, Leak, Report, Share
from deid.gold_formats import GoldDocument
from deid.spans import Category, Span

MOST_DOCUMENTS = 500  # a page of a few megabytes; more than a person reads
_STYLE = """
:root { color-scheme: light dark; --ink: #1d2530; --soft: #5b6675; --paper: #fff; --line: #d9dee5;
  --found: #cdebd9; --leak: #f6b8b2; --excess: #ffdf9e; --neutral: #e3e7ec; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6eaf0; --soft: #9aa6b5; --paper: #14181e;
  --line: #2c343f; --found: #1f4a35; --leak: #7a2b25; --excess: #6a4f10; --neutral: #313a46; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 2rem 1.25rem 4rem; background: var(--paper);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2.25rem 0 .5rem; }
h3 { font-size: 1rem; margin: 1.75rem 0 .35rem; } h3 span { color: var(--soft); font-weight: 400; }
p { color: var(--soft); margin: .25rem 0 1rem; max-width: 46rem; }
table { border-collapse: collapse; width: 100%; } .wide { overflow-x: auto; }
th, td { text-align: left; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; color: var(--soft); font-size: .85rem; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 14px/1.6 ui-monospace, monospace;
  border-left: 3px solid var(--line); margin: 0; padding: .25rem 0 .25rem 1rem; }
mark { color: inherit; border-radius: 3px; padding: .1em .15em; }
mark.found { background: var(--found); } mark.neutral { background: var(--neutral); }
mark.leak { background: var(--leak); font-weight: 700; text-decoration: underline 2px; }
mark.excess { background: var(--excess); text-decoration: line-through; }
sup { color: var(--soft); font-size: .7em; }
"""


def write_page(
    path: Path,
    documents: Sequence[GoldDocument],
    predicted: Sequence[Sequence[Span]],
    report: Report,
    *,
    title: str,
) -> int:
    """Write the page, readable by its owner only, over a page that is there; return how many texts it shows.

    Raises: OSError.
    """
    errors = _by_document(report)
    chosen = sorted(
        (place for place, document in enumerate(documents) if document.id in errors),
        key=lambda place: (-len(errors[documents[place].id][0]), -len(errors[documents[place].id][1]), place),
    )[:MOST_DOCUMENTS]
    shown = [_document(documents[place], predicted[place], *errors[documents[place].id]) for place in chosen]
    left_out = len(errors) - len(chosen)
    more = f"<p>{left_out} more documents with errors are not shown.</p>" if left_out else ""
    page = "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src ',
            f"'unsafe-inline'\"><title>{escape(title)}</title><style>{_STYLE}</style></head><body><main>",
            f"<h1>{escape(title)}</h1><p>This page holds the texts with identity in them. Found identity is ",
            '<mark class="found">green</mark>, a leak <mark class="leak">red and underlined</mark>, a ',
            'needless removal <mark class="excess">struck through</mark>, and what is not scored ',
            '<mark class="neutral">grey</mark>.</p>',
            _figures(report),
            _categories(report),
            f"<h2>Texts with errors: {len(errors)}</h2>{more}",
            *shown,
            "</main></body></html>\n",
        )
    )
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8", errors="replace") as file:
        os.fchmod(handle, 0o600)  # also where a page with wider rights was there before
        file.write(page)
    return len(chosen)


def _by_document(report: Report) -> dict[str, tuple[list[Leak], list[Excess]]]:
    errors: dict[str, tuple[list[Leak], list[Excess]]] = {}
    for leak in report.leaks:
        errors.setdefault(leak.document, ([], []))[0].append(leak)
    for piece in report.excess:
        errors.setdefault(piece.document, ([], []))[1].append(piece)
    return errors


def _document(
    document: GoldDocument, spans: Sequence[Span], leaks: Sequence[Leak], excess: Sequence[Excess]
) -> str:
    """One text with every character's state; what a stretch was marked or found as stands beside it."""
    state = _states(document, spans)
    words = {piece.end: f"{piece.category.value} {piece.found_by}".strip() for piece in excess}
    words |= {leak.left[-1][1]: leak.label for leak in leaks}
    letters = {place for leak in leaks for start, end in leak.left for place in range(start, end)}
    pieces: list[str] = []
    begun = 0
    for place in range(1, len(state) + 1):
        if place < len(state) and state[place] == state[begun] and place not in words:
            continue
        text = escape(document.text[begun:place])
        kind = state[begun] if state[begun] != "leak" or begun in letters else "found"
        pieces.append(f'<mark class="{kind}">{text}</mark>' if kind else text)
        if place in words:
            pieces.append(f"<sup>{escape(words[place])}</sup>")
        begun = place
    counts = f"{len(leaks)} leaks, {len(excess)} needless removals"
    return f"<h3>{escape(document.id)} <span>{counts}</span></h3><pre>{''.join(pieces)}</pre>"


def _states(document: GoldDocument, spans: Sequence[Span]) -> list[str]:
    """What each character is: nothing, neutral, a leak, found, or removed for nothing."""
    state = [""] * len(document.text)
    for start, end in document.neutral:
        state[start:end] = ["neutral"] * (end - start)
    for mark in document.spans:
        state[mark.start : mark.end] = ["leak"] * (mark.end - mark.start)
    after = {"leak": "found", "": "excess"}
    for span in spans:
        for place in range(span.start, span.end):
            state[place] = after.get(state[place], state[place])
    return state


def _figures(report: Report) -> str:
    rows: Mapping[str, Share] = {
        "characters of identity removed (recall)": report.char_recall,
        "of names, ids, contacts, dates, addresses": report.core_char_recall,
        "other characters removed (over-redaction)": report.over_redaction,
        "marks wholly removed": report.entity_recall,
        "words removed that are identity (precision)": report.token_precision,
        "documents without a leak": report.fully_masked_documents,
    }
    lines = "".join(
        f"<tr><td>{escape(name)}</td><td class=n>{_text(share)}</td><td class=n>{_ends(share)}</td>"
        f"<td class=n>{share.part} of {share.whole}</td></tr>"
        for name, share in rows.items()
    )
    return (
        "<div class=wide><table><tr><th></th><th class=n>share</th><th class=n>95 %</th>"
        f"<th class=n></th></tr>{lines}</table></div>"
    )


def _categories(report: Report) -> str:
    leaks: dict[Category, int] = {}
    for leak in report.leaks:
        leaks[leak.category] = leaks.get(leak.category, 0) + 1
    lines = "".join(
        f"<tr><td>{category.value}</td><td class=n>{found.entity_recall.whole}</td>"
        f"<td class=n>{_text(found.char_recall)}</td><td class=n>{_text(found.token_recall)}</td>"
        f"<td class=n>{_text(found.entity_recall)}</td><td class=n>{leaks.get(category, 0)}</td>"
        f"<td class=n>{_text(found.token_precision)}</td><td class=n>{_text(found.right_kind)}</td></tr>"
        for category, found in report.by_category.items()
    )
    return (
        "<h2>By kind of identifier</h2><div class=wide><table><tr><th>kind</th><th class=n>marks</th>"
        "<th class=n>character recall</th><th class=n>token recall</th><th class=n>mark recall</th>"
        "<th class=n>leaks</th><th class=n>token precision</th><th class=n>found as this kind</th></tr>"
        f"{lines}</table></div>"
    )


def _text(share: Share) -> str:
    return "-" if share.value is None else f"{share.value:.4f}"


def _ends(share: Share) -> str:
    return "-" if share.low is None or share.high is None else f"{share.low:.4f} to {share.high:.4f}"
