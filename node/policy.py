"""What a hospital allows. Read once from `policy.toml`; whatever the file does not allow is refused.

No file, an unknown key, a missing key or a value out of range: nothing is allowed at all. The checks are pure
functions of the policy and of what is asked; they raise `Refused` with a code and no other word.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from privacy.accountant import LARGEST_EPSILON
from privacy.ledger import Caps
from protocols.refusal import RefusalCode, Refused

VERSION = 1
PRESETS = ("cautious", "demo")
QUESTION_KINDS = ("count",)
EVERY_PROJECT = "*"
FEWEST_SITES = 2  # a sum over one site is that site's value
MOST_SITES = 1_000
MAX_POLICY_BYTES = 262_144
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_PROJECT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")

_KEYS: Mapping[str, frozenset[str]] = {
    "": frozenset({"version", "sites", "questions", "budget", "training"}),
    "sites": frozenset({"minimum", "tolerance", "max_sites_per_patient", "peers"}),
    "questions": frozenset({"allowed", "tables", "max_epsilon", "max_delta"}),
    "budget": frozenset({"delta", "epsilon_total", "projects"}),
    "training": frozenset({"allowed", "require_approval", "max_epsilon", "max_delta"}),
}


class MalformedPolicy(ValueError):
    """The file breaks a rule. `key` names the place; until it is corrected everything is refused."""

    code = RefusalCode.NO_POLICY

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"policy.toml: {key}: {reason}")
        self.key = key
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Policy:
    """One hospital's rules. The meaning and unit of each field stand in the starter file."""

    minimum_sites: int
    tolerance: int
    max_sites_per_patient: int
    peers: frozenset[str]
    question_kinds: frozenset[str]
    tables: frozenset[str]
    max_epsilon_per_question: float
    max_delta_per_question: float
    budget_delta: float
    epsilon_total: float
    epsilon_by_project: Mapping[str, float]
    training_allowed: bool
    require_approval: bool
    max_epsilon_per_study: float
    max_delta_per_study: float

    def __post_init__(self) -> None:
        # besides up to `tolerance` colluders another honest hospital: else the sum is this one's value
        if self.minimum_sites - self.tolerance < FEWEST_SITES:
            raise MalformedPolicy("sites.minimum", f"at least tolerance + {FEWEST_SITES}")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the policy in the file at `path`.

        Raises: Refused(NO_POLICY) if there is none; MalformedPolicy, naming the key that is wrong.
        """
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            raise Refused(RefusalCode.NO_POLICY) from None
        return cls.parse(data)

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the policy written in `data` (TOML). Raises: MalformedPolicy."""
        if len(data) > MAX_POLICY_BYTES:
            raise MalformedPolicy("$", f"at most {MAX_POLICY_BYTES} bytes")
        try:
            top = tomllib.loads(data.decode())
        except (ValueError, RecursionError) as error:
            raise MalformedPolicy("$", "is not TOML") from error
        sections = {name: _section(top, name) for name in _KEYS}
        if sections[""]["version"] != VERSION:
            raise MalformedPolicy("version", f"this program reads version {VERSION}")
        sites, questions = sections["sites"], sections["questions"]
        budget, training = sections["budget"], sections["training"]
        return cls(
            minimum_sites=_integer(sites, "sites.minimum", FEWEST_SITES, MOST_SITES),
            tolerance=_integer(sites, "sites.tolerance", 0, MOST_SITES),
            max_sites_per_patient=_integer(sites, "sites.max_sites_per_patient", 1, MOST_SITES),
            peers=_names(sites, "sites.peers", _FINGERPRINT),
            question_kinds=_names(questions, "questions.allowed", None, QUESTION_KINDS),
            tables=_names(questions, "questions.tables", _TABLE),
            max_epsilon_per_question=_epsilon(questions["max_epsilon"], "questions.max_epsilon"),
            max_delta_per_question=_delta(questions["max_delta"], "questions.max_delta"),
            budget_delta=_delta(budget["delta"], "budget.delta"),
            epsilon_total=_epsilon(budget["epsilon_total"], "budget.epsilon_total"),
            epsilon_by_project=_projects(budget["projects"]),
            training_allowed=_flag(training, "training.allowed"),
            require_approval=_flag(training, "training.require_approval"),
            max_epsilon_per_study=_epsilon(training["max_epsilon"], "training.max_epsilon"),
            max_delta_per_study=_delta(training["max_delta"], "training.max_delta"),
        )

    def caps(self, project: str) -> Caps:
        """Return what `project` may spend. Raises: Refused(NOT_ALLOWED) if no line covers it."""
        cap = self.epsilon_by_project.get(project, self.epsilon_by_project.get(EVERY_PROJECT))
        if cap is None:
            raise Refused(RefusalCode.NOT_ALLOWED)
        return Caps(delta=self.budget_delta, epsilon_total=self.epsilon_total, epsilon_project=cap)

    def check_question(
        self,
        *,
        kind: str,
        project: str,
        tables: Collection[str],
        epsilon: float,
        delta: float,
        max_sites_per_patient: int,
        attempts: int = 1,
    ) -> None:
        """Refuse a question that this hospital does not allow, before anything is read or reserved.

        Args: epsilon and delta of one attempt. A second attempt is a second release, so each must fit the cap
        per question and the ledger decides about their sum.
        Raises: Refused(NOT_ALLOWED).
        """
        self.caps(project)
        allowed = (
            kind in self.question_kinds
            and set(tables) <= self.tables
            and 0 < epsilon <= self.max_epsilon_per_question
            and 0 < delta <= self.max_delta_per_question
            and max_sites_per_patient >= self.max_sites_per_patient
            and attempts >= 1
        )
        if not allowed:
            raise Refused(RefusalCode.NOT_ALLOWED)

    def check_study(
        self,
        *,
        project: str,
        tables: Collection[str],
        epsilon: float,
        delta: float,
        max_sites_per_patient: int,
        minimum_sites: int,
        tolerance: int,
        approved: bool,
    ) -> None:
        """Refuse a training plan that this hospital does not allow.

        Args: epsilon and delta of the whole run; approved, whether the plan's hash is on the hospital's list.
        Raises: Refused(NOT_ALLOWED); Refused(TOO_FEW_SITES) for a plan content with fewer sites;
        Refused(NOT_APPROVED) for a plan that is allowed and waits for approval.
        """
        self.caps(project)
        allowed = (
            self.training_allowed
            and set(tables) <= self.tables
            and 0 < epsilon <= self.max_epsilon_per_study
            and 0 < delta <= self.max_delta_per_study
            and max_sites_per_patient >= self.max_sites_per_patient
            and tolerance >= self.tolerance
        )
        if not allowed:
            raise Refused(RefusalCode.NOT_ALLOWED)
        if minimum_sites < self.minimum_sites:
            raise Refused(RefusalCode.TOO_FEW_SITES)
        if self.require_approval and not approved:
            raise Refused(RefusalCode.NOT_APPROVED)

    def check_participants(self, fingerprints: Collection[str], *, tolerance: int) -> None:
        """Refuse a secure-sum session among too few sites, with too little noise, or with a stranger.

        Args: fingerprints of all participants' identity keys, this hospital's included; tolerance, dropouts
        and colluders that the session's noise shares are made for.
        Raises: Refused(TOO_FEW_SITES), Refused(NOT_ALLOWED).
        """
        distinct = set(fingerprints)
        fewest = max(self.minimum_sites, tolerance + FEWEST_SITES)
        if len(distinct) != len(fingerprints) or len(distinct) < fewest:
            raise Refused(RefusalCode.TOO_FEW_SITES)
        if tolerance < self.tolerance or (self.peers and not distinct <= self.peers):
            raise Refused(RefusalCode.NOT_ALLOWED)

    def fewest_survivors(self, *, participants: int, tolerance: int) -> int:
        """Return with how many survivors at least a sum may be opened: fewer bring too little noise."""
        return max(self.minimum_sites, participants - tolerance)


def starter(preset: str = "cautious") -> bytes:
    """Return the text of a starter policy, every key with its meaning and unit. Raises: ValueError."""
    if preset not in PRESETS:
        raise ValueError(f"preset is one of {', '.join(PRESETS)}")
    return resources.files("node").joinpath("policies", f"{preset}.toml").read_bytes()


def write_starter(path: Path, *, preset: str = "cautious") -> None:
    """Write a starter policy to `path`, readable by its owner only.

    Raises: ValueError for an unknown preset; FileExistsError rather than change an existing policy.
    """
    data = starter(preset)
    handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _section(top: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = top if not name else top.get(name)
    if not isinstance(found, dict):
        raise MalformedPolicy(name, "missing, or not a section")
    prefix = f"{name}." if name else ""
    for key in sorted(set(found) - _KEYS[name]):
        raise MalformedPolicy(f"{prefix}{key}", "unknown key")
    for key in sorted(_KEYS[name] - set(found)):
        raise MalformedPolicy(f"{prefix}{key}", "missing")
    return found


def _integer(section: Mapping[str, Any], key: str, low: int, high: int) -> int:
    value = section[key.rpartition(".")[2]]
    if type(value) is not int or not low <= value <= high:
        raise MalformedPolicy(key, f"an integer from {low} to {high}")
    return value


def _flag(section: Mapping[str, Any], key: str) -> bool:
    value = section[key.rpartition(".")[2]]
    if not isinstance(value, bool):
        raise MalformedPolicy(key, "true or false")
    return value


def _epsilon(value: Any, key: str) -> float:
    if type(value) not in (int, float) or not 0 <= value <= LARGEST_EPSILON:
        raise MalformedPolicy(key, f"an epsilon from 0 to {LARGEST_EPSILON:g}")
    return float(value)


def _delta(value: Any, key: str) -> float:
    if type(value) is not float or not 0 < value <= 1e-3:
        raise MalformedPolicy(key, "a delta above 0, at most 0.001")
    return value


def _names(
    section: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None, known: Collection[str] = ()
) -> frozenset[str]:
    value = section[key.rpartition(".")[2]]
    if not isinstance(value, list):
        raise MalformedPolicy(key, "a list of texts")
    for n, item in enumerate(value):
        fits = isinstance(item, str) and (pattern.fullmatch(item) if pattern else item in known)
        if not fits:
            raise MalformedPolicy(f"{key}[{n}]", "not a value this key can hold")
    return frozenset(value)


def _projects(value: Any) -> Mapping[str, float]:
    if not isinstance(value, dict):
        raise MalformedPolicy("budget.projects", "a section with one epsilon per project")
    for name in value:
        if name != EVERY_PROJECT and not _PROJECT.fullmatch(name):
            raise MalformedPolicy(
                "budget.projects", "a project's name has 1 to 64 of a-z, 0-9, '.', '_', '-'"
            )
    return MappingProxyType({name: _epsilon(cap, f"budget.projects.{name}") for name, cap in value.items()})
