"""`fedtwin keyholder`: hold the keys of a consortium that adds up under encryption. Needs no patient data."""

from __future__ import annotations

import json as jsons
from typing import Annotated

import typer

from fedtwin.options import KEY_HOLDER_HOME, Json, KeyHolderHome
from fedtwin.screen import emit_fields, emit_json, say

keyholder = typer.Typer(
    name="keyholder", help="Hold the keys of encrypted sums, and open sums only.", no_args_is_help=True
)


@keyholder.command("init")
def init(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The invitation; `-` reads it from stdin.")],
    home: KeyHolderHome = KEY_HOLDER_HOME,
    json: Json = False,
) -> None:
    """Join a consortium as its key-holder: make keys here, prove them, get a certificate and the roster."""
    import sys

    from keyholder.enrolment import enrol
    from keyholder.home import KeyHolderHome as Home
    from protocols.clock import SystemClock

    made = Home(home)
    text = sys.stdin.read() if token == "-" else token  # noqa: S105 - a dash is no token
    config = enrol(made, text, clock=SystemClock())
    fields = {"name": config.name, "home": str(home), "fingerprint": made.fingerprint()}
    if json:
        emit_json(fields)
        return
    emit_fields(fields)
    say("Tell each hospital the fingerprint yourself: fedtwin node trust-keyholder FINGERPRINT")
    say(f"Next: fedtwin keyholder serve --home {home}")


@keyholder.command("serve")
def serve(home: KeyHolderHome = KEY_HOLDER_HOME) -> None:
    """Connect to the coordinator, make keys and open sums until stopped. Only connects out."""
    from keyholder.home import KeyHolderHome as Home
    from keyholder.serve import serve as run
    from protocols.clock import SystemClock

    run(Home(home), clock=SystemClock())


@keyholder.command("status")
def status(home: KeyHolderHome = KEY_HOLDER_HOME, json: Json = False) -> None:
    """Show who this key-holder is, whether it serves, and how many sums it has opened."""
    from keyholder.home import KeyHolderHome as Home

    made = Home(home)
    config = made.config()
    fields: dict[str, object] = {
        "name": config.name,
        "consortium": str(config.consortium),
        "fingerprint": made.fingerprint(),
        "broker_address": config.broker_address,
        "running": False,
    }
    if made.status.is_file():
        fields |= jsons.loads(made.status.read_bytes())
    if json:
        emit_json(fields)
    else:
        emit_fields({name.replace("_", " "): value for name, value in fields.items()})
