"""`fedtwin deid evaluate`: how well identity is found in texts in which people have marked it."""

from __future__ import annotations

import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtwin.options import Json
from fedtwin.progress import bar
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

if TYPE_CHECKING:
    from deid.evaluation import Report
    from deid.gold_formats import GoldDocument
    from deid.spans import Finder, Span

_AT_ONCE = 32  # texts between two steps of the progress bar
_SHOWN = 25  # leaks on the screen; all of them are in --json and --html


class FinderName(StrEnum):
    """Which finder is measured."""

    OURS = "ours"
    PRESIDIO = "presidio"  # as it is shipped


class Half(StrEnum):
    """Which documents: by a hash of their id one half is for development, the other for figures."""

    ALL = "all"
    DEV = "dev"
    TEST = "test"


def evaluate(
    gold: Annotated[
        Path,
        typer.Argument(
            metavar="GOLD",
            exists=True,
            help="JSON list of {id, text, spans: [{start, end, label}], neutral}, or i2b2 2014 XML, or a"
            " folder of it.",
        ),
    ],
    finder: Annotated[FinderName, typer.Option(help="Whose findings.")] = FinderName.OURS,
    half: Annotated[
        Half, typer.Option(help="All documents, or one half of them by a hash of the id.")
    ] = Half.ALL,
    language: Annotated[str, typer.Option(metavar="LANG", help="Language of the texts: en or es.")] = "en",
    html: Annotated[
        Path | None,
        typer.Option(
            "--html", metavar="FILE", help="Also write a page for review. It holds the texts: 0600, keep it."
        ),
    ] = None,
    errors: Annotated[
        bool, typer.Option("--errors", help="Also list each leak and needless removal, by place.")
    ] = False,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="DIR",
            help="Keep the figures of ours in this node's home: \\[deid] in policy.toml may ask for them.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Measure recall, precision and speed on marked texts. No text is printed."""
    from deid.evaluation import score
    from deid.gold_formats import is_dev, read

    documents = read(gold)
    if half is not Half.ALL:
        documents = [document for document in documents if is_dev(document.id) is (half is Half.DEV)]
    if not documents:
        raise Stop(Exit.USAGE, f"{gold.name} holds no document of that half")
    made = open_finder(finder, language)
    made.find([documents[0].text])  # what is loaded on first use is not the speed of reading notes
    spans, seconds = found_in(made, documents)
    report = score(documents, spans)
    if home is not None:
        _keep(home, finder, report)
    if html is not None:
        from deid.evaluation_page import write_page

        shown = write_page(html, documents, spans, report, title=f"{gold.name}: {finder.value}")
        say(f"Wrote {html} with {shown} texts. It holds identity: delete it after the review.")
    figures = {
        "finder": finder.value,
        "half": half.value,
        **report.as_json(),
        "notes_per_second": len(documents) / seconds,
        "characters_per_second": report.characters / seconds,
    }
    if errors:
        figures |= listed(report)
    if json:
        emit_json(figures)
    else:
        _show(report, figures, errors=errors)


def _keep(home: Path, finder: FinderName, report: Report) -> None:
    if finder is not FinderName.OURS:
        raise Stop(Exit.USAGE, "a node finds identity by ours: --home goes with --finder ours")
    from node.deid_standing import keep_evaluation
    from node.home import NodeHome
    from node.running import SOFTWARE_VERSION
    from protocols.clock import SystemClock

    keep_evaluation(
        NodeHome(home.expanduser()).deid,
        char_recall=report.char_recall.value,
        over_redaction=report.over_redaction.value,
        version=SOFTWARE_VERSION,
        now=SystemClock().now(),
    )


def open_finder(name: FinderName, language: str) -> Finder:
    """Return the finder. Raises: ModuleNotFoundError, ValueError for a language it does not know."""
    if name is FinderName.PRESIDIO:
        from deid.evaluation_peers import PresidioAsShipped

        return PresidioAsShipped.open()
    from deid.notes import NoteFinder

    ours: Finder = NoteFinder.open(language=language)
    return ours


def found_in(finder: Finder, documents: list[GoldDocument]) -> tuple[list[list[Span]], float]:
    """Return the findings in each document, and how many seconds finding them took."""
    spans: list[list[Span]] = []
    seconds = 0.0
    with bar("reading notes", total=len(documents), unit="notes") as progress:
        for start in range(0, len(documents), _AT_ONCE):
            texts = [document.text for document in documents[start : start + _AT_ONCE]]
            began = time.monotonic()
            spans += finder.find(texts)
            seconds += time.monotonic() - began
            progress.to(len(spans))
    return spans, max(seconds, 1e-9)


def listed(report: Report) -> dict[str, Any]:
    """Return each error of a report by its place, without a word of the text."""
    return {
        "leaks": [
            {
                "document": leak.document,
                "start": leak.start,
                "end": leak.end,
                "category": leak.category.value,
                "label": leak.label,
                "left": [list(piece) for piece in leak.left],
            }
            for leak in report.leaks
        ],
        "excess": [
            {
                "document": piece.document,
                "start": piece.start,
                "end": piece.end,
                "category": piece.category.value,
                "found_by": piece.found_by,
            }
            for piece in report.excess
        ],
    }


def _show(report: Report, figures: dict[str, Any], *, errors: bool) -> None:
    shares = {
        "character recall": report.char_recall,
        "character recall, names to addresses": report.core_char_recall,
        "over-redaction": report.over_redaction,
        "token precision": report.token_precision,
        "mark recall": report.entity_recall,
        "fully masked documents": report.fully_masked_documents,
    }
    emit_fields(
        {"documents": report.documents}
        | {
            name: "-"
            if share.value is None or share.low is None
            else f"{share.value:.4f} ({share.low:.4f} to {share.high:.4f})"
            for name, share in shares.items()
        }
        | {"notes a second": f"{figures['notes_per_second']:.0f}"}
    )
    leaks: dict[Any, int] = {}
    for leak in report.leaks:
        leaks[leak.category] = leaks.get(leak.category, 0) + 1
    emit_table(
        ("kind", "marks", "found", "leaks", "character recall", "token precision"),
        [
            (kind.value, one.entity_recall.whole, one.entity_recall.part, leaks.get(kind, 0),
             _text(one.char_recall.value), _text(one.token_precision.value))
            for kind, one in report.by_category.items()
        ],
    )  # fmt: skip
    if report.unknown_labels:
        say(f"Labels scored as other identifiers: {', '.join(report.unknown_labels)}")
    if errors and report.leaks:
        emit_table(
            ("document", "from", "to", "kind", "label"),
            [
                (leak.document, leak.start, leak.end, leak.category.value, leak.label)
                for leak in report.leaks[:_SHOWN]
            ],
            title=f"leaks: {len(report.leaks)}",
        )


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
