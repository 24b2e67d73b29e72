"""A hospital's folder: what lies where, and what node.toml says.

node.toml  keys/ (0600)  tls.crt ca.crt  roster.json peers.json  policy.toml  store/omop.duckdb
ledger.sqlite  audit.jsonl  studies/{approved.json,pending/}  own_parts/  held_models/  looks/  features/
logs/  evaluations/  flwr/
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, fields
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from node.store_url import StoreUrl
from privacy.budget import DATASET, DEFAULT_DATASET
from protocols.ids import ConsortiumId, NodeId
from protocols.invitation import check_address
from protocols.roster import display_name

OPTIONAL = ("dataset", "store", "schema", "memory", "data_version")
MEMORY = re.compile(r"[1-9][0-9]{0,5}(MB|GB)")


class MalformedConfig(ValueError):
    """node.toml is missing or wrong."""


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What node.toml says; the join writes it. Unknown and missing keys are errors.

    node_id, name, consortium: as the roster lists this hospital. roster_key: the Ed25519 key that rosters are
    verified with (64 hex digits). broker_address, fleet_address: `host:port` to connect out to.

    The rest may be missing. store: where the CDM lies (docs/warehouse.md), "" for this folder's own.
    schema: its schema there, "" to look for it. memory: what DuckDB may use, "8GB"; "" for 80 % of the
    machine. data_version: raised when the data change in a way that the database does not show. dataset: the
    name under which what is told about these data is charged (`[budget.datasets]` of the policy).
    """

    node_id: NodeId
    name: str
    consortium: ConsortiumId
    roster_key: bytes
    broker_address: str
    fleet_address: str
    store: str = ""
    schema: str = ""
    memory: str = ""
    data_version: int = 0
    dataset: str = DEFAULT_DATASET

    def __post_init__(self) -> None:
        display_name(self.name)
        if self.store:
            StoreUrl.parse(self.store)
        if self.memory and not MEMORY.fullmatch(self.memory):
            raise ValueError("memory is a number and MB or GB, 2GB")
        if self.data_version < 0:
            raise ValueError("data_version is 0 or more")
        if not DATASET.fullmatch(self.dataset):
            raise ValueError("dataset is 1 to 64 of a-z, 0-9, '.', '_' and '-'")
        check_address(self.broker_address)
        check_address(self.fleet_address)
        Ed25519PublicKey.from_public_bytes(self.roster_key)

    def to_toml(self) -> str:
        """Return the file's text."""
        values: dict[str, str | int] = {
            "node_id": str(self.node_id),
            "name": self.name,
            "consortium": str(self.consortium),
            "roster_key": self.roster_key.hex(),
            "broker_address": self.broker_address,
            "fleet_address": self.fleet_address,
        }
        for key in OPTIONAL:
            if value := getattr(self, key):
                values[key] = value
        return "".join(f"{key} = {json.dumps(value, ensure_ascii=False)}\n" for key, value in values.items())

    @classmethod
    def parse(cls, text: str) -> NodeConfig:
        """Return the config in `text`. Raises: MalformedConfig."""
        try:
            found = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise MalformedConfig("node.toml: not TOML") from error
        known = {field.name: int if field.type == "int" else str for field in fields(cls)}
        wrong = [key for key in found if key not in known or type(found[key]) is not known[key]]
        missing = known.keys() - OPTIONAL - found.keys()
        if wrong or missing:
            needed = ", ".join(sorted(known.keys() - OPTIONAL))
            raise MalformedConfig(
                f"node.toml: needs exactly {needed}, each a text; may have {', '.join(OPTIONAL)} (a number)"
            )
        try:
            return cls(
                node_id=NodeId.parse(found["node_id"]),
                name=found["name"],
                consortium=ConsortiumId.parse(found["consortium"]),
                roster_key=bytes.fromhex(found["roster_key"]),
                broker_address=found["broker_address"],
                fleet_address=found["fleet_address"],
                **{key: found[key] for key in OPTIONAL if key in found},
            )
        except ValueError as error:
            raise MalformedConfig(f"node.toml: {error}") from error


@dataclass(frozen=True, slots=True)
class NodeHome:
    """Paths of one hospital's node."""

    path: Path

    @property
    def config_file(self) -> Path:
        """node.toml: its presence says that the hospital has joined."""
        return self.path / "node.toml"

    @property
    def joined(self) -> bool:
        """Whether this hospital has joined a consortium."""
        return self.config_file.is_file()

    @property
    def keys(self) -> Path:
        """identity.key, tls.key, flower.key and pseudonym.key."""
        return self.path / "keys"

    @property
    def flower_key(self) -> Path:
        """The SuperNode's private key, OpenSSH form."""
        return self.keys / "flower.key"

    @property
    def certificate(self) -> Path:
        """tls.crt: this node's certificate."""
        return self.path / "tls.crt"

    @property
    def authority(self) -> Path:
        """ca.crt: the consortium's authority, the only one that is trusted."""
        return self.path / "ca.crt"

    @property
    def roster(self) -> Path:
        """roster.json: the newest signed roster."""
        return self.path / "roster.json"

    @property
    def peers(self) -> Path:
        """peers.json: the identity keys that were seen first, by node and by person."""
        return self.path / "peers.json"

    @property
    def policy(self) -> Path:
        """policy.toml: without it everything is refused."""
        return self.path / "policy.toml"

    @property
    def store(self) -> Path:
        """The OMOP database."""
        return self.path / "store" / "omop.duckdb"

    @property
    def ledger(self) -> Path:
        """The privacy ledger."""
        return self.path / "ledger.sqlite"

    @property
    def audit(self) -> Path:
        """The audit trail."""
        return self.path / "audit.jsonl"

    @property
    def features(self) -> Path:
        """features/: rows of feature sets that were computed once (`fedtwin node features`)."""
        return self.path / "features"

    @property
    def own_parts(self) -> Path:
        """own_parts/: what models learned of this site alone, which never leaves it."""
        return self.path / "own_parts"

    @property
    def held_models(self) -> Path:
        """held_models/: digests of the models that rounds started from and led to, by plan."""
        return self.path / "held_models"

    @property
    def looks(self) -> Path:
        """looks/: what looks at models said of this site's own validation patients; it never leaves it."""
        return self.path / "looks"

    @property
    def evaluations(self) -> Path:
        """evaluations/: how models did on held-out patients (`fedtwin node evaluate`); it never leaves."""
        return self.path / "evaluations"

    @property
    def quality(self) -> Path:
        """quality.json: the last report on the data (`fedtwin node quality`)."""
        return self.path / "quality.json"

    @property
    def deid(self) -> Path:
        """deid.json: the last evaluation and canary (`fedtwin deid evaluate`, `fedtwin deid canary`)."""
        return self.path / "deid.json"

    @property
    def snapshots(self) -> Path:
        """Manifests, and rows where they were kept, of sets of data that can be made again."""
        return self.path / "snapshots"

    @property
    def studies(self) -> Path:
        """approved.json and pending/."""
        return self.path / "studies"

    @property
    def logs(self) -> Path:
        """Logs of the node and of what it starts."""
        return self.path / "logs"

    @property
    def flwr(self) -> Path:
        """FLWR_HOME of this node's SuperNode."""
        return self.path / "flwr"

    def config(self) -> NodeConfig:
        """Read node.toml. Raises: MalformedConfig."""
        if not self.joined:
            raise MalformedConfig(f"{self.path}: no node here; `fedtwin node join TOKEN` makes one")
        return NodeConfig.parse(self.config_file.read_text(encoding="utf-8"))
