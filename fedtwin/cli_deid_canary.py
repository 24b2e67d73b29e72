"""`fedtwin deid canary`: do identities that were planted in the input come out anywhere?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import Json
from fedtwin.progress import bar
from fedtwin.screen import Exit, emit_fields, emit_json, emit_table, say


def canary(
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="DIR",
            help="Use this node's rules about texts, and keep the result there: \\[deid] in policy.toml may"
            " ask for it. The node's own data are not touched.",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Load made-up people into a scratch home, break and kill it, train, and look for them everywhere.

    Exit code 3 if one of them was found.
    """
    from fedtwin.deid_canary import PEOPLE, fly
    from privacy.rng import SecureBits

    with bar("canary") as line:
        flight = fly(home.expanduser() if home else None, bits=SecureBits(), told=line.describe)
    if home is not None:
        from node.deid_standing import keep_canary
        from node.home import NodeHome
        from node.running import SOFTWARE_VERSION
        from protocols.clock import SystemClock

        where = NodeHome(home.expanduser()).deid
        keep_canary(where, leaks=len(flight.finds), version=SOFTWARE_VERSION, now=SystemClock().now())
    finds = sorted(flight.finds, key=lambda find: (find.where, find.canary, find.what))
    if json:
        emit_json(
            {
                "canaries": PEOPLE,
                "looked_at": flight.looked,
                "leaks": [{"canary": one.canary, "what": one.what, "where": one.where} for one in finds],
            }
        )
    else:
        emit_fields({"made-up people": PEOPLE} | flight.looked | {"leaks": len(finds)})
        if finds:
            emit_table(("where", "person", "what"), [(one.where, one.canary, one.what) for one in finds])
    if finds:
        say("Planted identities came out: see where above.")
        raise typer.Exit(Exit.REFUSED)
