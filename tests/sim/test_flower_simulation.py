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


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # as above
def test_more_sites_than_processes_keep_their_own_parts_and_look_at_the_model(tmp_path: Path) -> None:
    """Seven sites, two processes; the outcome is common at three of them, which only intercepts can say."""
    from sim.flower_simulation import run_simulated

    section = {"every": 1, "fraction": 0.3, "share": 0.3, "loss_bound": 2.0, "patience": 0}
    form = study_form(
        study__local="intercept",
        validation=section,
        privacy__epsilon=60.0,
        training__rounds=3,
        training__train_fraction=0.6,
        training__expected_patients=7 * 240,
        training__learning_rate=2.0,
        sites__minimum=7,
    )
    study = Study.from_json(form)
    tables = []
    for seed in range(7):
        rows = table(study, persons=400, seed=seed)
        common = np.random.default_rng(seed).random(len(rows)) < (0.9 if seed < 3 else 0.1)
        tables.append(FeatureTable(rows.person_ids, rows.x, rows.mask, common.astype(np.float32)))
    found = run_simulated(study, tables, home=tmp_path, run="simulated", processes=2)
    assert (found.round, found.steps) == (3, 9)
    figures = {(metric.round, metric.name): metric for metric in found.metrics}
    patients = figures[1, "patients"]
    assert patients.value == pytest.approx(2800, abs=6 * patients.noise_sd)
    assert figures[3, "loss"].value < 0.65  # of ln 2 = .69 without any model
    own = [np.load(tmp_path / "own_parts" / str(n) / f"{study.plan_hash().hex()}.npy")[0] for n in range(7)]
    assert min(own[:3]) > 0.1
    assert max(own[3:]) < -0.1
