"""What goes from round to round: a run is the same however it is cut into rounds."""

from typing import Any

import numpy as np
import pytest

from privacy import descent, walks
from privacy.descent import NotFinite
from protocols.study import MAX_CARRIED, MAX_PARAMETERS, MalformedStudy, Study
from tests.protocols.study_forms import study_form

LOCAL = {"local_steps": 2, "update_clip": 1.0}
SECTIONS: dict[str, dict[str, Any]] = {
    "fedavg": {"local": LOCAL},
    "fedprox": {"local": LOCAL | {"aggregator": "fedprox", "proximal": 0.1}},
    "fedadam": {"local": LOCAL | {"aggregator": "fedadam", "server_learning_rate": 0.1}},
    "scaffold": {"local": LOCAL | {"aggregator": "scaffold"}},
    "momentum": {},
    "adam": {"optimizer": "adam"},
    "clipping": {"clipping": {"quantile": 0.5}},
}
SHARED = ("momentum", "adam", "clipping")
SUMS = 6


def plan(name: str, *, steps_per_round: int) -> Study:
    """A plan of six sums."""
    sections = dict(SECTIONS[name])
    form = study_form(training__mode="shared-noise" if name in SHARED else "local")
    form["training"] |= {"rounds": SUMS // steps_per_round, "steps_per_round": steps_per_round}
    form["training"] |= {"optimizer": sections.pop("optimizer", "momentum")}
    return Study.from_json(form | sections)


def walked(study: Study, totals: list[np.ndarray], *, remembering: bool = True) -> np.ndarray:
    """Return where a run over `totals` ends; without `remembering`, rounds start from the model."""
    carried, at = walks.initial(study), 0
    for _ in range(study.training.rounds):
        walk = walks.begin(study, carried)
        while not walk.finished:
            walk.apply(totals[at])
            at += 1
        carried = walk.carried
        if not remembering:
            carried = np.append(walk.params, walks.initial(study)[study.parameters :])
    return carried


@pytest.mark.parametrize("name", SECTIONS)
def test_a_run_is_the_same_bit_for_bit_however_it_is_cut_into_rounds(name: str) -> None:
    whole = plan(name, steps_per_round=SUMS)
    rng = np.random.default_rng(5)
    totals = [rng.normal(0, 1, walks.vector_length(whole)) for _ in range(SUMS)]
    for total in totals:
        total[-1] = 3.0  # sites, or how many more gradients are left whole than not
    expected = walked(whole, totals)
    assert len(expected) == whole.carried
    for steps in (1, 2, 3):
        study = plan(name, steps_per_round=steps)
        assert np.array_equal(walked(study, totals), expected)
        forgetful = walked(study, totals, remembering=False)
        same = np.array_equal(forgetful[: whole.parameters], expected[: whole.parameters])
        # Scaffold's variate is used by the sites: the totals given, the model does not show it
        assert same is (name in ("fedavg", "fedprox", "scaffold"))


@pytest.mark.parametrize(
    ("name", "memory"),
    [
        ("fedadam", [0.0] * 7 + [-1.0] * 7 + [1.0]),
        ("fedadam", [0.0] * 14 + [1.5]),
        ("fedadam", [0.0] * 14 + [1e9]),
        ("fedadam", [0.0] * 14 + [-1.0]),
        ("fedadam", []),
        ("fedavg", [0.0]),
        ("scaffold", [np.nan] * 7),
        ("scaffold", [0.0] * 6),
        ("momentum", []),
        ("momentum", [0.0] * 6),
        ("momentum", [0.0] * 6 + [np.nan]),
        ("adam", [0.0] * 7),
        ("adam", [0.0] * 13 + [-1.0, 1.0]),
        ("adam", [0.0] * 14 + [0.5]),
        ("adam", [0.0] * 14 + [1e9]),
        ("clipping", [1.0]),
        ("clipping", [0.0] * 7 + [0.0]),
        ("clipping", [0.0] * 7 + [-1.0]),
        ("clipping", [0.0] * 7 + [1e7]),
        ("clipping", [0.0] * 7 + [np.inf]),
    ],
)
def test_a_memory_that_no_sums_leave_behind_is_refused(name: str, memory: list[float]) -> None:
    study = plan(name, steps_per_round=1)
    with pytest.raises(NotFinite):
        walks.begin(study, np.append(descent.initial(study), memory))


def test_what_goes_from_round_to_round_has_to_fit_into_a_request() -> None:
    wide: dict[str, Any] = {"study__model": "mlp", "study__hidden": [8192, 8192]}
    parameters = Study.from_json(study_form(**wide)).parameters
    assert parameters < MAX_PARAMETERS
    assert 2 * parameters < MAX_CARRIED < 3 * parameters
    form = study_form(**wide, training__mode="local")
    assert Study.from_json(form | SECTIONS["scaffold"]).carried == 2 * parameters
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(form | SECTIONS["fedadam"])
    assert refused.value.path == "local.aggregator"
    with pytest.raises(MalformedStudy) as refused:
        Study.from_json(study_form(**wide, training__optimizer="adam"))
    assert refused.value.path == "training.optimizer"
