"""What a hospital asks of its own data before it takes part in studies."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from node.policy import Policy, starter
from node.policy_form import MalformedPolicy
from protocols.refusal import RefusalCode, Refused

NOW = datetime(2026, 11, 21, tzinfo=UTC)
SECTION = "\n[quality]\nmin_pass_rate = 0.9\nmin_mapping_coverage = 0.8\nmax_age_days = 30\n"


@dataclass
class Stands:
    pass_rate: float | None = 0.95
    mapping_coverage: float | None = 0.9
    made_at: datetime = NOW - timedelta(days=1)


def policy(section: str = SECTION) -> Policy:
    return Policy.parse(starter("cautious") + section.encode())


def test_a_policy_without_the_section_asks_nothing_and_reads_no_report() -> None:
    def never() -> Stands:
        raise AssertionError("no demand, no look")

    assert policy("").quality is None
    policy("").check_quality(never, now=NOW)


def test_good_and_recent_data_pass() -> None:
    policy().check_quality(Stands, now=NOW)


@pytest.mark.parametrize(
    "standing",
    [
        None,
        Stands(pass_rate=0.899),
        Stands(mapping_coverage=0.799),
        Stands(pass_rate=None),
        Stands(mapping_coverage=None),
        Stands(made_at=NOW - timedelta(days=31)),
        Stands(made_at=NOW + timedelta(days=1)),
    ],
)
def test_data_that_are_not_known_to_be_good_enough_are_refused_with_a_code(standing: Stands | None) -> None:
    with pytest.raises(Refused) as refused:
        policy().check_quality(lambda: standing, now=NOW)
    assert refused.value.code is RefusalCode.DATA_QUALITY
    assert "fedtwin node quality" in refused.value.code.help


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("min_pass_rate = 0.9\n", ""),
        ("min_pass_rate = 0.9", "min_pass_rate = 1.1"),
        ("min_pass_rate = 0.9", "min_pass_rate = true"),
        ("max_age_days = 30", "max_age_days = 0"),
        ("max_age_days = 30", "max_age_days = 30\nmore = 1"),
        ("[quality]", "[qualities]"),
    ],
)
def test_a_section_that_breaks_a_rule_allows_nothing(old: str, new: str) -> None:
    assert old in SECTION
    with pytest.raises(MalformedPolicy) as malformed:
        policy(SECTION.replace(old, new))
    assert malformed.value.key.startswith("quali")


def test_the_section_in_the_starter_file_is_one_when_its_marks_are_taken_away() -> None:
    text = starter("cautious").decode()
    keys = ("[quality]", "min_pass_rate", "min_mapping_coverage", "max_age_days = 30")
    lines = [
        line.removeprefix("# ") if line.removeprefix("# ").startswith(keys) else line
        for line in text.splitlines()
    ]
    demand = Policy.parse("\n".join(lines).encode()).quality
    assert demand is not None
    assert demand.min_pass_rate == 0.9
    assert demand.max_age == timedelta(days=30)
