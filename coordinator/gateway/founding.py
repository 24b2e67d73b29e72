"""A new gateway, made on the coordinator's machine: roster entry, certificate and gateway.toml."""

from __future__ import annotations

from pathlib import Path

from coordinator.gateway.access import Access
from coordinator.gateway.config import PORT, GatewayConfig, starter
from coordinator.home import EVERYWHERE, LOOPBACK, CoordinatorHome
from coordinator.profile import new_folder
from coordinator.state import State
from privacy import private_files
from protocols.clock import Clock
from protocols.key_forms import new_tls_key, private_pem
from protocols.peer import Role

CONFIG_FILE = "gateway.toml"


def found_gateway(
    home: CoordinatorHome,
    state: State,
    out: Path,
    *,
    name: str,
    host: str,
    issuer: str,
    audience: str,
    access: Access,
    port: int = PORT,
    issuer_ca: str = "",
    plain_http: bool = False,
    clock: Clock,
) -> Path:
    """Write the folder `out` and return its gateway.toml. It may be moved to another machine as a whole.

    The gateway becomes a researcher who may use the projects of `access`, and gets a server certificate of
    the consortium for `host`.

    Guarantee: folder and roster entry are both there afterwards, or neither is.
    Raises: FileExistsError if `out` is there and not empty; ValueError for a name that is taken or malformed.
    """
    key = new_tls_key()
    certificate = home.authority(clock=clock).issue_server(key.public_key(), hosts=(host, *LOOPBACK))
    listen = "127.0.0.1" if host in LOOPBACK else EVERYWHERE[0]
    text = starter(
        profile="profile",
        issuer=issuer,
        audience=audience,
        access=access,
        listen=listen,
        port=port,
        certificate="" if plain_http else "tls.crt",
        key="" if plain_http else "tls.key",
        issuer_ca=issuer_ca,
        plain_http=plain_http,
    )
    with new_folder(out) as draft:
        private_files.write(draft / "tls.key", private_pem(key))
        private_files.write(draft / "tls.crt", certificate)
        private_files.write(draft / "ca.crt", home.authority_certificate.read_bytes())
        private_files.write(draft / CONFIG_FILE, text.encode())
        GatewayConfig.load(draft / CONFIG_FILE)  # refuses what `serve` would, before anybody is entered
        home.issue_profile(
            state,
            draft / "profile",
            name=name,
            role=Role.RESEARCHER,
            projects=tuple(grant.project for grant in access.grants),
            clock=clock,
        )
    return out / CONFIG_FILE
