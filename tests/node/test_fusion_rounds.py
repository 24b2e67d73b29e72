"""A fusion model with own parts, trained in rounds by nodes: one shared model, and what stays stays."""

from pathlib import Path

import numpy as np
import pytest

from node.features.splitting import in_training
from node.features.study_rows import feature_table
from node.training.gradient import clipped_sums
from node.training.own_fit import fitted
from node.training.own_part import OwnParts
from privacy import descent, study_noise, walks
from protocols.round import RoundReply
from protocols.study import Study
from tests.node.hub import Hospital, Hospitals
from tests.node.patients import fill
from tests.node.test_rounds import patients
from tests.protocols.study_forms import fusion_form

STUDY = Study.from_json(
    fusion_form(
        "attention", fusion__modality_dropout=0.3, study__local="intercept", training__steps_per_round=2
    )
)


def rows_of(hospital: Hospital):  # type: ignore[no-untyped-def] # the node's own table
    table = feature_table(STUDY, hospital.store)
    return table.rows(in_training(table.person_ids, key=hospital.node.raw, fraction=0.8))


def test_rounds_of_a_fusion_model_end_alike_everywhere_and_own_parts_do_not_leave(tmp_path: Path) -> None:
    with Hospitals(tmp_path, 3) as network:
        for place, hospital in enumerate(network.all):
            fill(hospital.store, patients(30 + 10 * place, seed=place))
        network.approve(STUDY)
        carried = walks.initial(STUDY)
        plan = study_noise.noise_plan(STUDY, participants=3, tolerance=1)
        for number in (1, 2):
            replies = network.round(STUDY, carried, round=number)
            assert all(isinstance(reply, RoundReply) for reply in replies), replies
            walk = walks.begin(STUDY, carried)
            for step in range(2):
                sent = [v for _, v in network.hub.vectors[-6:][3 * step : 3 * step + 3]]
                assert {len(vector) for vector in sent} == {STUDY.parameters}
                walk.apply(plan.decode(np.sum(sent, axis=0, dtype=np.uint64)))
            carried = walk.carried
            assert {reply.parameters_digest for reply in replies} == {descent.digest(carried)}
        kept = [OwnParts(hospital.home / "own_parts") for hospital in network.all]
        noisy = [parts.load(STUDY) for parts in kept]
        assert (
            len({float(part[0]) for part in noisy if part is not None}) == 3
        )  # each its own, and its own noise
        for hospital, parts in zip(network.all, kept, strict=True):
            final = parts.load(STUDY, final=True)
            assert final == pytest.approx(fitted(STUDY, walk.params, rows_of(hospital)))


def test_the_own_part_of_the_last_round_goes_on_in_the_next_also_after_a_restart(tmp_path: Path) -> None:
    with Hospitals(tmp_path, 3) as network:
        for place, hospital in enumerate(network.all):
            fill(hospital.store, patients(25, seed=place))
        network.approve(STUDY)
        network.round(STUDY, walks.initial(STUDY), round=1)
        first = network.all[0]
        parts = OwnParts(first.home / "own_parts")
        part = parts.load(STUDY)
        assert part is not None
        assert parts.load(STUDY, final=True) is None  # the exact one is for after the last round
        assert first.trainer._own_part(STUDY).values == part
        first.trainer._own.clear()
        assert first.trainer._own_part(STUDY).values == part
        sums = clipped_sums(STUDY, descent.initial(STUDY), rows_of(first), own=part)
        assert sums.own.shape == (1,)
