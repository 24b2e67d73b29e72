"""A node joins no session of a study while its data are not known to be as good as its policy asks."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from node.audit import AuditLog
from node.omop.store import OmopStore
from node.policy import Policy
from node.quality.report import report
from node.quality.standing import keep, standing
from node.running import Parts, RunningNode
from node.sums import TRAINING
from node.training.approvals import Approvals
from privacy.ledger import Ledger
from privacy.rng import SecureBits
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from tests.node.hub import CLOCK, POLICY
from tests.node.test_rounds import STUDY
from tests.node.timelines import small

DEMAND = b"\n[quality]\nmin_pass_rate = 0.5\nmin_mapping_coverage = 0.5\nmax_age_days = 30\n"


async def _joins(home: Path, policy: bytes, made_days_ago: int | None) -> None:
    def never(*_: object) -> object:
        raise AssertionError("judging a session needs no roster, connection or data")

    approvals, path = Approvals(home), home / "quality.json"
    approvals.approve(STUDY, clock=CLOCK)
    if made_days_ago is not None:
        with small(home / "omop.duckdb") as store:
            keep(path, report(store, now=CLOCK.now() - timedelta(days=made_days_ago)))
    audit = AuditLog(home / "audit.jsonl", clock=CLOCK)
    with Ledger(home / "ledger.sqlite", clock=CLOCK) as ledger:
        node = RunningNode(
            Parts(
                me=NodeId.new(),
                identity_key=Ed25519PrivateKey.generate(),
                broker_address="127.0.0.1:1",
                tls=never,  # type: ignore[arg-type]
                roster=never,  # type: ignore[arg-type]
                accept_roster=never,
                peers=never,  # type: ignore[arg-type]
                policy=lambda: Policy.parse(policy),
                ledger=ledger,
                audit=audit,
                warehouse=never,  # type: ignore[arg-type]
                epoch_key=bytes(32),
                dataset="cdm",
                store=lambda: OmopStore.open(home / "omop.duckdb"),
                approvals=approvals,
                clock=CLOCK,
                bits=SecureBits(),
                quality=lambda: standing(path),
            )
        )
        try:
            assert node._allowed_plan(TRAINING + STUDY.plan_hash().hex()) == STUDY
        finally:
            node._lines.put(None)
            node._auditing.join(10)
    audit.close()


@pytest.mark.parametrize(("policy", "made_days_ago"), [(POLICY, None), (POLICY + DEMAND, 1)])
def test_a_session_is_joined_with_a_good_report_and_without_a_demand(
    tmp_path: Path, policy: bytes, made_days_ago: int | None
) -> None:
    asyncio.run(_joins(tmp_path, policy, made_days_ago))


@pytest.mark.parametrize(
    ("policy", "made_days_ago"),
    [
        (POLICY + DEMAND, None),
        (POLICY + DEMAND, 31),
        (POLICY + DEMAND.replace(b"pass_rate = 0.5", b"pass_rate = 1.0"), 1),
    ],
)
def test_no_session_is_joined_without_one(tmp_path: Path, policy: bytes, made_days_ago: int | None) -> None:
    with pytest.raises(Refused) as refused:
        asyncio.run(_joins(tmp_path, policy, made_days_ago))
    assert refused.value.code is RefusalCode.DATA_QUALITY
