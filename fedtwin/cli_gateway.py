"""`fedtwin gateway`: a REST interface for people who sign in with OpenID Connect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedtwin.options import COORDINATOR_HOME, CoordinatorHome, Json
from fedtwin.screen import Exit, Stop, emit_fields, emit_json, say

gateway = typer.Typer(
    name="gateway", help="Let people ask over REST, signed in with OpenID Connect.", no_args_is_help=True
)
Config = Annotated[
    Path, typer.Option("--config", metavar="FILE", envvar="FEDTWIN_GATEWAY_CONFIG", help="Its gateway.toml.")
]
CONFIG = Path("gateway.toml")
IssuerCa = Annotated[
    Path | None,
    typer.Option("--issuer-ca", metavar="FILE", help="Authorities for the issuer's certificate (PEM)."),
]


@gateway.command("init")
def init(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to write the gateway's folder.")],
    issuer: Annotated[
        str, typer.Option(help="Address of the OpenID Connect issuer, as its tokens spell it.")
    ],
    grant: Annotated[
        list[str],
        typer.Option(
            "--grant",
            metavar="PROJECT=GROUP",
            help="A project, and a group of the issuer that may use it; repeat for more.",
        ),
    ],
    audience: Annotated[str, typer.Option(help="This gateway's name in `aud`.")] = "fedtwin-gateway",
    host: Annotated[str, typer.Option(help="Name under which people reach it.")] = "localhost",
    port: Annotated[int, typer.Option(help="Where it listens.")] = 8443,
    name: Annotated[str, typer.Option(help="What the roster calls it.")] = "gateway",
    issuer_ca: IssuerCa = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="No TLS, on loopback only, for trying things out.")
    ] = False,
    home: CoordinatorHome = COORDINATOR_HOME,
    json: Json = False,
) -> None:
    """Enter a gateway into the roster and write its folder: credentials, certificate, gateway.toml."""
    from coordinator.gateway.access import Access, Grant
    from coordinator.gateway.founding import found_gateway
    from fedtwin.cli_coordinator import opened
    from protocols.clock import SystemClock

    groups: dict[str, set[str]] = {}
    for entry in grant:
        project, found, group = entry.partition("=")
        if not found or not group:
            raise Stop(Exit.USAGE, "--grant is PROJECT=GROUP")
        groups.setdefault(project, set()).add(group)
    access = Access(
        tuple(Grant(project, frozenset(), frozenset(names)) for project, names in sorted(groups.items()))
    )
    with opened(home) as (made, state):
        config = found_gateway(
            made,
            state,
            out,
            name=name,
            host=host,
            issuer=issuer,
            audience=audience,
            access=access,
            port=port,
            issuer_ca=str(issuer_ca.resolve()) if issuer_ca else "",
            plain_http=plain_http,
            clock=SystemClock(),
        )
    if json:
        emit_json({"name": name, "config": str(config), "projects": sorted(groups)})
    else:
        say(f"{name} is in the roster. Look through {config}, then: fedtwin gateway serve --config {config}")


@gateway.command("serve")
def serve(config: Config = CONFIG) -> None:
    """Serve people until stopped (Ctrl-C or SIGTERM)."""
    from coordinator.gateway.config import GatewayConfig
    from coordinator.gateway.serving import serve as run
    from protocols.clock import SystemClock

    run(GatewayConfig.load(config), clock=SystemClock())


@gateway.command("check")
def check(config: Config = CONFIG, json: Json = False) -> None:
    """Read gateway.toml, fetch the issuer's keys, ask the coordinator who is there. Changes nothing."""
    import asyncio

    from coordinator.gateway.checking import look
    from coordinator.gateway.config import GatewayConfig

    found = asyncio.run(look(GatewayConfig.load(config)))
    if json:
        emit_json(found)
    else:
        emit_fields(found)


@gateway.command("login")
def login(
    issuer: Annotated[str, typer.Option(help="Address of the OpenID Connect issuer.")],
    client_id: Annotated[str, typer.Option(help="What the issuer calls this command.")] = "fedtwin-cli",
    scope: Annotated[str, typer.Option(help="What to ask for.")] = "fedtwin.ask fedtwin.read",
    issuer_ca: IssuerCa = None,
    plain_http: Annotated[
        bool, typer.Option("--plain-http", help="An issuer on loopback without TLS, for trying things out.")
    ] = False,
) -> None:
    """Sign in with a browser and print an access token on stdout. It is a password for some minutes."""
    from fedtwin.signing_in import sign_in

    token = sign_in(
        issuer,
        client_id=client_id,
        scopes=tuple(scope.split()),
        show=lambda address, code: say(f"Open {address} and check that it shows {code}"),
        ca=issuer_ca,
        plain_http=plain_http,
    )
    typer.echo(token)


@gateway.command("demo-issuer")
def demo_issuer(
    user: Annotated[
        list[str],
        typer.Option(
            "--user", metavar="NAME:PASSWORD:GROUP,GROUP", help="Somebody who can sign in; repeat for more."
        ),
    ],
    port: Annotated[int, typer.Option(help="Where it listens, on loopback only.")] = 8444,
    audience: Annotated[str, typer.Option(help="`aud` of its tokens.")] = "fedtwin-gateway",
) -> None:
    """An OpenID Connect issuer to try things out with. NOT for production: it protects nobody's password."""
    import asyncio

    from protocols.clock import SystemClock
    from sim.identity_provider import WARNING, IdentityProvider, User, run

    users = []
    for entry in user:
        name, _, rest = entry.partition(":")
        password, _, groups = rest.partition(":")
        if not name or not password:
            raise Stop(Exit.USAGE, "--user is NAME:PASSWORD:GROUP,GROUP")
        users.append(User(name, password, tuple(filter(None, groups.split(",")))))
    issuer = f"http://127.0.0.1:{port}"
    provider = IdentityProvider(issuer, audience=audience, users=tuple(users), clock=SystemClock())
    say(f"[yellow]{WARNING}[/yellow] Issuer: {issuer}")
    asyncio.run(run(provider, port=port))
