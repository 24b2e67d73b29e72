"""How policy.toml is read: every key known and there, every value in its range, or nothing is allowed."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from privacy.accountant import LARGEST_EPSILON
from protocols.refusal import RefusalCode

VERSION = 2
EVERY = "*"  # stands for each name that has no line of its own
MAX_POLICY_BYTES = 262_144

KEYS: Mapping[str, frozenset[str]] = {
    "": frozenset({"version", "sites", "questions", "budget", "training"}),
    "sites": frozenset({"minimum", "tolerance", "max_sites_per_patient", "peers"}),
    "questions": frozenset(
        {
            "allowed",
            "cohorts",
            "mechanisms",
            "tables",
            "max_epsilon",
            "max_delta",
            "on_behalf",
            "answer_grid_ms",
        }
    ),
    "budget": frozenset({"delta", "epsilon_total", "projects", "datasets", "researchers", "reset"}),
    "budget.reset": frozenset({"projects", "researchers"}),
    "training": frozenset({"allowed", "require_approval", "max_epsilon", "max_delta"}),
}
# Sections that a file may leave out; one that is there has exactly its keys.
OPTIONAL: Mapping[str, frozenset[str]] = {
    "exact": frozenset({"studies", "minimum_people"}),
    "quality": frozenset({"min_pass_rate", "min_mapping_coverage", "max_age_days"}),
    "deid": frozenset({"min_char_recall", "max_over_redaction", "canary", "max_age_days"}),
}
NEW_IN_2 = (
    "questions.cohorts",
    "questions.mechanisms",
    "questions.on_behalf",
    "questions.answer_grid_ms",
    "[budget.datasets]",
    "[budget.researchers]",
    "[budget.reset]",
)


class MalformedPolicy(ValueError):
    """The file breaks a rule. `key` names the place; until it is corrected everything is refused."""

    code = RefusalCode.NO_POLICY

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"policy.toml: {key}: {reason}")
        self.key = key
        self.reason = reason


def sections_of(data: bytes) -> Mapping[str, Mapping[str, Any]]:
    """Return the sections of the file by name, each with exactly its keys. Raises: MalformedPolicy."""
    if len(data) > MAX_POLICY_BYTES:
        raise MalformedPolicy("$", f"at most {MAX_POLICY_BYTES} bytes")
    try:
        top = tomllib.loads(data.decode())
    except (ValueError, RecursionError) as error:
        raise MalformedPolicy("$", "is not TOML") from error
    version = top.get("version", VERSION)
    if version == 1 and type(version) is int:
        raise MalformedPolicy(
            "version",
            f"this file is version 1; version 2 also needs {', '.join(NEW_IN_2)}: add them and set "
            "version = 2, or move the file away and run `fedtwin node policy init`",
        )
    if type(version) is not int or version != VERSION:
        raise MalformedPolicy("version", f"this program reads version {VERSION}")
    found = {name: section(top, name, keys) for name, keys in KEYS.items()}
    return found | {name: section(top, name, keys) for name, keys in OPTIONAL.items() if name in top}


def section(top: Mapping[str, Any], name: str, keys: frozenset[str]) -> Mapping[str, Any]:
    """Return one section of the file, with exactly its keys. Raises: MalformedPolicy."""
    found: Any = top
    for part in name.split(".") if name else ():
        found = found.get(part) if isinstance(found, dict) else None
    if not isinstance(found, dict):
        raise MalformedPolicy(name, "missing, or not a section")
    prefix = f"{name}." if name else ""
    known = keys if name else keys | OPTIONAL.keys()
    for key in sorted(set(found) - known):
        raise MalformedPolicy(f"{prefix}{key}", "unknown key")
    for key in sorted(keys - set(found)):
        raise MalformedPolicy(f"{prefix}{key}", "missing")
    return found


def integer(found: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """Return a whole number from `low` to `high`. Raises: MalformedPolicy."""
    value = found[key.rpartition(".")[2]]
    if type(value) is not int or not low <= value <= high:
        raise MalformedPolicy(key, f"an integer from {low} to {high}")
    return value


def flag(found: Mapping[str, Any], key: str) -> bool:
    """Return true or false. Raises: MalformedPolicy."""
    value = found[key.rpartition(".")[2]]
    if not isinstance(value, bool):
        raise MalformedPolicy(key, "true or false")
    return value


def share(found: Mapping[str, Any], key: str) -> float:
    """Return a share from 0 to 1. Raises: MalformedPolicy."""
    value = found[key.rpartition(".")[2]]
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise MalformedPolicy(key, "a share from 0 to 1")
    return float(value)


def epsilon(value: Any, key: str) -> float:
    """Return an ε. Raises: MalformedPolicy."""
    if type(value) not in (int, float) or not 0 <= value <= LARGEST_EPSILON:
        raise MalformedPolicy(key, f"an epsilon from 0 to {LARGEST_EPSILON:g}")
    return float(value)


def delta(value: Any, key: str) -> float:
    """Return a δ. Raises: MalformedPolicy."""
    if type(value) is not float or not 0 < value <= 1e-3:
        raise MalformedPolicy(key, "a delta above 0, at most 0.001")
    return value


def names(
    found: Mapping[str, Any], key: str, pattern: re.Pattern[str] | None, known: Collection[str] = ()
) -> frozenset[str]:
    """Return a list of texts that match `pattern`, or are among `known`. Raises: MalformedPolicy."""
    value = found[key.rpartition(".")[2]]
    if not isinstance(value, list):
        raise MalformedPolicy(key, "a list of texts")
    for n, item in enumerate(value):
        fits = isinstance(item, str) and (pattern.fullmatch(item) if pattern else item in known)
        if not fits:
            raise MalformedPolicy(f"{key}[{n}]", "not a value this key can hold")
    return frozenset(value)


def choice(found: Mapping[str, Any], key: str, known: Collection[str]) -> str:
    """Return one of the `known` words. Raises: MalformedPolicy."""
    value = found[key.rpartition(".")[2]]
    if not isinstance(value, str) or value not in known:
        raise MalformedPolicy(key, f"one of {', '.join(known)}")
    return value


def caps(value: Any, key: str, pattern: re.Pattern[str], meaning: str) -> Mapping[str, float]:
    """Return a section with one ε per name, or for `*`. Raises: MalformedPolicy."""
    if not isinstance(value, dict):
        raise MalformedPolicy(key, "a section with one epsilon per name")
    for name in value:
        if name != EVERY and not pattern.fullmatch(name):
            raise MalformedPolicy(key, meaning)
    return MappingProxyType({name: epsilon(cap, f"{key}.{name}") for name, cap in value.items()})
