"""What a training run keeps on the coordinator's disk: its plan, where it stands, and the model so far.

    runs/<run>/study.json        the plan, canonical
    runs/<run>/status.json       where it stands; `fedtwin train` reads it
    runs/<run>/rounds.jsonl      what each round was, over all starts of the run
    runs/<run>/flower.json       by which number Flower knows its latest start
    runs/<run>/stop              "round" or "step": somebody asked the run to end after it
    runs/<run>/checkpoint.json   the round it holds, the digest of its parameters, what looks at models said
    runs/<run>/round-<n>.npz     the parameters after that round, and after the best one (no pickle); and what
                                 goes with them to the next round (privacy.walks), if the plan has that
    runs/<run>/step.npz          the same after the latest step of a round in progress

A checkpoint is post-processing of noisy sums: it holds nothing that the sites have not already released.
"""

from __future__ import annotations

import io
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from privacy import private_files
from privacy.descent import digest
from privacy.validation import Metric
from protocols import canonical
from protocols.refusal import RefusalCode
from protocols.study import Study

Vector = NDArray[np.float64]

RUN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
MAX_JSON_BYTES = 2**20
WAITING, RUNNING, FINISHED, FAILED = "waiting", "running", "finished", "failed"
STOPPED = "stopped"  # somebody asked for it; the model so far is kept, and the run may go on from there
ENDED = frozenset({FINISHED, FAILED, STOPPED})
OLD_FIELDS = frozenset({"digest", "plan_hash", "round", "steps"})  # of checkpoint.json
NEW_FIELDS = frozenset({"metrics", "quarantined", "holds"})  # which older files lack
AFTER_ROUND, AFTER_STEP = "round", "step"  # what a run that is asked to stop still does


class MalformedRun(ValueError):
    """A file of a run's folder is missing, damaged or belongs to another plan."""


@dataclass(frozen=True, slots=True)
class Status:
    """Where a run stands. `round` is the last finished one; `refusal` says why it failed, or is None.

    Args:
        metrics: what looks at models bought, noisy; best_round: the one whose model was best by them, and is
            the run's; stopped_early: whether looks ended it.
        quarantined: node → code, of those that broke the protocol and are not asked again in this run.
    """

    state: str
    plan_hash: str
    round: int
    rounds: int
    steps: int
    steps_in_all: int
    sites: int = 0
    seconds_per_round: tuple[float, ...] = ()
    refusals: dict[str, str] = field(default_factory=dict)
    refusal: RefusalCode | None = None
    metrics: tuple[Metric, ...] = ()
    best_round: int | None = None
    stopped_early: bool = False
    quarantined: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {name: getattr(self, name) for name in self.__slots__} | {
            "seconds_per_round": list(self.seconds_per_round),
            "metrics": [metric.to_json() for metric in self.metrics],
        }

    @classmethod
    def from_json(cls, fields: Any) -> Self:
        """Return the status in `fields`. Raises: MalformedRun."""
        try:
            found = cls(**fields)
            metrics = _metrics(found.metrics)
        except TypeError as error:
            raise MalformedRun("not a status") from error
        code = RefusalCode(found.refusal) if found.refusal else None
        seconds = tuple(found.seconds_per_round)
        return replace(found, seconds_per_round=seconds, refusal=code, metrics=metrics)


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """What the coordinator lawfully knows of one round: every figure follows from noisy totals and replies.

    Args:
        steps: sums that were opened in it; fewer than planned if it was broken off.
        sites: hospitals whose inputs are in its sums; agreeing: those that said they hold the same model.
        sum_norm: mean L2 norm of its noisy totals; noise_norm: what their noise alone is expected to have.
        refusals: node → code, of those that fell out.
    """

    round: int
    steps: int
    sites: int
    agreeing: int
    seconds: float
    sum_norm: float
    noise_norm: float
    refusals: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return the fields for JSON."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, eq=False)
class Checkpoint:
    """The model after `round` rounds and `steps` steps, what looks said so far, and who is not asked again.

    `holds` is the round whose model it is, if that is not the last one: the best, at the end of a run.
    `memory` is what goes with the model to the next round, and is no part of it.
    """

    round: int
    steps: int
    parameters: Vector
    metrics: tuple[Metric, ...] = ()
    quarantined: Mapping[str, str] = field(default_factory=dict)
    holds: int | None = None
    memory: Vector = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def of(
        cls,
        study: Study,
        round: int,
        steps: int,
        carried: Vector,
        *,
        metrics: tuple[Metric, ...] = (),
        quarantined: Mapping[str, str] | None = None,
    ) -> Self:
        """Return the checkpoint of what a round, or a step, left."""
        size = study.parameters
        return cls(round, steps, carried[:size], metrics, quarantined or {}, memory=carried[size:])

    @property
    def carried(self) -> Vector:
        """What the next round starts from."""
        return _joined(self.parameters, self.memory)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what a file keeps of the numbers."""
        found = {"parameters": self.parameters.astype("<f8")}
        return found | ({"memory": self.memory.astype("<f8")} if self.memory.size else {})


class RunFolder:
    """The folder of one run. Every file is written whole or not at all."""

    def __init__(self, home: Path, run: str) -> None:
        """Name the folder of `run` under the coordinator's `home`. Raises: MalformedRun for a bad name."""
        if not RUN_NAME.fullmatch(run):
            raise MalformedRun("a run's name is lower-case letters, digits and hyphens")
        self.path = home / "runs" / run

    def create(self, study: Study) -> None:
        """Make the folder, or find it as it was left: a run continues where its checkpoint stands.

        Raises: MalformedRun if it belongs to another plan.
        """
        private_files.make_folder(self.path.parent)
        private_files.make_folder(self.path)
        if (self.path / "study.json").exists():
            if self.study().plan_hash() != study.plan_hash():
                raise MalformedRun("the run belongs to another plan")
            return
        private_files.write(self.path / "study.json", study.canonical())

    def forget_status(self) -> None:
        """Drop where an earlier start of the run stood: nobody shall read it as this one's."""
        (self.path / "status.json").unlink(missing_ok=True)

    def study(self) -> Study:
        """Return the run's plan. Raises: MalformedRun."""
        return Study.from_json(self._json("study.json"))

    def status(self) -> Status | None:
        """Return where the run stands, or None before it began. Raises: MalformedRun."""
        if not (self.path / "status.json").exists():
            return None
        return Status.from_json(self._json("status.json"))

    def write_status(self, status: Status) -> None:
        """Say where the run stands."""
        private_files.write(self.path / "status.json", canonical.encode(status.to_json()))

    def write_flower_run(self, run_id: int) -> None:
        """Keep by which number Flower knows the latest start of the run."""
        private_files.write(self.path / "flower.json", canonical.encode({"run_id": str(run_id)}))

    def flower_run(self) -> int | None:
        """Return Flower's number of the latest start, if there was one. Raises: MalformedRun."""
        if not (self.path / "flower.json").exists():
            return None
        try:
            return int(self._json("flower.json")["run_id"])
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedRun("flower.json cannot be read") from error

    def ask_to_stop(self, after: str) -> None:
        """Ask the run to end after its current round, or step. A coordinator started anew sees it."""
        if after not in (AFTER_ROUND, AFTER_STEP):
            raise ValueError("a run stops after a round or after a step")
        private_files.write(self.path / "stop", after.encode())

    def stop_asked(self) -> str | None:
        """Return after what the run shall end, if anybody asked."""
        try:
            found = (self.path / "stop").read_text(encoding="ascii", errors="replace")
        except FileNotFoundError:
            return None
        return AFTER_STEP if found == AFTER_STEP else AFTER_ROUND

    def forget_stop(self) -> None:
        """Drop an earlier wish to stop: the run is to go on."""
        (self.path / "stop").unlink(missing_ok=True)

    def add_round(self, record: RoundRecord) -> None:
        """Append what a round was, durably."""
        handle = os.open(self.path / "rounds.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(handle, "r+b") as stream:
            whole = stream.read().rfind(b"\n") + 1
            stream.truncate(whole)  # a crash may have cut the last line off
            stream.write(json.dumps(record.to_json(), allow_nan=False).encode() + b"\n")
            stream.flush()
            os.fsync(stream.fileno())

    def rounds(self) -> tuple[RoundRecord, ...]:
        """Return what the rounds were, in order, each once. Raises: MalformedRun."""
        try:
            lines = (self.path / "rounds.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return ()
        try:
            found = [RoundRecord(**json.loads(line)) for line in lines]
        except (ValueError, TypeError) as error:
            raise MalformedRun("rounds.jsonl cannot be read") from error
        return tuple(sorted({record.round: record for record in found}.values(), key=lambda one: one.round))

    def checkpoint(self, study: Study) -> Checkpoint | None:
        """Return the model so far, or None before the first round.

        Raises: MalformedRun if the parameters are damaged or belong to another plan.
        """
        if not (self.path / "checkpoint.json").exists():
            return None
        fields = self._json("checkpoint.json")
        if not isinstance(fields, dict) or not OLD_FIELDS <= set(fields) <= OLD_FIELDS | NEW_FIELDS:
            raise MalformedRun("not a checkpoint")
        number, holds = fields["round"], fields.get("holds")
        if fields["plan_hash"] != study.plan_hash().hex() or not isinstance(number, int):
            raise MalformedRun("the checkpoint belongs to another plan")
        parameters, memory = self._kept(study, number if holds is None else holds, fields["digest"])
        try:
            metrics = _metrics(fields.get("metrics", ()))
        except TypeError as error:
            raise MalformedRun("not a checkpoint") from error
        quarantined = fields.get("quarantined", {})
        return Checkpoint(number, fields["steps"], parameters, metrics, quarantined, holds, memory)

    def write_checkpoint(self, study: Study, found: Checkpoint, *, best: int | None = None) -> None:
        """Keep the model of a round, and that of the `best` round; others are dropped once it is on the disk.

        Where the checkpoint holds the model of another round, that round's file is there already.
        """
        held = found.round if found.holds is None else found.holds
        kept = self._of_round(held)
        if found.holds is None:
            buffer = io.BytesIO()
            np.savez(buffer, **found.arrays())  # type: ignore[arg-type]  # its stubs mistake them for allow_pickle
            private_files.write(kept, buffer.getvalue())
        fields = {
            "digest": digest(found.carried).hex(),
            "plan_hash": study.plan_hash().hex(),
            "round": found.round,
            "steps": found.steps,
            "metrics": [metric.to_json() for metric in found.metrics],
            "quarantined": dict(found.quarantined),
            "holds": found.holds,
        }
        private_files.write(self.path / "checkpoint.json", canonical.encode(fields))
        for old in self.path.glob("round-*.npz"):
            if old not in (kept, None if best is None else self._of_round(best)):
                old.unlink(missing_ok=True)

    def kept(self, study: Study, round: int) -> tuple[Vector, Vector]:
        """Return the model of a round that was kept, and what went with it. Raises: MalformedRun."""
        return self._kept(study, round, None)

    def write_step(self, study: Study, found: Checkpoint) -> None:
        """Keep the model after `found.steps` steps in all, the last of them in round `found.round`."""
        buffer = io.BytesIO()
        np.savez(
            buffer,
            **found.arrays(),  # type: ignore[arg-type]  # as above
            counts=np.array([found.round, found.steps], dtype="<i8"),
            digests=np.frombuffer(study.plan_hash() + digest(found.carried), dtype=np.uint8),
        )
        private_files.write(self.path / "step.npz", buffer.getvalue())

    def step(self, study: Study) -> Checkpoint | None:
        """Return the model after the latest step of a round in progress, None if there is no such file.

        Raises: MalformedRun if it is damaged or belongs to another plan.
        """
        try:
            with np.load(io.BytesIO((self.path / "step.npz").read_bytes()), allow_pickle=False) as arrays:
                parameters, counts, digests = (arrays[key] for key in ("parameters", "counts", "digests"))
                memory = arrays["memory"] if "memory" in arrays else np.zeros(0)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError) as error:
            raise MalformedRun("the latest step cannot be read") from error
        whole = _joined(parameters, memory)
        if digests.tobytes() != study.plan_hash() + digest(whole) or counts.shape != (2,):
            raise MalformedRun("the latest step is not what was written")
        if whole.shape != (study.carried,):
            raise MalformedRun("the latest step has another shape than the plan")
        return Checkpoint.of(study, int(counts[0]), int(counts[1]), whole)

    def _of_round(self, number: int) -> Path:
        return self.path / f"round-{number}.npz"

    def _kept(self, study: Study, number: int, wanted: str | None) -> tuple[Vector, Vector]:
        try:
            data = io.BytesIO(self._of_round(number).read_bytes())
            with np.load(data, allow_pickle=False) as arrays:
                parameters: Vector = arrays["parameters"]
                memory: Vector = arrays["memory"] if "memory" in arrays else np.zeros(0)
        except (OSError, ValueError, KeyError) as error:
            raise MalformedRun("the checkpoint's parameters cannot be read") from error
        if parameters.dtype != np.dtype("<f8") or parameters.shape != (study.parameters,):
            raise MalformedRun("the checkpoint has another shape than the plan")
        if memory.dtype != np.dtype("<f8") or memory.shape != (study.carried - study.parameters,):
            raise MalformedRun("what goes with the checkpoint has another shape than the plan")
        if wanted is not None and digest(_joined(parameters, memory)).hex() != wanted:
            raise MalformedRun("the checkpoint's parameters are not what was written")
        return parameters, memory

    def _json(self, name: str) -> Any:
        try:
            return canonical.decode((self.path / name).read_bytes(), max_bytes=MAX_JSON_BYTES)
        except (OSError, ValueError) as error:
            raise MalformedRun(f"{name} cannot be read") from error


def _joined(parameters: Vector, memory: Vector) -> Vector:
    """Return both in one row; a model that nothing goes with is not copied: it may be large."""
    return np.append(parameters, memory) if memory.size else parameters


def _metrics(found: Iterable[Any]) -> tuple[Metric, ...]:
    """Return what looks said. Raises: TypeError."""
    return tuple(one if isinstance(one, Metric) else Metric(**one) for one in found)
