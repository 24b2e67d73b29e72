"""`fedtwin deid`: taking identity out of what a hospital has, and measuring how well. Needs no node."""

from __future__ import annotations

import typer

from fedtwin.cli_deid_canary import canary
from fedtwin.cli_deid_dicom import dicom
from fedtwin.cli_deid_evaluate import evaluate
from fedtwin.cli_deid_report import report
from fedtwin.cli_deid_rotate import rotate
from fedtwin.cli_deid_table import table
from fedtwin.cli_deid_text import text

deid = typer.Typer(
    no_args_is_help=True,
    help="Take identity out of texts, tables and images, and measure how well. Works without a node.",
)
deid.command("text")(text)
deid.command("table")(table)
deid.command("dicom")(dicom)
deid.command("rotate")(rotate)
deid.command("report")(report)
deid.command("evaluate")(evaluate)
deid.command("canary")(canary)
