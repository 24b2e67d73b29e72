"""Samples, local training, adapting clip norms in a plan: read, hashed, refused where they mean nothing."""

from typing import Any

import pytest

from protocols import canonical
from protocols.study import Study
from protocols.study_fields import MalformedStudy
from tests.protocols.study_forms import study_form

LOCAL = {"local_steps": 5, "sampling_rate": 0.2, "update_clip": 1.0}
CLIPPING = {"quantile": 0.5}


def local_form(**changes: Any) -> dict[str, Any]:
    """Return a form of the mode "local"."""
    return study_form(**{"training__mode": "local", "local": LOCAL} | changes)


@pytest.mark.parametrize(
    "form",
    [
        study_form(training__sampling_rate=0.1),
        local_form(),
        local_form(local=LOCAL | {"aggregator": "fedprox", "proximal": 0.5}),
        study_form(clipping=CLIPPING),
        study_form(training__sampling_rate=0.1, clipping=CLIPPING),
        local_form(study__local="intercept"),
        study_form(study__local="intercept", clipping=CLIPPING),
    ],
    ids=["sampled", "local", "fedprox", "clipping", "both", "own-local", "own-clipping"],
)
def test_a_plan_reads_the_same_from_its_canonical_form_and_has_a_hash_of_its_own(form: dict) -> None:
    study = Study.from_json(form)
    again = Study.from_json(canonical.decode(study.canonical(), max_bytes=100_000))
    assert again == study
    assert again.plan_hash() == study.plan_hash() != Study.from_json(study_form()).plan_hash()


def test_plans_from_before_these_keys_keep_their_hash() -> None:
    study = Study.from_json(study_form())
    assert {"local", "clipping"}.isdisjoint(study.to_json())
    assert "sampling_rate" not in study.to_json()["training"]
    assert Study.from_json(study_form(training__sampling_rate=1.0)).plan_hash() == study.plan_hash()


@pytest.mark.parametrize(
    ("form", "path"),
    [
        (study_form(training__mode="local"), "local"),
        (study_form(local=LOCAL), "local"),
        (local_form(training__optimizer="adam"), "training.optimizer"),
        (local_form(training__average=True), "training.optimizer"),
        (local_form(training__sampling_rate=0.5), "training.sampling_rate"),
        (local_form(clipping=CLIPPING), "clipping"),
        (study_form(training__sampling_rate=0.0), "training.sampling_rate"),
        (study_form(training__sampling_rate=1.1), "training.sampling_rate"),
        (local_form(local=LOCAL | {"aggregator": "fedprox"}), "local.proximal"),
        (local_form(local=LOCAL | {"proximal": 0.1}), "local.proximal"),
        (local_form(local=LOCAL | {"aggregator": "fedsgd"}), "local.aggregator"),
        (local_form(local=LOCAL | {"local_steps": 0}), "local.local_steps"),
        (local_form(local={"local_steps": 1}), "local.update_clip"),
        (local_form(local=LOCAL | {"noise_multiplier": 1.0}), "local.noise_multiplier"),
        (study_form(clipping={"quantile": 1.0}), "clipping.quantile"),
        (study_form(clipping=CLIPPING | {"share": 1.0}), "clipping.share"),
    ],
)
def test_what_means_nothing_is_refused_with_its_path(form: dict, path: str) -> None:
    with pytest.raises(MalformedStudy) as caught:
        Study.from_json(form)
    assert caught.value.path == path
