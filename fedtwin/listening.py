"""What commands that listen inside the hospital share: the options of TLS, and the context they make."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedtwin.options import EXISTING_FILE

if TYPE_CHECKING:
    from ssl import SSLContext

    from node.home import NodeHome

Tls = Annotated[
    bool, typer.Option("--tls", help="TLS with this node's certificate, or with --certificate and --key.")
]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", metavar="FILE", help="PEM.", **EXISTING_FILE)
]
PrivateKey = Annotated[Path | None, typer.Option("--key", metavar="FILE", help="PEM.", **EXISTING_FILE)]
ClientAuthority = Annotated[
    Path | None,
    typer.Option(
        "--client-authority",
        metavar="FILE",
        help="Senders must show a certificate of this authority.",
        **EXISTING_FILE,
    ),
]


def tls_of(where: NodeHome, certificate: Path | None, key: Path | None, clients: Path | None) -> SSLContext:
    """Return the listener's side of TLS: with the certificate and key named, else the node's own."""
    from node.ingest.mllp_senders import tls_context

    return tls_context(
        str(certificate or where.certificate),
        str(key or where.keys / "tls.key"),
        clients=str(clients) if clients else None,
    )
