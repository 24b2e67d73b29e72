"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON value on stdout.")]
ProfileDir = Annotated[
    Path | None,
    typer.Option(
        "--profile",
        metavar="DIR",
        help="Your credentials. Default: $FEDTWIN_PROFILE, else ~/.fedtwin/profile.",
        show_default=False,
    ),
]
NodeHome = Annotated[
    Path,
    typer.Option(
        "--home",
        metavar="DIR",
        envvar="FEDTWIN_NODE_HOME",
        help="This hospital's directory.",
        callback=lambda path: path.expanduser(),
    ),
]
CoordinatorHome = Annotated[
    Path,
    typer.Option(
        "--home",
        metavar="DIR",
        envvar="FEDTWIN_COORDINATOR_HOME",
        help="The coordinator's directory.",
        callback=lambda path: path.expanduser(),
    ),
]
KeyHolderHome = Annotated[
    Path,
    typer.Option(
        "--home",
        metavar="DIR",
        envvar="FEDTWIN_KEYHOLDER_HOME",
        help="The key-holder's directory.",
        callback=lambda path: path.expanduser(),
    ),
]
NODE_HOME = Path("~/.fedtwin/node")
COORDINATOR_HOME = Path("~/.fedtwin/coordinator")
KEY_HOLDER_HOME = Path("~/.fedtwin/keyholder")
EXISTING_FILE = {"exists": True, "dir_okay": False, "readable": True}
