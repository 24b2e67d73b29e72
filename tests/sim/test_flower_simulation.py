"""The training app in Flower's simulation engine: the same rounds, the same replies, one model."""

from pathlib import Path

import numpy as np
import pytest

from node.features.table import FeatureTable
from privacy.descent import initial
from protocols.study import Study
from tests.protocols.study_forms import study_form


def table(study: Study, *, persons: int, seed: int) -> FeatureTable:
    """Return rows in which the first column decides the outcome."""
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, size=(persons, len(study.columns))).astype(np.float32)
    y = (x[:, 0] > 0).astype(np.float32)
    return FeatureTable(np.arange(persons, dtype=np.int64), x, np.ones(x.shape, dtype=np.bool_), y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # Ray leaves sockets and files to the collector
def test_a_simulated_run_learns_what_the_rows_say(tmp_path: Path) -> None:
    from sim.flower_simulation import run_simulated

    study = Study.from_json(study_form(privacy__epsilon=20.0, training__expected_patients=600))
    tables = [table(study, persons=200, seed=seed) for seed in range(3)]
    found = run_simulated(study, tables, home=tmp_path, run="simulated")
    assert (found.round, found.steps) == (2, 6)
    moved = found.parameters - initial(study)
    assert int(np.argmax(np.abs(moved))) == 0  # the column that decides
    assert moved[0] > 0
