"""Which training plans this hospital has approved: by hash, in `studies/approved.json` of the node's home.

Guarantee: a plan trains here only after somebody at the hospital approved this very plan; the file is written
whole or not at all (0600), and a plan in it that does not hash to its own key is not an approved plan.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from privacy import private_files
from protocols import canonical
from protocols.clock import Clock
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from protocols.study_fields import MAX_BYTES, MalformedStudy

FORMAT = "fedtwin-approvals-v1"
UNPROPOSED = "unproposed"  # whom a plan is charged to that staff approved from a file and no lead proposed
MAX_PENDING = 64  # plans waiting for a decision; a flood of proposals must not fill the disk
MAX_APPROVED_BYTES = 64 * MAX_BYTES


class DamagedApprovals(ValueError):
    """approved.json is not what this program wrote. Nothing counts as approved until a person looks at it."""


class NoSuchPlan(LookupError):
    """No plan, or more than one, of this hash is waiting or approved."""


class TooManyPending(Refused):
    """So many plans wait for a decision that another one is not kept."""

    def __init__(self) -> None:
        super().__init__(RefusalCode.NOT_READY)


@dataclass(frozen=True, slots=True)
class Pending:
    """A plan that waits for the hospital's decision. `proposed_by` is the lead's name as verified."""

    study: Study
    proposed_by: str


class Approvals:
    """The decisions of one hospital. Reads the files at every call, so that a command beside a running node
    takes effect at once."""

    def __init__(self, home: Path) -> None:
        """Use the folder `studies` in the node's home; it is made when first written to."""
        self._folder = home / "studies"
        self._approved = self._folder / "approved.json"
        self._pending = self._folder / "pending"
        self._proposers = self._folder / "proposers"  # not in approved.json: only staff's commands write that

    def propose(self, study: Study, *, proposed_by: str) -> bool:
        """Keep a plan whose signature was verified until somebody decides; return whether it is approved.

        Raises: TooManyPending.
        """
        if self.is_approved(study.plan_hash()):
            self._remember(study, proposed_by)
            return True
        file = self._pending / f"{study.plan_hash().hex()}.json"
        if not file.exists():
            if len(self._pending_files()) >= MAX_PENDING:
                raise TooManyPending
            private_files.make_folder(self._folder)
            private_files.make_folder(self._pending)
            form = {"format": FORMAT, "plan": study.to_json(), "proposed_by": proposed_by}
            private_files.write(file, canonical.encode(form))
            self._remember(study, proposed_by)
        return False

    def proposer(self, plan_hash: bytes) -> str:
        """Return who first proposed the plan of this hash: its rounds are charged to them."""
        try:
            return (self._proposers / plan_hash.hex()).read_text(encoding="utf-8")
        except FileNotFoundError:
            return UNPROPOSED

    def pending(self) -> tuple[Pending, ...]:
        """Return the plans that wait for a decision."""
        found = []
        for file in self._pending_files():
            form = canonical.decode(file.read_bytes(), max_bytes=2 * MAX_BYTES)
            study = Study.from_json(form["plan"])
            if study.plan_hash().hex() == file.stem:
                found.append(Pending(study, str(form["proposed_by"])))
        return tuple(found)

    def expect_training(self) -> bool:
        """Return whether a plan was ever approved, or one waits for a decision."""
        return self._approved.exists() or bool(self._pending_files())

    def approve(self, study: Study, *, clock: Clock) -> None:
        """Approve this plan. Approving twice is approving once."""
        entries = self._read()
        key = study.plan_hash().hex()
        if key not in entries:
            entries[key] = {"approved_at": clock.now().isoformat(), "plan": study.to_json()}
            self._write(entries)
        (self._pending / f"{key}.json").unlink(missing_ok=True)

    def approve_hash(self, digits: str, *, clock: Clock) -> Study:
        """Approve the waiting plan whose hash starts with `digits` (8 hex digits at least), and return it.

        Raises: NoSuchPlan.
        """
        study = self._one(digits, [pending.study for pending in self.pending()])
        self.approve(study, clock=clock)
        return study

    def named(self, digits: str) -> Study:
        """Return the plan, waiting or approved, whose hash starts with `digits` (8 hex digits at least).

        Raises: NoSuchPlan.
        """
        return self._one(digits, [pending.study for pending in self.pending()] + list(self.approved()))

    def withdraw(self, digits: str) -> Study:
        """Take back the approval of the plan whose hash starts with `digits`. Its next round is refused.

        Raises: NoSuchPlan.
        """
        study = self._one(digits, list(self.approved()))
        entries = self._read()
        del entries[study.plan_hash().hex()]
        self._write(entries)
        return study

    def approved(self) -> tuple[Study, ...]:
        """Return every approved plan. Raises: DamagedApprovals."""
        return tuple(self._study(key, entry) for key, entry in sorted(self._read().items()))

    def is_approved(self, plan_hash: bytes) -> bool:
        """Return whether this very plan is approved. Raises: DamagedApprovals."""
        return plan_hash.hex() in self._read()

    def study(self, plan_hash: bytes) -> Study:
        """Return the approved plan of this hash.

        Raises: Refused(NOT_APPROVED); DamagedApprovals if the stored plan is not the one of the hash.
        """
        key = plan_hash.hex()
        entries = self._read()
        if key not in entries:
            raise Refused(RefusalCode.NOT_APPROVED)
        return self._study(key, entries[key])

    def find(self, plan_hash: bytes) -> tuple[Study, bool]:
        """Return the plan of this hash that is approved or waits, and whether it is approved.

        Raises: Refused(NOT_APPROVED) for a plan nobody proposed; DamagedApprovals.
        """
        try:
            return self.study(plan_hash), True
        except Refused:
            for pending in self.pending():
                if pending.study.plan_hash() == plan_hash:
                    return pending.study, False
            raise

    def _remember(self, study: Study, proposed_by: str) -> None:
        file = self._proposers / study.plan_hash().hex()
        if not file.exists():
            private_files.make_folder(self._proposers)
            private_files.write(file, proposed_by.encode())

    def _one(self, digits: str, studies: list[Study]) -> Study:
        found = [study for study in studies if study.plan_hash().hex().startswith(digits.lower())]
        if len(digits) < 8 or len(found) != 1:
            raise NoSuchPlan(f"{len(found)} plans start with these digits; give 8 or more of one")
        return found[0]

    def _pending_files(self) -> list[Path]:
        return sorted(self._pending.glob("*.json")) if self._pending.is_dir() else []

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            form = canonical.decode(self._approved.read_bytes(), max_bytes=MAX_APPROVED_BYTES)
        except FileNotFoundError:
            return {}
        except canonical.MalformedJson as error:
            raise DamagedApprovals("approved.json is not JSON") from error
        if not isinstance(form, dict) or form.get("format") != FORMAT or set(form) != {"format", "plans"}:
            raise DamagedApprovals("approved.json has another format")
        return dict(form["plans"])

    def _write(self, entries: dict[str, dict[str, Any]]) -> None:
        private_files.make_folder(self._folder)
        private_files.write(self._approved, canonical.encode({"format": FORMAT, "plans": entries}))

    @staticmethod
    def _study(key: str, entry: dict[str, Any]) -> Study:
        try:
            study = Study.from_json(entry["plan"])
        except (MalformedStudy, KeyError, TypeError) as error:
            raise DamagedApprovals("an approved plan cannot be read") from error
        if study.plan_hash().hex() != key:
            raise DamagedApprovals("an approved plan is not the one of its hash")
        return study
