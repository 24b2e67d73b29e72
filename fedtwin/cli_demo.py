"""`fedtwin demo`: the whole network on this machine, once through."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import Json


def demo(
    data: Annotated[
        Path | None,
        typer.Option(
            help="A folder of processed.*.data (UCI heart disease), one file per hospital. Default: hospitals"
            " that do not exist, with the truth beside the estimate.",
            exists=True,
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="Where to leave logs, ledgers and audit trails. Default: ./demo-run.", show_default=False
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the hospitals that do not exist.")] = 1,
    json: Json = False,
) -> None:
    """Start a coordinator and its hospitals, ask, train, and stop everything again.

    Six steps: start, enrol, take in data, a private count, a private model, stop.
    """
    from fedtwin.demo import run_demo

    run_demo(data=data, keep=keep or Path("demo-run"), seed=seed, as_json=json)
