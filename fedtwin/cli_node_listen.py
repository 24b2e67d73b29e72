"""`fedtwin node listen-mllp`: HL7 v2 messages as they come."""

from __future__ import annotations

from typing import Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.listening import Certificate, ClientAuthority, PrivateKey, Tls, tls_of
from fedtwin.options import NODE_HOME, NodeHome
from fedtwin.screen import Exit, Stop


def listen_mllp(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="Where; 0 takes a free one.")],
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="The interface; other than loopback needs --allow."),
    ] = "127.0.0.1",
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="NETWORK", help="Who may send: 10.1.2.3 or 10.0.0.0/8; repeat for more."
        ),
    ] = None,
    tls: Tls = False,
    certificate: Certificate = None,
    key: PrivateKey = None,
    client_authority: ClientAuthority = None,
    max_message_mb: Annotated[int, typer.Option("--max-message-mb", min=1, max=16, help="The largest.")] = 16,
    idle_s: Annotated[
        float, typer.Option("--idle-s", min=1, help="Seconds without a whole message that a sender has.")
    ] = 300.0,
    load_every_s: Annotated[
        float,
        typer.Option("--load-every-s", min=0, help="Seconds between loads; 0 only keeps the messages."),
    ] = 30.0,
    home: NodeHome = NODE_HOME,
) -> None:
    """Take HL7 v2 messages (MLLP), acknowledge each once the disk has it, and load them in turn."""
    import asyncio
    import ipaddress

    from fedtwin.node_listen import listen
    from node import boundary
    from node.home import NodeHome as Home
    from node.ingest.inbox import InboxBusy
    from node.ingest.mllp_senders import Limits, networks
    from protocols.clock import SystemClock

    require_node(home)
    where = Home(home)
    try:
        allowed = networks(allow or ())
        local = ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise Stop(Exit.USAGE, f"not an address: {error}") from None
    if not local and not allowed:
        raise Stop(Exit.USAGE, "to listen beyond this machine, name who may send with --allow")
    if (certificate is None) != (key is None) or ((certificate or client_authority) and not tls):
        raise Stop(
            Exit.USAGE, "--certificate and --key go together, and with --tls, as does --client-authority"
        )
    context = tls_of(where, certificate, key, client_authority) if tls else None
    limits = Limits(message_bytes=max_message_mb << 20, idle_s=idle_s, allowed=allowed)
    stop_logging = boundary.start_logging(where.logs, name="listen-mllp")
    try:
        asyncio.run(
            listen(
                home,
                host=host,
                port=port,
                clock=SystemClock(),
                limits=limits,
                tls=context,
                load_every_s=load_every_s,
            )
        )
    except InboxBusy:
        raise Stop(Exit.REFUSED, "another listener of this node writes to the inbox") from None
    finally:
        stop_logging()
