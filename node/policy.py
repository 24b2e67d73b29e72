"""What a hospital allows. Read once from `policy.toml`; whatever the file does not allow is refused.

No file, an unknown key, a missing key or a value out of range: nothing is allowed at all. The checks are pure
functions of the policy and of what is asked; they raise `Refused` with a code and no other word.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any, Protocol, Self

from node import policy_form as form
from node.deid_standing import DeidStanding
from node.policy_form import EVERY, MalformedPolicy
from privacy.budget import Account, Caps
from protocols.refusal import RefusalCode, Refused

PRESETS = ("cautious", "demo")
QUESTION_KINDS = (
    "count",
    "breakdown",
    "histogram",
    "mean",
    "contingency",
    "incidence",
    "survival",
    "attrition",
    "feasibility",
)
COHORT_FORMS = ("fedtwin", "circe")
MECHANISMS = ("gaussian", "laplace")
PERIODS = {"never": 0, "yearly": 12, "quarterly": 3, "monthly": 1}  # months
FEWEST_SITES = 2  # a sum over one site is that site's value
MOST_SITES = 1_000
LONGEST_GRID_MS = 60_000  # as long as a question may take at all: then every answer leaves at the same time
OLDEST_REPORT_DAYS = 366  # what a report of a year ago says of today's data is nothing
# A sum without noise over one person is that person's record; 3 is what others call the least of all cells.
FEWEST_PEOPLE = 3
MOST_PEOPLE = 1_000_000
VOCABULARY = frozenset(  # what the CDM says about words, not about patients: no policy has to name it
    {
        "concept",
        "concept_ancestor",
        "concept_class",
        "concept_relationship",
        "concept_synonym",
        "domain",
        "drug_strength",
        "relationship",
        "vocabulary",
    }
)
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NAME_RULE = "1 to 64 of a-z, 0-9, '.', '_' and '-'"
_RESEARCHER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}(/[!-~]{1,128})?")
_RESEARCHER_RULE = "a name of the roster, or that of a gateway, '/', and whom it asks for"
_TABLE = re.compile(r"[a-z][a-z0-9_]{0,62}")


@dataclass(frozen=True, slots=True)
class QualityDemand:
    """What a hospital asks of its own data before it takes part in studies. Shares from 0 to 1."""

    min_pass_rate: float
    min_mapping_coverage: float
    max_age: timedelta  # of the report that says so

    def check(self, standing: Standing | None, *, now: datetime) -> None:
        """Refuse studies while the data are not known to be good enough. Args: standing, of the last report.

        Raises: Refused(DATA_QUALITY).
        """
        if standing is None or not timedelta(0) <= now - standing.made_at <= self.max_age:
            raise Refused(RefusalCode.DATA_QUALITY)
        for found, asked in (
            (standing.pass_rate, self.min_pass_rate),
            (standing.mapping_coverage, self.min_mapping_coverage),
        ):
            if found is None or found < asked:
                raise Refused(RefusalCode.DATA_QUALITY)


@dataclass(frozen=True, slots=True)
class ExactRule:
    """Which studies without noise a hospital takes part in, and with how many of its people at least."""

    studies: frozenset[str]  # plan hashes
    minimum_people: int


@dataclass(frozen=True, slots=True)
class DeidDemand:
    """What a hospital asks to know of how identity is taken out before it takes part in studies."""

    min_char_recall: float
    max_over_redaction: float
    canary: bool  # whether planted identities must have come out nowhere
    max_age: timedelta  # of the evaluation and of the canary

    def check(self, standing: DeidStanding, *, now: datetime) -> None:
        """Refuse studies while it is not known that identity is taken out well enough.

        Raises: Refused(DEIDENTIFICATION).
        """
        recall, removed = standing.char_recall, standing.over_redaction
        if recall is None or removed is None or not self._recent(standing.evaluated_at, now):
            raise Refused(RefusalCode.DEIDENTIFICATION)
        if recall < self.min_char_recall or removed > self.max_over_redaction:
            raise Refused(RefusalCode.DEIDENTIFICATION)
        if self.canary and not (self._recent(standing.canary_at, now) and standing.canary_leaks == 0):
            raise Refused(RefusalCode.DEIDENTIFICATION)

    def _recent(self, made_at: datetime | None, now: datetime) -> bool:
        return made_at is not None and timedelta(0) <= now - made_at <= self.max_age


class Standing(Protocol):
    """How good the data were found to be; None: nothing there to judge."""

    @property
    def pass_rate(self) -> float | None: ...
    @property
    def mapping_coverage(self) -> float | None: ...
    @property
    def made_at(self) -> datetime: ...


@dataclass(frozen=True, slots=True)
class Policy:
    """One hospital's rules. The meaning and unit of each field stand in the starter file."""

    minimum_sites: int
    tolerance: int
    max_sites_per_patient: int
    peers: frozenset[str]
    question_kinds: frozenset[str]
    cohort_forms: frozenset[str]
    mechanisms: frozenset[str]
    on_behalf: bool
    answer_grid_ms: int
    tables: frozenset[str]
    max_epsilon_per_question: float
    max_delta_per_question: float
    budget_delta: float
    epsilon_total: float
    epsilon_by_project: Mapping[str, float]
    epsilon_by_dataset: Mapping[str, float]
    epsilon_by_researcher: Mapping[str, float]
    project_period: str
    researcher_period: str
    training_allowed: bool
    require_approval: bool
    max_epsilon_per_study: float
    max_delta_per_study: float
    quality: QualityDemand | None  # None: no demand
    deid: DeidDemand | None  # None: no demand
    exact: ExactRule | None  # None: no study without noise

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
        sections = form.sections_of(data)
        sites, questions = sections["sites"], sections["questions"]
        budget, reset, training = sections["budget"], sections["budget.reset"], sections["training"]
        return cls(
            minimum_sites=form.integer(sites, "sites.minimum", FEWEST_SITES, MOST_SITES),
            tolerance=form.integer(sites, "sites.tolerance", 0, MOST_SITES),
            max_sites_per_patient=form.integer(sites, "sites.max_sites_per_patient", 1, MOST_SITES),
            peers=form.names(sites, "sites.peers", _FINGERPRINT),
            question_kinds=form.names(questions, "questions.allowed", None, QUESTION_KINDS),
            cohort_forms=form.names(questions, "questions.cohorts", None, COHORT_FORMS),
            mechanisms=form.names(questions, "questions.mechanisms", None, MECHANISMS),
            on_behalf=form.flag(questions, "questions.on_behalf"),
            answer_grid_ms=form.integer(questions, "questions.answer_grid_ms", 0, LONGEST_GRID_MS),
            tables=form.names(questions, "questions.tables", _TABLE),
            max_epsilon_per_question=form.epsilon(questions["max_epsilon"], "questions.max_epsilon"),
            max_delta_per_question=form.delta(questions["max_delta"], "questions.max_delta"),
            budget_delta=form.delta(budget["delta"], "budget.delta"),
            epsilon_total=form.epsilon(budget["epsilon_total"], "budget.epsilon_total"),
            epsilon_by_project=form.caps(budget["projects"], "budget.projects", _NAME, _NAME_RULE),
            epsilon_by_dataset=form.caps(budget["datasets"], "budget.datasets", _NAME, _NAME_RULE),
            epsilon_by_researcher=form.caps(
                budget["researchers"], "budget.researchers", _RESEARCHER, _RESEARCHER_RULE
            ),
            project_period=form.choice(reset, "budget.reset.projects", PERIODS),
            researcher_period=form.choice(reset, "budget.reset.researchers", PERIODS),
            training_allowed=form.flag(training, "training.allowed"),
            require_approval=form.flag(training, "training.require_approval"),
            max_epsilon_per_study=form.epsilon(training["max_epsilon"], "training.max_epsilon"),
            max_delta_per_study=form.delta(training["max_delta"], "training.max_delta"),
            quality=_quality(sections.get("quality")),
            deid=_deid(sections.get("deid")),
            exact=_exact(sections.get("exact")),
        )

    def caps(self, account: Account, *, now: datetime) -> Caps:
        """Return what `account` may spend at the moment `now` (aware).

        Raises: Refused(NOT_ALLOWED) if no line covers its project, its researcher or its dataset.
        """
        return Caps(
            delta=self.budget_delta,
            epsilon_total=self.epsilon_total,
            epsilon_dataset=_cap(self.epsilon_by_dataset, account.dataset),
            epsilon_project=_cap(self.epsilon_by_project, account.project),
            epsilon_researcher=_cap(self.epsilon_by_researcher, account.researcher),
            project_since=period_start(self.project_period, now),
            researcher_since=period_start(self.researcher_period, now),
        )

    def check_question(
        self,
        *,
        kind: str,
        cohort: str,
        mechanism: str,
        project: str,
        tables: Collection[str],
        epsilon: float,
        delta: float,
        max_sites_per_patient: int,
        on_behalf: bool,
        attempts: int,
    ) -> None:
        """Refuse a question that this hospital does not allow, before anything is read or reserved.

        Args: kind, of the statistic; cohort, its form; on_behalf, whether a gateway asks for a user of its
        own; epsilon and delta of one attempt. A second attempt is a second release, so each must fit the cap
        per question and the ledger decides about their sum.
        Raises: Refused(NOT_ALLOWED).
        """
        _cap(self.epsilon_by_project, project)
        allowed = (
            kind in self.question_kinds
            and cohort in self.cohort_forms
            and mechanism in self.mechanisms
            and (self.on_behalf or on_behalf is False)
            and set(tables) <= self.tables | VOCABULARY
            and 0 < epsilon <= self.max_epsilon_per_question
            and self._allows_delta(delta, mechanism)
            and max_sites_per_patient >= self.max_sites_per_patient
            and attempts >= 1
        )
        if not allowed:
            raise Refused(RefusalCode.NOT_ALLOWED)

    def _allows_delta(self, delta: float, mechanism: str) -> bool:
        """Return whether δ fits the mechanism: 0 for pure noise, above 0 and within the cap otherwise."""
        return delta == 0 if mechanism == "laplace" else 0 < delta <= self.max_delta_per_question

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
        _cap(self.epsilon_by_project, project)
        allowed = (
            self.training_allowed
            and set(tables) <= self.tables | VOCABULARY
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

    def check_exact(
        self,
        plan_hash: bytes,
        *,
        project: str,
        tables: Collection[str],
        minimum_sites: int,
        tolerance: int,
        approved: bool,
    ) -> int:
        """Refuse a study without noise that this hospital does not name; return the fewest people of a sum.

        Raises: Refused(EXACT_NOT_NAMED), whatever else the policy allows; and as `check_study` does.
        """
        if self.exact is None or plan_hash.hex() not in self.exact.studies:
            raise Refused(RefusalCode.EXACT_NOT_NAMED)
        _cap(self.epsilon_by_project, project)
        if not (
            self.training_allowed and set(tables) <= self.tables | VOCABULARY and tolerance >= self.tolerance
        ):
            raise Refused(RefusalCode.NOT_ALLOWED)
        if minimum_sites < self.minimum_sites:
            raise Refused(RefusalCode.TOO_FEW_SITES)
        if self.require_approval and not approved:
            raise Refused(RefusalCode.NOT_APPROVED)
        return self.exact.minimum_people

    def check_quality(self, standing: Callable[[], Standing | None], *, now: datetime) -> None:
        """Refuse studies while this hospital's data are not known to be as good as it asks of them.

        Args: standing, of the last report on the data; asked for only if there is a demand.
        Raises: Refused(DATA_QUALITY).
        """
        if self.quality is not None:
            self.quality.check(standing(), now=now)

    def check_deid(self, standing: Callable[[], DeidStanding], *, now: datetime) -> None:
        """Refuse studies while it is not known that identity is taken out as well as this hospital asks.

        Args: standing, of the last evaluation and canary; asked for only if there is a demand.
        Raises: Refused(DEIDENTIFICATION).
        """
        if self.deid is not None:
            self.deid.check(standing(), now=now)

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


def period_start(period: str, now: datetime) -> datetime | None:
    """Return when the calendar period that holds `now` began (UTC); None for "never".

    >>> period_start("quarterly", datetime(2026, 11, 21, tzinfo=UTC)).date().isoformat()
    '2026-10-01'
    """
    months = PERIODS[period]
    if not months:
        return None
    today = now.astimezone(UTC)
    return datetime(today.year, (today.month - 1) // months * months + 1, 1, tzinfo=UTC)


def _quality(found: Mapping[str, Any] | None) -> QualityDemand | None:
    if found is None:
        return None
    return QualityDemand(
        form.share(found, "quality.min_pass_rate"),
        form.share(found, "quality.min_mapping_coverage"),
        timedelta(days=form.integer(found, "quality.max_age_days", 1, OLDEST_REPORT_DAYS)),
    )


def _deid(found: Mapping[str, Any] | None) -> DeidDemand | None:
    if found is None:
        return None
    return DeidDemand(
        form.share(found, "deid.min_char_recall"),
        form.share(found, "deid.max_over_redaction"),
        form.flag(found, "deid.canary"),
        timedelta(days=form.integer(found, "deid.max_age_days", 1, OLDEST_REPORT_DAYS)),
    )


def _exact(found: Mapping[str, Any] | None) -> ExactRule | None:
    if found is None:
        return None
    return ExactRule(
        form.names(found, "exact.studies", _FINGERPRINT),
        form.integer(found, "exact.minimum_people", FEWEST_PEOPLE, MOST_PEOPLE),
    )


def _cap(lines: Mapping[str, float], name: str) -> float:
    """Return the cap of a name's own line, or of the line for every other. Raises: Refused(NOT_ALLOWED)."""
    cap = lines.get(name, lines.get(EVERY))
    if cap is None:
        raise Refused(RefusalCode.NOT_ALLOWED)
    return cap
