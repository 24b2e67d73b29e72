"""What gateway.toml says. Read once, when the gateway starts; unknown keys are errors.

Paths are relative to the folder of the file. Every key with its unit is in `STARTER`.
"""

from __future__ import annotations

import ipaddress
import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coordinator.gateway.access import Access, Grant
from coordinator.gateway.issuer import LOOPBACK, check_url

PORT = 8443
MAX_WAIT_S = 300
MAX_PER_MINUTE = 10_000
MAX_KEEP_DAYS = 3_650
STARTER = """\
# The REST gateway. Read once at the start; paths are relative to this file.

# The gateway's own entry in the roster: a researcher's credentials (folder).
profile = {profile}

# Who signs people in: the issuer's address as its tokens spell it, and the name of this gateway in `aud`.
issuer = {issuer}
audience = {audience}
# A file of authorities for the issuer's own certificate; "" for the machine's.
issuer_ca = {issuer_ca}
# The claim that lists a person's groups.
groups_claim = "groups"

# Where it listens. The key and certificate are PEM files; the key is for its owner only.
listen = {listen}
port = {port}
certificate = {certificate}
key = {key}
# true: no TLS, towards clients and the issuer. On loopback only, for trying things out.
plain_http = {plain_http}

# What the gateway remembers (SQLite, 0600), and for how many days.
book = "gateway.sqlite"
keep_days = 30

# How long a request waits for its answer before it gets 202, in seconds (1 to 300).
wait_s = 30
# Of one person, in a moving minute.
questions_per_minute = 20
reads_per_minute = 300
"""
ACCESS = """
# Who may ask under which project: subjects (`sub`) and groups of the issuer. Whoever is not named may not.
[[access]]
project = {project}
subjects = {subjects}
groups = {groups}
"""


class MalformedConfig(ValueError):
    """gateway.toml is missing or wrong. Names the key."""


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """The file, checked. See STARTER for what each key means."""

    profile: Path
    issuer: str
    audience: str
    issuer_ca: Path | None
    groups_claim: str
    listen: str
    port: int
    certificate: Path | None
    key: Path | None
    plain_http: bool
    book: Path
    keep_days: int
    wait_s: int
    questions_per_minute: int
    reads_per_minute: int
    access: Access

    def __post_init__(self) -> None:
        check_url(self.issuer, plain_http=self.plain_http)
        if not self.audience or not self.groups_claim:
            raise ValueError("audience and groups_claim must not be empty")
        if self.plain_http:
            if self.listen not in LOOPBACK or self.certificate or self.key:
                raise ValueError("plain_http listens on loopback only, without certificate and key")
        elif self.certificate is None or self.key is None:
            raise ValueError("certificate and key: both, or plain_http on loopback")
        if self.listen != "localhost":
            ipaddress.ip_address(self.listen)
        _within("port", self.port, 0, 65_535)
        _within("keep_days", self.keep_days, 1, MAX_KEEP_DAYS)
        _within("wait_s", self.wait_s, 1, MAX_WAIT_S)
        _within("questions_per_minute", self.questions_per_minute, 1, MAX_PER_MINUTE)
        _within("reads_per_minute", self.reads_per_minute, 1, MAX_PER_MINUTE)

    @classmethod
    def load(cls, path: Path) -> GatewayConfig:
        """Read the file. Raises: MalformedConfig."""
        try:
            text = path.read_text(encoding="utf-8")
            found: dict[str, Any] = tomllib.loads(text)
        except FileNotFoundError as error:
            raise MalformedConfig(f"{path}: not there; `fedtwin gateway init` makes one") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise MalformedConfig(f"{path}: not TOML") from error
        try:
            return _config(found, folder=path.parent)
        except ValueError as error:
            raise MalformedConfig(f"{path}: {error}") from error


_TEXTS = frozenset(
    {"profile", "issuer", "audience", "issuer_ca", "groups_claim", "listen", "certificate", "key", "book"}
)
_WHOLES = frozenset({"port", "keep_days", "wait_s", "questions_per_minute", "reads_per_minute"})
KEYS = _TEXTS | _WHOLES | {"plain_http", "access"}


def starter(
    *,
    profile: str,
    issuer: str,
    audience: str,
    access: Access,
    listen: str,
    port: int = PORT,
    certificate: str = "",
    key: str = "",
    issuer_ca: str = "",
    plain_http: bool = False,
) -> str:
    """Return the text of a gateway.toml."""
    head = STARTER.format(
        profile=_quoted(profile),
        issuer=_quoted(issuer),
        audience=_quoted(audience),
        issuer_ca=_quoted(issuer_ca),
        listen=_quoted(listen),
        port=port,
        certificate=_quoted(certificate),
        key=_quoted(key),
        plain_http=str(plain_http).lower(),
    )
    return head + "".join(
        ACCESS.format(
            project=_quoted(grant.project),
            subjects=json.dumps(sorted(grant.subjects)),
            groups=json.dumps(sorted(grant.groups)),
        )
        for grant in access.grants
    )


def _config(found: dict[str, Any], *, folder: Path) -> GatewayConfig:
    if set(found) != KEYS:
        raise ValueError("unknown or missing: " + ", ".join(sorted(set(found) ^ KEYS)))
    for name, value in found.items():
        kind = str if name in _TEXTS else int if name in _WHOLES else bool if name == "plain_http" else list
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ValueError(f"{name} has the wrong type")

    def path(name: str) -> Path | None:
        return folder / Path(found[name]).expanduser() if found[name] else None

    profile, book = path("profile"), path("book")
    if profile is None or book is None:
        raise ValueError("profile and book must not be empty")
    return GatewayConfig(
        profile=profile,
        issuer=found["issuer"],
        audience=found["audience"],
        issuer_ca=path("issuer_ca"),
        groups_claim=found["groups_claim"],
        listen=found["listen"],
        port=found["port"],
        certificate=path("certificate"),
        key=path("key"),
        plain_http=found["plain_http"],
        book=book,
        keep_days=found["keep_days"],
        wait_s=found["wait_s"],
        questions_per_minute=found["questions_per_minute"],
        reads_per_minute=found["reads_per_minute"],
        access=Access(tuple(_grant(entry) for entry in found["access"])),
    )


def _grant(entry: Any) -> Grant:
    if not isinstance(entry, dict) or set(entry) != {"project", "subjects", "groups"}:
        raise ValueError("access: each entry has project, subjects and groups")
    if not isinstance(entry["project"], str):
        raise ValueError("access: project is a text")
    for name in ("subjects", "groups"):
        listed = entry[name]
        if not isinstance(listed, list) or any(not isinstance(item, str) or not item for item in listed):
            raise ValueError(f"access: {name} is a list of texts")
    return Grant(entry["project"], frozenset(entry["subjects"]), frozenset(entry["groups"]))


def _within(name: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name}: {least} to {most}")


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
