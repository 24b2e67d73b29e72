"""From which model a round may start: the one this hospital ended with, and the honest exceptions."""

from pathlib import Path

import numpy as np
import pytest

from node.training.held_models import Began, DamagedMemory, HeldModels
from privacy import walks
from privacy.descent import digest
from protocols.refusal import RefusalCode, Refused
from protocols.study import Study
from tests.protocols.study_forms import study_form

STUDY = Study.from_json(study_form(training__rounds=5, training__steps_per_round=2))
PLAN = digest(walks.initial(STUDY))
FIRST, SECOND, THIRD, OTHER = (bytes([n]) * 32 for n in (1, 2, 3, 9))


@pytest.fixture
def held(tmp_path: Path) -> HeldModels:
    return HeldModels(tmp_path / "held_models")


def took_part(held: HeldModels, *models: bytes, round: int, finished: bool = True) -> None:
    held.begin(STUDY, round=round, model=models[0])
    held.end(STUDY, models[1:], finished=finished)


def refused(held: HeldModels, *, round: int, model: bytes) -> bool:
    try:
        held.check(STUDY, round=round, model=model)
    except Refused as error:
        return error.code is RefusalCode.OTHER_MODEL
    return False


def test_the_first_round_starts_from_the_plans_own_model_only(held: HeldModels) -> None:
    assert held.check(STUDY, round=1, model=PLAN) is Began.PLAN
    assert refused(held, round=1, model=OTHER)
    took_part(held, PLAN, FIRST, SECOND, round=1)
    assert held.check(STUDY, round=1, model=PLAN) is Began.PLAN  # a run that is begun anew
    assert refused(held, round=1, model=SECOND)


def test_a_finished_round_is_followed_by_one_from_a_model_that_was_held_in_it(held: HeldModels) -> None:
    took_part(held, PLAN, FIRST, SECOND, round=1)
    assert held.check(STUDY, round=2, model=SECOND) is Began.LAST
    assert held.check(STUDY, round=2, model=FIRST) is Began.EARLIER  # a coordinator that was killed
    assert refused(held, round=2, model=OTHER)


def test_a_model_of_an_earlier_round_is_refused(held: HeldModels) -> None:
    took_part(held, PLAN, FIRST, SECOND, round=1)
    took_part(held, SECOND, THIRD, round=2)
    assert refused(held, round=2, model=FIRST)
    assert refused(held, round=3, model=FIRST)
    assert held.check(STUDY, round=2, model=SECOND) is Began.EARLIER  # no total of it had been read


def test_a_hospital_that_was_cut_off_in_a_round_cannot_know_where_the_others_ended(held: HeldModels) -> None:
    took_part(held, PLAN, FIRST, round=1, finished=False)
    assert held.check(STUDY, round=2, model=FIRST) is Began.LAST
    assert held.check(STUDY, round=2, model=OTHER) is Began.UNKNOWN
    took_part(held, SECOND, THIRD, round=2, finished=False)
    assert refused(held, round=2, model=OTHER)  # the same round again starts from where it started
    assert refused(held, round=1, model=OTHER)


def test_a_hospital_that_missed_rounds_cannot_know_either(held: HeldModels) -> None:
    assert held.check(STUDY, round=3, model=OTHER) is Began.UNKNOWN
    took_part(held, PLAN, FIRST, SECOND, round=1)
    assert held.check(STUDY, round=3, model=OTHER) is Began.UNKNOWN
    assert refused(held, round=2, model=OTHER)


def test_it_is_remembered_over_a_restart_and_a_crash_within_a_round(tmp_path: Path) -> None:
    took_part(HeldModels(tmp_path), PLAN, FIRST, SECOND, round=1)
    assert refused(HeldModels(tmp_path), round=2, model=OTHER)
    assert HeldModels(tmp_path).check(STUDY, round=2, model=SECOND) is Began.LAST
    HeldModels(tmp_path).begin(STUDY, round=2, model=SECOND)  # and it is killed
    again = HeldModels(tmp_path)
    assert again.check(STUDY, round=2, model=SECOND) is Began.LAST
    assert again.check(STUDY, round=3, model=OTHER) is Began.UNKNOWN
    (file,) = tmp_path.iterdir()
    assert file.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("damage", [b"", b"{}", b"[]", b'{"held":["00"],"round":1,"finished":true}'])
def test_a_damaged_memory_is_not_taken_for_none(tmp_path: Path, damage: bytes) -> None:
    took_part(HeldModels(tmp_path), PLAN, FIRST, round=1)
    (file,) = tmp_path.iterdir()
    file.write_bytes(damage)
    with pytest.raises(DamagedMemory):
        HeldModels(tmp_path).check(STUDY, round=2, model=FIRST)


def test_plans_are_remembered_apart(held: HeldModels) -> None:
    took_part(held, PLAN, FIRST, SECOND, round=1)
    other = Study.from_json(study_form(study__name="other"))
    assert held.check(other, round=2, model=OTHER) is Began.UNKNOWN
    assert np.array_equal(walks.initial(STUDY), walks.initial(other))  # both start at zero
