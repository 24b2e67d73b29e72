"""`fedtwin coordinator`: found a consortium, invite hospitals, serve. Needs no torch, Ibis or Presidio."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedtwin.options import COORDINATOR_HOME, CoordinatorHome, Json
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, emit_table, say

if TYPE_CHECKING:
    from coordinator.home import CoordinatorHome as Home
    from coordinator.state import State

coordinator = typer.Typer(name="coordinator", help="Found and run a consortium.", no_args_is_help=True)
researcher = typer.Typer(name="researcher", help="Who may ask questions.", no_args_is_help=True)
coordinator.add_typer(researcher)


@coordinator.command("init")
def init(
    name: Annotated[str, typer.Option(help="What people call the consortium.")] = "fedtwin consortium",
    host: Annotated[str, typer.Option(help="Name or address under which hospitals reach it.")] = "localhost",
    bind: Annotated[
        str | None, typer.Option(help="Address to listen on. Default: loopback if --host is, else all.")
    ] = None,
    enrolment_port: Annotated[int, typer.Option(help="Where hospitals join.")] = 8440,
    broker_port: Annotated[int, typer.Option(help="Where nodes and researchers connect.")] = 8441,
    fleet_port: Annotated[int, typer.Option(help="Where Flower SuperNodes connect.")] = 8442,
    minimum_sites: Annotated[int, typer.Option(help="Fewest hospitals in a sum.")] = 3,
    tolerance: Annotated[int, typer.Option(help="Hospitals that may drop out or collude.")] = 1,
    secure_sum: Annotated[
        str,
        typer.Option(metavar="masked|bfv|ckks", help="How hospitals add up; the last two need a key-holder."),
    ] = "masked",
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Found a consortium: its certificate authority, its roster key, the lead's credentials."""
    from coordinator.home import CoordinatorHome as Home
    from protocols.clock import SystemClock

    made = Home.init(
        home,
        name=name,
        host=host,
        bind=bind,
        enrolment_port=enrolment_port,
        broker_port=broker_port,
        fleet_port=fleet_port,
        minimum_sites=minimum_sites,
        tolerance=tolerance,
        secure_sum=secure_sum,
        clock=SystemClock(),
    )
    config = made.config()
    fields = {
        "consortium": str(config.consortium),
        "home": str(home),
        "enrolment": config.enrolment_address,
        "broker": config.broker_address,
        "fleet": config.fleet_address,
        "lead_profile": str(made.lead_profile),
        "secure_sum": config.secure_sum,
    }
    if json:
        emit_json(fields)
    else:
        emit_fields(fields)
        say(f"Next: fedtwin coordinator serve --home {home}")


@coordinator.command("serve")
def serve(home: CoordinatorHome = COORDINATOR_HOME) -> None:
    """Serve hospitals and researchers until stopped (Ctrl-C or SIGTERM)."""
    from coordinator.home import CoordinatorHome as Home
    from coordinator.server import serve as run
    from protocols.clock import SystemClock

    run(Home(home), clock=SystemClock())


@coordinator.command("invite")
def invite(
    hospital: Annotated[str, typer.Argument(metavar="NAME", help="What to call the hospital.")],
    days: Annotated[float, typer.Option(help="For how long the invitation is good.")] = 2.0,
    again: Annotated[
        str | None,
        typer.Option("--again", metavar="NODE", help="A node that lost its certificate and keeps its id."),
    ] = None,
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Make a one-time token that lets one hospital join. Hand it over as you would a password."""
    from protocols.clock import SystemClock
    from protocols.ids import NodeId

    with opened(home) as (made, state):
        invitation = made.invite(
            state,
            hospital,
            clock=SystemClock(),
            lifetime=timedelta(days=days),
            node_id=NodeId.parse(again) if again else None,
        )
    token, expires = invitation.to_token(), invitation.expires_at.isoformat()
    if json:
        emit_json({"token": token, "name": hospital, "expires_at": expires})
    else:
        typer.echo(token)
        say(f"For {hospital}, once, until {expires}. There: fedtwin node join TOKEN")


@coordinator.command("invite-keyholder")
def invite_keyholder(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9, '.', '_' and '-'.")],
    days: Annotated[float, typer.Option(help="For how long the invitation is good.")] = 2.0,
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Make a one-time token for whoever holds the keys of encrypted sums: somebody else than you."""
    from protocols.clock import SystemClock
    from protocols.peer import Role

    with opened(home) as (made, state):
        invitation = made.invite(
            state, name, clock=SystemClock(), lifetime=timedelta(days=days), role=Role.KEY_HOLDER
        )
    token, expires = invitation.to_token(), invitation.expires_at.isoformat()
    if json:
        emit_json({"token": token, "name": name, "expires_at": expires})
    else:
        typer.echo(token)
        say(f"For {name}, once, until {expires}. There: fedtwin keyholder init TOKEN")


@coordinator.command("nodes")
def nodes(home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """List the hospitals, and which are connected right now."""
    live = _live(home)
    with opened(home) as (_, state):
        records = state.nodes()
    rows: list[dict[str, Any]] = [
        {
            "node_id": str(record.node_id),
            "name": record.name,
            "connected": bool(live and live.get(str(record.node_id))),
            "certificate_expires": record.certificate_expires.isoformat(),
            "joined_at": record.joined_at.isoformat(),
            "revoked": record.revoked_at is not None,
        }
        for record in records
    ]
    if json:
        emit_json({"serving": live is not None, "nodes": rows})
        return
    if live is None:
        say("The coordinator is not serving, so nobody is connected.")
    emit_table(
        ("hospital", "node", "state", "certificate until"),
        [(row["name"], row["node_id"], _state_of(row), row["certificate_expires"][:10]) for row in rows],
    )


def _state_of(row: dict[str, Any]) -> str:
    if row["revoked"]:
        return "revoked"
    return "connected" if row["connected"] else "away"


@coordinator.command("revoke")
def revoke(
    who: Annotated[
        str, typer.Argument(metavar="NODE|NAME", help="A node's id, a researcher's name or a key-holder's.")
    ],
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Revoke a hospital, a researcher or a key-holder for good. A live connection is cut within a second."""
    from protocols.clock import SystemClock
    from protocols.ids import MalformedId, NodeId

    with opened(home) as (made, state):
        book = made.roster_book(state, clock=SystemClock())
        try:
            roster = book.revoke_node(NodeId.parse(who))
        except MalformedId:
            holders = {record.name for record in state.key_holders() if record.revoked_at is None}
            roster = (book.revoke_key_holder if who in holders else book.revoke_person)(who)
    if json:
        emit_json({"revoked": who, "roster_version": roster.version})
    else:
        say(f"{who} is revoked (roster version {roster.version}).")


@coordinator.command("status")
def status(home: CoordinatorHome = COORDINATOR_HOME, json: Json = False) -> None:
    """Show where the coordinator listens, whether it serves, and who belongs."""
    live = _live(home)
    with opened(home) as (made, state):
        config, records = made.config(), state.nodes()
        fields: dict[str, Any] = {
            "name": config.name,
            "consortium": str(config.consortium),
            "serving": live is not None,
            "enrolment": config.enrolment_address,
            "broker": config.broker_address,
            "fleet": config.fleet_address,
            "roster_version": state.roster_version(),
            "hospitals": sum(record.revoked_at is None for record in records),
            "connected": sum(live.values()) if live else 0,
            "researchers": sum(person.revoked_at is None for person in state.people()),
            "secure_sum": config.secure_sum,
            "key_holder": next((h.name for h in state.key_holders() if h.revoked_at is None), None),
        }
    if json:
        emit_json(fields)
    else:
        emit_fields(fields)


@researcher.command("add")
def add_researcher(
    name: Annotated[str, typer.Argument(metavar="NAME", help="a-z, 0-9, '.', '_' and '-'.")],
    project: Annotated[
        list[str], typer.Option("--project", help="A project they may ask under; repeat for more.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where to write their credentials.")
    ] = None,
    lead: Annotated[bool, typer.Option("--lead", help="They may also propose and run studies.")] = False,
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Make credentials for a researcher. Hand the directory over by a safe way."""
    from protocols.clock import SystemClock
    from protocols.peer import Role

    folder = out or home / "profiles" / name
    role = Role.LEAD if lead else Role.RESEARCHER
    with opened(home) as (made, state):
        profile = made.issue_profile(
            state, folder, name=name, role=role, projects=tuple(project), clock=SystemClock()
        )
    if json:
        fields = {"name": name, "role": role.value, "projects": project, "profile": str(profile.directory)}
        emit_json(fields)
    else:
        say(f"{name} may ask under {', '.join(project)}; credentials in {profile.directory}")


@contextmanager
def opened(home: Path) -> Iterator[tuple[Home, State]]:
    """Open the coordinator's home and state. Raises: Stop if there is no coordinator."""
    from coordinator.home import CoordinatorHome as Home

    made = Home(home)
    if not made.config_file.is_file():
        raise Stop(Exit.USAGE, f"{home} is no coordinator; `fedtwin coordinator init` makes one")
    state = made.open_state()
    try:
        yield made, state
    finally:
        state.close()


def _live(home: Path) -> dict[str, bool] | None:
    """Return which nodes are connected, or None if the coordinator does not serve."""
    from coordinator.channel import CoordinatorUnreachable
    from coordinator.home import CoordinatorHome as Home
    from coordinator.profile import Profile
    from fedtwin.client import Client

    made = Home(home)
    if not made.config_file.is_file():
        return None
    try:
        with Client(Profile.load(made.lead_profile)) as client:
            _, found = client.nodes()
    except CoordinatorUnreachable:
        return None
    return {node.node_id: node.connected for node in found}
