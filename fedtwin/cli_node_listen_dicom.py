"""`fedtwin node listen-dicom`: images as they come, by C-STORE and by DICOMweb's STOW-RS."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.cli_node_records import require_node
from fedtwin.listening import Certificate, ClientAuthority, PrivateKey, Tls, tls_of
from fedtwin.options import EXISTING_FILE, NODE_HOME, NodeHome
from fedtwin.screen import Exit, Stop

if TYPE_CHECKING:
    from fedtwin.node_listen_dicom import Stow


def listen_dicom(
    sender: Annotated[
        list[str] | None,
        typer.Option(
            "--sender", metavar="TITLE", help="Application entity that may C-STORE; repeat for more."
        ),
    ] = None,
    title: Annotated[str, typer.Option("--title", metavar="TITLE", help="What they call us.")] = "FEDTWIN",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65535, help="Of C-STORE; 0 takes a free one.")
    ] = 11112,
    stow_port: Annotated[
        int | None, typer.Option("--stow-port", min=0, max=65535, help="Of STOW-RS; 0 takes a free one.")
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="Holds the bearer token that STOW-RS senders show; for its owner only.",
            **EXISTING_FILE,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="The interface; other than loopback needs --tls."),
    ] = "127.0.0.1",
    tls: Tls = False,
    certificate: Certificate = None,
    key: PrivateKey = None,
    client_authority: ClientAuthority = None,
    keep_images: Annotated[
        bool, typer.Option("--keep-images", help="Keep the images, de-identified, not their headers alone.")
    ] = False,
    load_every_s: Annotated[
        float,
        typer.Option("--load-every-s", min=0, help="Seconds between loads; 0 only keeps the objects."),
    ] = 30.0,
    home: NodeHome = NODE_HOME,
) -> None:
    """Take images, confirm each once the disk has it, and load them in turn.

    C-STORE is on when a --sender is named, STOW-RS when --stow-port is.
    """
    import asyncio

    try:
        from fedtwin.node_listen_dicom import listen
    except ModuleNotFoundError as error:
        raise Stop(Exit.USAGE, f"{error.name} is not installed: pip install 'fedtwin[imaging]'") from None
    from node import boundary
    from node.home import NodeHome as Home
    from node.ingest.dicom_scp import Listening
    from node.ingest.inbox import InboxBusy
    from protocols.clock import SystemClock

    require_node(home)
    where = Home(home)
    if not sender and stow_port is None:
        raise Stop(Exit.USAGE, "name who may send with --sender, or a --stow-port")
    if not _is_local(host) and not tls:
        raise Stop(Exit.USAGE, "to listen beyond this machine takes --tls")
    if tls and (certificate is None) != (key is None):
        raise Stop(Exit.USAGE, "--certificate and --key go together")
    context = tls_of(where, certificate, key, client_authority) if tls else None
    if not tls and (certificate or key or client_authority):
        raise Stop(Exit.USAGE, "--certificate, --key and --client-authority go with --tls")
    stow = None if stow_port is None else _stow(host, stow_port, token_file)
    try:
        store = Listening(title, tuple(sender), host, port) if sender else None
    except ValueError as error:
        raise Stop(Exit.USAGE, str(error)) from None
    stop_logging = boundary.start_logging(where.logs, name="listen-dicom")
    try:
        asyncio.run(
            listen(
                home,
                store=store,
                stow=stow,
                tls=context,
                clock=SystemClock(),
                load_every_s=load_every_s,
                keep=keep_images,
            )
        )
    except InboxBusy:
        raise Stop(Exit.REFUSED, "another listener of this node writes to the inbox") from None
    finally:
        stop_logging()


def _is_local(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise Stop(Exit.USAGE, "--host is an address") from None


def _stow(host: str, port: int, token_file: Path | None) -> Stow:
    from fedtwin.node_listen_dicom import Stow
    from node.ingest.dicom_stow import MIN_TOKEN
    from privacy.private_files import OpenToOthers, read_secret

    if token_file is None:
        raise Stop(Exit.USAGE, "--stow-port goes with a --token-file")
    try:
        token = read_secret(token_file).decode("ascii").strip()
    except OpenToOthers as error:
        raise Stop(Exit.USAGE, str(error)) from None
    except UnicodeDecodeError:
        raise Stop(Exit.USAGE, "the token is not ASCII") from None
    if len(token) < MIN_TOKEN:
        raise Stop(Exit.USAGE, f"a token has at least {MIN_TOKEN} characters")
    return Stow(host, port, token)
