"""`fedtwin deid text`: notes without identity, by surrogates, tags or bars."""

from __future__ import annotations

import json as jsonlib
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.cli_deid_evaluate import FinderName, open_finder
from fedtwin.options import Json
from fedtwin.progress import bar
from fedtwin.screen import Exit, Stop, emit_json, say

if TYPE_CHECKING:
    from deid.spans import Finder, Known, Span
    from deid.surrogates import Replacement

STDIN = Path("-")
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="The key that surrogates and pseudonyms hang on; made if it is not there. Default:"
        " ~/.fedtwin/deid/key.",
        show_default=False,
    ),
]
VaultHome = Annotated[
    Path | None,
    typer.Option("--home", metavar="DIR", help="Use this node's key and vault instead of --key."),
]
Project = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="Whom the result is for: another project's has other pseudonyms, dates and surrogates.",
    ),
]


class StyleName(StrEnum):
    """What stands in the place of identity."""

    SURROGATE = "surrogate"
    TAG = "tag"
    REDACT = "redact"


def text(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Texts (UTF-8), or - for standard input.")
    ],
    style: Annotated[
        StyleName, typer.Option(help="What stands in the place of identity.")
    ] = StyleName.SURROGATE,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Write each text there (0600) instead of to the screen."),
    ] = None,
    spans: Annotated[
        bool, typer.Option("--spans", help="Print where identity stands instead of the text without it.")
    ] = False,
    patient: Annotated[
        str,
        typer.Option(metavar="ID", help="Whose texts these are; their other texts get the same surrogates."),
    ] = "",
    known: Annotated[
        Path | None,
        typer.Option(
            "--known",
            metavar="FILE",
            exists=True,
            help='What is known of the patient, to be found: a JSON list of {"category", "value"}.',
        ),
    ] = None,
    language: Annotated[str, typer.Option(metavar="LANG", help="Language of the texts: en or es.")] = "en",
    keep_weekday: Annotated[bool, typer.Option("--keep-weekday", help="Move dates by whole weeks.")] = False,
    finder: Annotated[FinderName, typer.Option(help="Who finds identity.")] = FinderName.OURS,
    processes: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Find on so many cores: pays from some hundreds of texts on."),
    ] = 1,
    project: Project = "",
    key: KeyFile = None,
    home: VaultHome = None,
    json: Json = False,
) -> None:
    """Find identity in texts and replace it. A text that cannot be analysed is refused (exit code 3)."""
    if len(files) > 1 and out is None and not (spans or json):
        raise Stop(Exit.USAGE, "several texts need --out DIR")
    read = [_read(file) for file in files]
    told = _known(known) if known else []
    replacement = None if spans else _replacement(style, patient, project, key, home, keep_weekday, language)
    if processes > 1 and finder is FinderName.OURS:
        found = _found_by_processes(read, told, processes, language)
    else:
        found = _found(files, read, told, open_finder(finder, language))
    if replacement is None:
        _show_spans(files, found, json=json)
    else:
        _write(files, read, found, told, replacement, out, json=json)


def _found(files: list[Path], read: list[str], told: list[Known], finder: Finder) -> list[list[Span]]:
    from deid.errors import NotRedacted

    found: list[list[Span]] = []
    with bar("finding identity", total=len(read), unit="texts") as progress:
        for number, one in enumerate(read):
            try:
                found += finder.find([one], known=[told])
            except NotRedacted as error:
                raise Stop(Exit.REFUSED, f"{files[number].name}: {error}: nothing was written") from None
            progress.to(number + 1)
    return found


def _found_by_processes(
    read: list[str], told: list[Known], processes: int, language: str
) -> list[list[Span]]:
    from deid.errors import NotRedacted
    from deid.note_processes import find_parallel

    try:
        return find_parallel(read, known=[told] * len(read), processes=processes, language=language)
    except NotRedacted as error:
        raise Stop(Exit.REFUSED, f"one of the texts: {error}: nothing was written") from None


def _write(
    files: list[Path],
    read: list[str],
    found: list[list[Span]],
    told: list[Known],
    replacement: Replacement,
    out: Path | None,
    *,
    json: bool,
) -> None:
    from deid.surrogates import replaced
    from privacy import private_files

    made = [replaced(one, spans, replacement, known=told) for one, spans in zip(read, found, strict=True)]
    if out is not None:
        out.mkdir(mode=0o700, parents=True, exist_ok=True)
        for file, one in zip(files, made, strict=True):
            private_files.write(out / (file.name if file != STDIN else "stdin.txt"), one.text.encode())
        say(f"Wrote {len(made)} texts to {out}.")
    if json:
        emit_json(
            [
                {"file": str(file), "replaced": len(one.spans)} | ({} if out else {"text": one.text})
                for file, one in zip(files, made, strict=True)
            ]
        )
    elif out is None:
        sys.stdout.write(made[0].text)
        sys.stdout.flush()


def _show_spans(files: list[Path], found: list[list[Span]], *, json: bool) -> None:
    rows = [
        {
            "file": str(file),
            "spans": [
                {
                    "start": span.start,
                    "end": span.end,
                    "category": span.category.value,
                    "score": span.score,
                    "found_by": span.found_by,
                }
                for span in spans
            ],
        }
        for file, spans in zip(files, found, strict=True)
    ]
    if json:
        emit_json(rows[0]["spans"] if len(rows) == 1 else rows)
        return
    for file, spans in zip(files, found, strict=True):
        for span in spans:
            sys.stdout.write(f"{file}\t{span.start}\t{span.end}\t{span.category.value}\n")


def _replacement(
    style: StyleName,
    patient: str,
    project: str,
    key: Path | None,
    home: Path | None,
    keep_weekday: bool,
    language: str,
) -> Replacement:
    from deid.surrogates import Replacement, Style
    from deid.surrogates_dates import DateShift
    from fedtwin.deid_vault import opened

    if style is not StyleName.SURROGATE:
        return Replacement(Style(style))
    with opened(key, home) as vault:
        (own,) = vault.surrogate_keys([patient], namespace="mrn", project=project)
        shift = int(vault.pseudonyms([patient], namespace="mrn", project=project).shift_days[0])
    return Replacement(
        Style.SURROGATE, own, DateShift(shift, keep_weekday=keep_weekday, day_first=language == "es")
    )


def _read(file: Path) -> str:
    data = sys.stdin.buffer.read() if file == STDIN else file.read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise Stop(Exit.USAGE, f"{file} is not UTF-8") from None


def _known(file: Path) -> list[Known]:
    from deid.spans import Category, Known

    try:
        return [
            Known(Category(one["category"]), str(one["value"])) for one in jsonlib.loads(file.read_bytes())
        ]
    except (ValueError, KeyError, TypeError):
        names = ", ".join(Category)
        raise Stop(
            Exit.USAGE, f'{file.name}: a JSON list of {{"category", "value"}}; categories: {names}'
        ) from None
