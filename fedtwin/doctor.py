"""`fedtwin node doctor`: look at everything a node needs, and say for each what to do if it is not well."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import stat
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from protocols.clock import Clock
from protocols.invitation import check_address

RENEW_SOON = timedelta(days=14)  # a node renews by itself long before; two weeks leave time for a person
LITTLE_DISK_BYTES = 2 * 2**30  # a load of a million rows takes some hundred megabytes
CONNECT_TIMEOUT_S = 5.0
LOOK_S = 30.0  # to count the patients of a warehouse


class Health(StrEnum):
    """How one check came out."""

    OK = "OK"
    WARN = "WARN"  # works now, needs a person soon
    FAIL = "FAIL"  # the node cannot do its work


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: how it came out, what was seen, and what to do."""

    check: str
    health: Health
    seen: str
    to_do: str = ""

    def to_json(self) -> dict[str, str]:
        """Return the finding as JSON fields."""
        return {key: str(value) for key, value in asdict(self).items()}


def examine(home: Path, *, clock: Clock) -> Iterator[Finding]:
    """Yield one finding per check, in the order a person would look. Nothing is changed."""
    if not (home / "node.toml").is_file():
        yield Finding("home", Health.FAIL, f"{home} is no node", "fedtwin node join TOKEN")
        return
    from fedtwin import doctor_data

    checks: tuple[tuple[str, Callable[[Path, Clock], Finding]], ...] = (
        ("keys", _keys),
        ("certificate", _certificate),
        ("clock", _clock),
        ("roster", _roster),
        ("coordinator", _coordinator),
        ("policy", _policy),
        ("store", _store),
        ("quality", doctor_data.quality),
        ("mapping", doctor_data.mapped),
        ("key-holder", doctor_data.key_holder),
        ("ledger", _ledger),
        ("audit", _audit),
        ("leftovers", doctor_data.leftovers),
        ("disk", _disk),
    )
    for name, check in checks:
        try:
            yield check(home, clock)
        except Exception as error:  # a broken file must not hide the findings after it
            yield Finding(
                name, Health.FAIL, type(error).__name__, "see the node's logs, or restore from backup"
            )


def _keys(home: Path, _: Clock) -> Finding:
    open_to_others = [
        path.relative_to(home)
        for path in (home, *(home / "keys").iterdir())
        if stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    wanted = ("identity.key", "tls.key", "flower.key")
    missing = [name for name in wanted if not (home / "keys" / name).is_file()]
    if missing:
        return Finding(
            "keys", Health.FAIL, f"missing: {', '.join(missing)}", "join again with a new invitation"
        )
    if open_to_others:
        shown = ", ".join(str(path) for path in open_to_others)
        return Finding("keys", Health.FAIL, f"others may read: {shown}", f"chmod -R go-rwx {home}")
    return Finding("keys", Health.OK, "readable by this user only")


def _certificate(home: Path, clock: Clock) -> Finding:
    until = _validity(home)[1]
    left = until - clock.now()
    if left <= timedelta(0):
        return Finding(
            "certificate", Health.FAIL, f"expired on {until:%Y-%m-%d}", "ask the lead for a new invitation"
        )
    if left < RENEW_SOON:
        to_do = "keep `fedtwin node serve` running: it renews by itself"
        return Finding("certificate", Health.WARN, f"expires on {until:%Y-%m-%d}", to_do)
    return Finding("certificate", Health.OK, f"valid until {until:%Y-%m-%d}")


def _validity(home: Path) -> tuple[datetime, datetime]:
    from cryptography.x509 import load_pem_x509_certificate

    certificate = load_pem_x509_certificate((home / "tls.crt").read_bytes())
    return certificate.not_valid_before_utc, certificate.not_valid_after_utc


def _clock(home: Path, clock: Clock) -> Finding:
    now, since = clock.now(), _validity(home)[0]
    if now < since:
        return Finding(
            "clock", Health.FAIL, "it is earlier than this node's certificate", "set the time (NTP)"
        )
    latest = max((path.stat().st_mtime for path in home.glob("*.*") if path.is_file()), default=0.0)
    if latest > now.timestamp() + 60:
        return Finding("clock", Health.WARN, "files here are from the future", "set the time (NTP)")
    return Finding("clock", Health.OK, f"{now:%Y-%m-%d %H:%M} UTC")


def _roster(home: Path, clock: Clock) -> Finding:
    from node.home import NodeHome
    from node.roster import RosterKeeper

    keeper = RosterKeeper.open(NodeHome(home))
    roster = keeper.current
    if keeper.revoked:
        to_do = "ask the lead; a revoked hospital has to join anew, in another home"
        return Finding("roster", Health.FAIL, f"version {roster.version} does not list this node", to_do)
    return Finding("roster", Health.OK, f"version {roster.version}, {len(roster.active_nodes)} hospitals")


def _coordinator(home: Path, clock: Clock) -> Finding:
    fields = tomllib.loads((home / "node.toml").read_text(encoding="utf-8"))
    address = str(fields["broker_address"])
    host, port = check_address(address)
    context = ssl.create_default_context(cafile=str(home / "ca.crt"))
    context.load_cert_chain(str(home / "tls.crt"), str(home / "keys" / "tls.key"))
    try:
        with (
            socket.create_connection((host, port), timeout=CONNECT_TIMEOUT_S) as plain,
            context.wrap_socket(plain, server_hostname=host),
        ):
            return Finding("coordinator", Health.OK, f"{address} answers with the consortium's certificate")
    except ssl.SSLError:
        to_do = "exempt it from TLS interception; check that the address is right"
        return Finding("coordinator", Health.FAIL, f"{address} shows another certificate", to_do)
    except OSError:
        to_do = "allow outbound TCP to it (docs/network.md), or ask the lead whether it runs"
        return Finding("coordinator", Health.FAIL, f"{address} cannot be reached", to_do)


def _policy(home: Path, _: Clock) -> Finding:
    from node.policy import Policy
    from protocols.refusal import Refused

    try:
        Policy.load(home / "policy.toml")
    except Refused:
        to_do = "fedtwin node policy init"
        return Finding("policy", Health.FAIL, "none: everything is refused", to_do)
    except ValueError as error:
        return Finding("policy", Health.FAIL, str(error), f"correct {home / 'policy.toml'}")
    return Finding("policy", Health.OK, str(home / "policy.toml"))


def _store(home: Path, _: Clock) -> Finding:
    from node.home import NodeHome
    from node.omop.errors import StoreBusy, StoreError
    from node.stores import Stores, look
    from protocols.refusal import Refused

    config = NodeHome(home).config()
    if not config.store and not NodeHome(home).store.is_file():
        return Finding("store", Health.WARN, "no data yet", "fedtwin node ingest PATH")
    where = "its own store" if not config.store else "the CDM of `fedtwin node store show`"
    with closing(Stores(NodeHome(home))) as stores:
        try:
            seen = look(stores.open(), time_s=LOOK_S)
        except StoreBusy:
            return Finding("store", Health.OK, "open in the serving node")
        except (StoreError, Refused) as error:
            to_do = "see docs/warehouse.md: address, rights and schema"
            return Finding("store", Health.FAIL, str(error), to_do)
    found = f"{seen.persons} patients in {where}"
    if seen.missing:
        return Finding("store", Health.WARN, f"{found}; not there: {', '.join(seen.missing)}", "make them")
    if not seen.concepts:
        return Finding(
            "store",
            Health.WARN,
            f"{found}; no vocabulary: no Circe cohort can be answered",
            "fedtwin node vocabulary load FOLDER",
        )
    return Finding("store", Health.OK, f"{found}, with a vocabulary")


def _ledger(home: Path, clock: Clock) -> Finding:
    from fedtwin.node_view import ledger_entries

    if not (home / "ledger.sqlite").is_file():
        return Finding("ledger", Health.OK, "nothing spent yet")
    return Finding("ledger", Health.OK, f"chain of {ledger_entries(home, clock=clock)} entries holds")


def _audit(home: Path, _: Clock) -> Finding:
    from fedtwin.node_view import audit_entries

    if not (home / "audit.jsonl").is_file():
        return Finding("audit", Health.OK, "nothing recorded yet")
    return Finding("audit", Health.OK, f"chain of {audit_entries(home)} entries holds")


def _disk(home: Path, _: Clock) -> Finding:
    free = shutil.disk_usage(home).free
    if not os.access(home, os.W_OK):
        return Finding("disk", Health.FAIL, "this user may not write here", f"check who owns {home}")
    if free < LITTLE_DISK_BYTES:
        return Finding("disk", Health.WARN, f"{free / 2**30:.1f} GiB free", "make room: a load needs some")
    return Finding("disk", Health.OK, f"{free / 2**30:.0f} GiB free")
