"""Which models this hospital held of each plan, and from which one its next round may start.

A round starts from a model that the coordinator sends. Where a hospital knows better, it does not believe it.
This module remembers, durably and by digest (privacy.descent.digest), the model that the last round here
started from and each that it came to by an opened total.

Guarantee: the first round of a plan starts from the plan's own model, which follows from the plan. A later
one starts from a model that this hospital held in its last round: the last of them, or an earlier one where
the coordinator was stopped before it had read the totals that came after it. From any other one it starts
only where this hospital was away: cut off in the last round before its end, or not in the rounds since. Then
it cannot know better. Which of these it was is in the audit trail (`Began`), and what a round starts from is
bound into its masks (privacy.study_noise.step_context): hospitals with different models do not add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from privacy import private_files, walks
from privacy.descent import digest
from protocols import canonical
from protocols.refusal import RefusalCode, Refused
from protocols.study import MAX_STEPS, Study

DIGEST_HEX = 64
MAX_BYTES = 1024 + (DIGEST_HEX + 3) * (MAX_STEPS + 1)  # of the file: one digest a step, in quotation marks


class DamagedMemory(ValueError):
    """The file of what was held is not what was written: no later round of its plan begins."""


class Began(StrEnum):
    """What a round's first model is to this hospital."""

    PLAN = "plan-start"  # the one that follows from the plan
    LAST = "where-it-ended"  # the last that was held here
    EARLIER = "earlier-step"  # one that was held here earlier in the last round
    UNKNOWN = "not-known-here"  # this hospital was away when it was made


@dataclass(frozen=True, slots=True)
class _LastRound:
    """The latest round of a plan here: `held`, digests in hex, from its start on; `finished`: to its end."""

    round: int
    finished: bool
    held: tuple[str, ...]


class HeldModels:
    """The models held of each plan, in files (0600) of `folder`; without one, while this object lasts."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._plans: dict[bytes, _LastRound] = {}

    def check(self, study: Study, *, round: int, model: bytes) -> Began:
        """Return what the model with this digest is to this hospital, as the start of a round.

        Raises: Refused(OTHER_MODEL) if the round has to start from another one; DamagedMemory.
        """
        if round == 1:  # a run that starts anew does so from the plan
            if model != digest(walks.initial(study)):
                raise Refused(RefusalCode.OTHER_MODEL)
            return Began.PLAN
        last = self._last(study.plan_hash())
        if last is None:
            return Began.UNKNOWN
        if model.hex() in last.held:
            return Began.LAST if model.hex() == last.held[-1] else Began.EARLIER
        was_away = round > last.round + 1 or (round == last.round + 1 and not last.finished)
        if not was_away:
            raise Refused(RefusalCode.OTHER_MODEL)
        return Began.UNKNOWN

    def begin(self, study: Study, *, round: int, model: bytes) -> None:
        """Remember, durably, what a round starts from."""
        self._keep(study.plan_hash(), _LastRound(round, False, (model.hex(),)))

    def end(self, study: Study, held: Sequence[bytes], *, finished: bool) -> None:
        """Remember, durably, to which models the totals of the round that began led, in order."""
        plan_hash = study.plan_hash()
        last = self._last(plan_hash)
        if last is None:
            raise ValueError("no round of the plan began")
        self._keep(
            plan_hash, _LastRound(last.round, finished, (last.held[0], *(model.hex() for model in held)))
        )

    def _last(self, plan_hash: bytes) -> _LastRound | None:
        if plan_hash not in self._plans and self._folder is not None:
            found = self._read(self._file(self._folder, plan_hash), plan_hash)
            if found is not None:
                self._plans[plan_hash] = found
        return self._plans.get(plan_hash)

    def _keep(self, plan_hash: bytes, last: _LastRound) -> None:
        if self._folder is not None:
            fields = {
                "plan_hash": plan_hash.hex(),
                "round": last.round,
                "finished": last.finished,
                "held": list(last.held),
            }
            private_files.make_folder(self._folder)
            private_files.write(self._file(self._folder, plan_hash), canonical.encode(fields))
        self._plans[plan_hash] = last

    def _read(self, file: Path, plan_hash: bytes) -> _LastRound | None:
        try:
            fields = canonical.decode(file.read_bytes(), max_bytes=MAX_BYTES)
            found = _LastRound(fields["round"], fields["finished"], tuple(fields["held"]))
            whole = fields["plan_hash"] == plan_hash.hex() and found.held and type(found.round) is int
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedMemory("it cannot be read which models were held here") from error
        if not whole or not all(isinstance(one, str) and len(one) == DIGEST_HEX for one in found.held):
            raise DamagedMemory("what is read of the models held here was not written here")
        return found

    @staticmethod
    def _file(folder: Path, plan_hash: bytes) -> Path:
        return folder / f"{plan_hash.hex()}.json"


class ModelsOfRound:
    """The digests of one round in progress: of what it started from, and of what each total led to."""

    def __init__(self, start: bytes) -> None:
        self.behind = start  # what was held at the step before: masks of the next are bound to it
        self.now = start
        self.after: list[bytes] = []

    def moved(self, model: bytes) -> None:
        """Take note of the model that the next total led to."""
        self.behind, self.now = self.now, model
        self.after.append(model)
