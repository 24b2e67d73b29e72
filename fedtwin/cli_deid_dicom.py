"""`fedtwin deid dicom`: DICOM files without identity, by PS3.15's profile and its options."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.cli_deid_evaluate import FinderName, open_finder
from fedtwin.cli_deid_table import Practice
from fedtwin.cli_deid_text import KeyFile, VaultHome
from fedtwin.options import Json
from fedtwin.progress import bar
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

if TYPE_CHECKING:
    from deid.dicom.profile import Option

_SHOWN = 25  # files left out on the screen; all of them are in --json


def dicom(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", exists=True, help="A DICOM file, or a folder of them.")
    ],
    target: Annotated[
        Path, typer.Argument(metavar="DST", help="Where the results go: study/series/instance.dcm, 0600.")
    ],
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME",
            help="An option of the profile (again for each), instead of those for research: clean_pixels,"
            " clean_graphics, clean_structured_content, clean_descriptors, retain_modified_dates,"
            " retain_patient_characteristics, retain_device_identity, retain_safe_private, ...",
        ),
    ] = None,
    practice: Annotated[Practice, typer.Option(help="How dates are kept.")] = Practice.SHIFTED,
    no_text: Annotated[
        bool, typer.Option("--no-text", help="Drop texts instead of looking into them.")
    ] = False,
    key: KeyFile = None,
    home: VaultHome = None,
    json: Json = False,
) -> None:
    """De-identify images and reports; what cannot be made safe is left out and listed.

    Exit code 3 if nothing could be written.
    """
    from deid.dates import DatePractice
    from deid.dicom.files import deidentifier, deidentify_path
    from deid.dicom.ocr import Tesseract
    from deid.dicom.profile import RESEARCH
    from fedtwin.deid_vault import opened

    options = _options(option) if option else RESEARCH
    ocr = Tesseract.found()
    if ocr is None:
        say("tesseract is not installed: images that may have identity burned in are left out")
    with opened(key, home) as vault, bar("de-identifying", unit="files") as line:
        made = deidentifier(
            vault,
            options=options,
            finder=None if no_text else open_finder(FinderName.OURS, "en"),
            ocr=ocr,
            practice=DatePractice(practice),
        )
        report = deidentify_path(source, target, made, progress=lambda done, _file: line.to(done))
    left_out = [(str(one.source), one.reason) for one in report.quarantined]
    if json:
        emit_json(
            {
                "files": report.files,
                "written": len(report.written),
                "left_out": [{"file": file, "reason": reason} for file, reason in left_out],
                "unknown_attributes": dict(sorted(report.unknown.items())),
            }
        )
    else:
        emit_fields({"files": report.files, "written": len(report.written), "left out": len(left_out)})
        if left_out:
            emit_table(("file", "reason"), left_out[:_SHOWN])
    if report.files and not report.written:
        raise typer.Exit(Exit.REFUSED)


def _options(names: list[str]) -> frozenset[Option]:
    from deid.dicom.profile import Option

    try:
        return frozenset(Option(name) for name in names)
    except ValueError:
        raise Stop(Exit.USAGE, f"options are {', '.join(Option)}") from None
