"""What a hospital asks to know of how identity is taken out before it takes part in studies."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.deid_standing import DeidStanding, deid_standing, keep_canary, keep_evaluation
from node.policy import Policy, starter
from node.policy_form import MalformedPolicy
from protocols.refusal import RefusalCode, Refused
from tests.node.test_running_quality import POLICY, _joins

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECTION = "\n[deid]\nmin_char_recall = 0.99\nmax_over_redaction = 0.02\ncanary = true\nmax_age_days = 30\n"
GOOD = DeidStanding(0.995, 0.01, NOW - timedelta(days=2), 0, NOW - timedelta(days=1))


def policy(section: str = SECTION) -> Policy:
    return Policy.parse(starter("cautious") + section.encode())


def test_a_policy_without_the_section_asks_nothing_and_reads_no_file() -> None:
    def never() -> DeidStanding:
        raise AssertionError("no demand, no look")

    assert policy("").deid is None
    policy("").check_deid(never, now=NOW)


def test_what_is_known_to_be_good_enough_passes() -> None:
    policy().check_deid(lambda: GOOD, now=NOW)
    without = policy(SECTION.replace("canary = true", "canary = false"))
    without.check_deid(lambda: replace(GOOD, canary_leaks=None, canary_at=None), now=NOW)


@pytest.mark.parametrize(
    "standing",
    [
        DeidStanding(),
        replace(GOOD, char_recall=0.9899),
        replace(GOOD, char_recall=None),
        replace(GOOD, over_redaction=0.021),
        replace(GOOD, over_redaction=None),
        replace(GOOD, evaluated_at=NOW - timedelta(days=31)),
        replace(GOOD, evaluated_at=None),
        replace(GOOD, canary_leaks=1),
        replace(GOOD, canary_leaks=None),
        replace(GOOD, canary_at=NOW - timedelta(days=31)),
        replace(GOOD, canary_at=NOW + timedelta(days=1)),
    ],
)
def test_what_is_not_known_to_be_good_enough_is_refused_with_a_code(standing: DeidStanding) -> None:
    with pytest.raises(Refused) as refused:
        policy().check_deid(lambda: standing, now=NOW)
    assert refused.value.code is RefusalCode.DEIDENTIFICATION
    assert "fedtwin deid canary" in refused.value.code.help


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min_char_recall = 0.99\n", ""),
        ("min_char_recall = 0.99", "min_char_recall = 1.1"),
        ("canary = true", "canary = 1"),
        ("max_age_days = 30", "max_age_days = 0"),
        ("max_age_days = 30", "max_age_days = 30\nmore = 1"),
    ],
)
def test_a_section_that_breaks_a_rule_allows_nothing(old: str, new: str) -> None:
    assert old in SECTION
    with pytest.raises(MalformedPolicy) as malformed:
        policy(SECTION.replace(old, new))
    assert malformed.value.key.startswith("deid")


def test_the_section_in_the_starter_file_is_one_when_its_marks_are_taken_away() -> None:
    keys = ("[deid]", "min_char_recall", "max_over_redaction", "canary =", "max_age_days = 90")
    lines = [
        line.removeprefix("# ") if line.removeprefix("# ").startswith(keys) else line
        for line in starter("cautious").decode().splitlines()
    ]
    demand = Policy.parse("\n".join(lines).encode()).deid
    assert demand is not None
    assert (demand.min_char_recall, demand.canary, demand.max_age) == (0.99, True, timedelta(days=90))


def test_what_is_kept_is_read_back_and_holds_for_one_version_of_the_software(tmp_path: Path) -> None:
    path = tmp_path / "deid.json"
    assert deid_standing(path, version="1") == DeidStanding()
    keep_evaluation(path, char_recall=0.995, over_redaction=0.01, version="1", now=NOW)
    keep_canary(path, leaks=0, version="1", now=NOW)
    assert deid_standing(path, version="1") == DeidStanding(0.995, 0.01, NOW, 0, NOW)
    assert deid_standing(path, version="2") == DeidStanding()
    keep_canary(path, leaks=3, version="2", now=NOW)
    assert deid_standing(path, version="2") == DeidStanding(canary_leaks=3, canary_at=NOW)
    path.write_text('{"canary": 1, "evaluation": {"version": "2", "at": "soon", "char_recall": true}}')
    assert deid_standing(path, version="2") == DeidStanding()
    path.write_text("no json")
    assert deid_standing(path, version="2") == DeidStanding()


def test_no_session_is_joined_while_the_policy_asks_and_nothing_is_known(tmp_path: Path) -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(_joins(tmp_path, POLICY + SECTION.encode(), None))
    assert refused.value.code is RefusalCode.DEIDENTIFICATION
