"""Releases without noise in the ledger: each once, in order, durable, and never mistaken for ε."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from privacy.accountant import GaussianEvent
from privacy.budget import Account, Caps
from privacy.chain import ChainBroken
from privacy.ledger import Ledger, Replayed
from protocols.clock import FixedClock

CLOCK = FixedClock(datetime(2026, 11, 21, tzinfo=UTC))
ACCOUNT = Account("stroke", "dr.lead")
STUDY, OTHER = "a" * 64, "b" * 64
SESSION = "exact/s-1"
CAPS = Caps(
    delta=1e-6,
    epsilon_total=1.0,
    epsilon_dataset=1.0,
    epsilon_project=1.0,
    epsilon_researcher=1.0,
    project_since=None,
    researcher_since=None,
)


def opened(folder: Path) -> Ledger:
    return Ledger(folder / "ledger.sqlite", clock=CLOCK)


def test_sums_are_counted_by_study_and_cost_no_epsilon(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        assert ledger.exact_releases() == {}
        for step in range(3):
            ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=step)
        ledger.release_exact("exact/s-2", account=ACCOUNT, study=OTHER, step=0)
        assert ledger.exact_releases() == {STUDY: 3, OTHER: 1}
        spent = ledger.spent(delta=1e-6)
        assert (spent.epsilon, spent.events) == (0.0, 0)
        ledger.verify()


def test_each_sum_is_given_once_and_in_order_also_after_a_restart(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=0)
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=1)
    for _ in range(2):
        with opened(tmp_path) as ledger:
            assert ledger.exact_releases() == {STUDY: 2}
            for step in (0, 1, 3):
                with pytest.raises(Replayed):
                    ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=step)
    with opened(tmp_path) as ledger:
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=2)
        assert ledger.exact_releases() == {STUDY: 3}


def test_a_study_is_not_gone_on_with_in_another_session_or_for_somebody_else(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=0)
        with pytest.raises(Replayed):
            ledger.release_exact("exact/s-2", account=ACCOUNT, study=STUDY, step=1)
        with pytest.raises(Replayed):
            ledger.release_exact(SESSION, account=Account("stroke", "else"), study=STUDY, step=1)
        with pytest.raises(Replayed):
            ledger.release_exact(SESSION, account=ACCOUNT, study=OTHER, step=1)


def test_a_release_is_on_the_disk_before_the_call_returns(tmp_path: Path) -> None:
    """A reader beside the writer sees it: what a crash right after leaves behind."""
    with opened(tmp_path) as ledger:
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=0)
        with Ledger(tmp_path / "ledger.sqlite", clock=CLOCK, read_only=True) as reader:
            assert reader.exact_releases() == {STUDY: 1}
            entry = list(reader.entries())[-1]
            assert (entry.kind, entry.study, entry.step, entry.project) == ("exact", STUDY, 0, "stroke")


def test_budgets_go_on_beside_it(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=0)
        held = ledger.reserve("q-1", account=ACCOUNT, purpose="count", event=GaussianEvent(20.0), caps=CAPS)
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=1)
        ledger.commit(held)
        alone = ledger.spent(delta=1e-6)
    with opened(tmp_path) as ledger:
        assert ledger.spent(delta=1e-6) == alone
        assert alone.events == 1


@pytest.mark.parametrize(
    ("request_id", "study"), [("", STUDY), ("exact s", STUDY), (SESSION, "a" * 63), (SESSION, "A" * 64)]
)
def test_malformed_names_are_refused(tmp_path: Path, request_id: str, study: str) -> None:
    with opened(tmp_path) as ledger, pytest.raises(ValueError, match="malformed"):
        ledger.release_exact(request_id, account=ACCOUNT, study=study, step=0)


def test_an_entry_that_skips_a_step_is_no_ledger_of_ours(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        ledger.release_exact(SESSION, account=ACCOUNT, study=STUDY, step=0)
        fields = {
            "kind": "exact",
            "at": CLOCK.now().isoformat(),
            "request_id": SESSION,
            "project": "stroke",
            "researcher": "dr.lead",
            "dataset": "cdm",
            "study": STUDY,
            "step": 5,
        }
        ledger._chain.append(fields)
    with pytest.raises(ChainBroken):
        opened(tmp_path)
