"""A run's folder as a training leaves it, made without a network."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from coordinator.flower.run_folder import FINISHED, Checkpoint, RoundRecord, RunFolder, Status
from privacy import walks
from privacy.descent import initial
from protocols.study import Study

RUN = "made-up-1"


def trained(
    home: Path,
    study: Study,
    *,
    state: str = FINISHED,
    rounds: int | None = None,
    model: NDArray[np.float64] | None = None,
) -> RunFolder:
    """Write a run of `study` with a (made-up) model after `rounds` rounds (all of them by default)."""
    plan = study.training
    done = plan.rounds if rounds is None else rounds
    folder = RunFolder(home, RUN)
    folder.create(study)
    if model is None:
        model = initial(study) + np.random.default_rng(5).normal(0.0, 0.5, study.parameters)
    fallen = {"n-" + "ab" * 16: "deadline"}
    for number in range(1, done + 1):
        record = RoundRecord(
            round=number,
            steps=plan.steps_per_round,
            sites=4 - (number == 2),
            agreeing=4 - (number == 2),
            seconds=1.5 + 0.1 * number,
            sum_norm=20.0 / number + 8.0,
            noise_norm=8.0,
            refusals=fallen if number == 2 else {},
        )
        folder.add_round(record)
    steps = done * plan.steps_per_round
    if done:
        carried = np.append(model, walks.initial(study)[study.parameters :])
        folder.write_checkpoint(study, Checkpoint.of(study, done, steps, carried))
    seconds = tuple(record.seconds for record in folder.rounds())
    folder.write_status(
        Status(state, study.plan_hash().hex(), done, plan.rounds, steps, plan.steps, 4, seconds)
    )
    return folder
