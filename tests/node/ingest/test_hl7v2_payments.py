"""IN1 and FT1: who pays, what is charged for what, and where it stands in the CDM."""

from collections.abc import Iterator
from contextlib import closing
from datetime import date
from pathlib import Path

import pytest

from deid.dates import DatePractice
from deid.vault import PseudonymKey, Vault
from node.ingest.pipeline import Pipeline
from node.ingest.readers import hl7v2_reasons as reasons
from node.omop import starter
from node.omop.store import OmopStore
from privacy.rng import SecureBits
from protocols.clock import SystemClock
from tests.node.ingest.hl7v2_made import PID, PV1, kinds, message, one, read

IN1 = (
    "IN1|1|BAV^Blue Advantage HMO|O1^^^BC|Blue Cross||||G1|Group|||20190101|20201231||HMO|Doe^J|01||||"
    + "|" * 15
)
POLICY = "SECRET-POLICY"
XRAY = "71045^Xray exam chest 1 view^C4"


def ft1(
    kind: str = "CG",
    *,
    said: str = "",
    amount: str = "",
    unit: str = "",
    count: str = "",
    done: str = "",
    dx: str = "",
) -> str:
    """Return an FT1 of 2 May."""
    return f"FT1|1|{said}||20200502||{kind}|X1^Film^L|||{count}|{amount}|{unit}|||||||{dx}||||||{done}"


def notes(turned_away) -> list[tuple[str, str]]:
    return [(note.field, note.reason) for note in turned_away]


def test_a_plan_is_covered_for_its_time_and_no_number_of_a_policy_is_read():
    rows, turned_away = read(message("ADT^A01", PID, PV1, IN1 + POLICY))
    cover = one(rows, "coverage")
    assert cover["details"] == {"payer": "Blue Cross", "plan": "Blue Advantage HMO"}
    days = [date.fromordinal(719163 + cover[name] // 86_400_000_000) for name in ("start", "end")]
    assert days == [date(2019, 1, 1), date(2020, 12, 31)]
    assert POLICY not in repr(rows)
    assert turned_away == []


def test_a_plan_of_no_known_time_and_one_of_nobody_are_turned_away():
    undated = IN1.replace("20190101", "")
    rows, turned_away = read(message("ADT^A01", PID, PV1, undated, "IN1|2|||"))
    assert kinds(rows) == {"person": 1, "visit": 1}
    assert notes(turned_away) == [("IN1-12", reasons.NO_START), ("IN1-2", reasons.NO_CONTENT)]


def test_a_charge_for_a_procedure_of_the_message_is_its_cost():
    rows, turned_away = read(
        message("DFT^P03", PID, PV1, ft1(said="77", amount="100&USD", done=XRAY), f"PR1|1||{XRAY}||20200502")
    )
    cost, procedure = one(rows, "cost"), one(rows, "procedure")
    assert (cost["charged"], cost["paid"], cost["currency"]) == (100.0, None, "USD")
    assert cost["other_key"] == procedure["key"]
    assert turned_away == []


def test_a_charge_for_a_procedure_that_nothing_else_tells_of_is_the_procedure():
    rows, _ = read(message("DFT^P03", PID, PV1, ft1(amount="100&USD", count="2", done=XRAY)))
    procedure = one(rows, "procedure")
    assert (procedure["charged"], procedure["currency"], procedure["quantity"]) == (100.0, "USD", 2.0)
    assert (procedure["encounter"], procedure["type_concept_id"]) == ("V1", 32821)


@pytest.mark.parametrize(
    ("kind", "amounts", "charged", "paid"),
    [
        ("CG", {"amount": "100.50"}, 100.5, None),
        ("CG", {"unit": "50&USD", "count": "3"}, 150.0, None),
        ("CG", {"unit": "50"}, 50.0, None),
        ("PY", {"amount": "80&USD^TP"}, None, 80.0),
    ],
)
def test_what_is_charged_and_paid_for_a_visit(kind, amounts, charged, paid):
    rows, turned_away = read(message("DFT^P03", PID, PV1, ft1(kind, **amounts)))
    cost = one(rows, "cost")
    assert (cost["charged"], cost["paid"], cost["other_key"]) == (charged, paid, "V1")
    assert turned_away == []


@pytest.mark.parametrize(
    ("segment", "note"),
    [
        (ft1("AJ", amount="5"), ("FT1-6", reasons.ADJUSTMENT)),
        (ft1("CD", amount="5"), ("FT1-6", reasons.ADJUSTMENT)),
        (ft1("", amount="5"), ("FT1-6", reasons.NO_VALUE)),
        (ft1(), ("FT1-11", reasons.NO_VALUE)),
        (ft1(amount="many"), ("FT1-11", reasons.BAD_NUMBER)),
        (ft1(unit="5", count="none"), ("FT1-11", reasons.BAD_NUMBER)),
    ],
)
def test_what_is_no_charge_and_no_payment_is_turned_away(segment, note):
    rows, turned_away = read(message("DFT^P03", PID, PV1, segment))
    assert kinds(rows) == {"person": 1}
    assert notes(turned_away) == [note]


def test_a_charge_of_nothing_and_one_that_is_only_expected_are_turned_away():
    rows, turned_away = read(message("DFT^P03", PID, ft1(amount="5")))
    assert (kinds(rows), notes(turned_away)) == ({"person": 1}, [("FT1", reasons.NO_TARGET)])
    rows, turned_away = read(message("ORM^O01", PID, PV1, ft1(amount="5", done=XRAY)))
    assert (kinds(rows), notes(turned_away)) == ({"person": 1}, [("FT1", reasons.ORDER)])


def test_diagnoses_of_a_charge_count_where_the_message_has_no_others():
    charge = ft1(amount="5", dx="I21.9^MI^I10C~I10^Hypertension^I10C")
    rows, _ = read(message("DFT^P03", PID, PV1, charge))
    assert [row["codes"][0][1] for row in rows if row["kind"] == "condition"] == ["I21.9", "I10"]
    rows, _ = read(message("DFT^P03", PID, PV1, charge, "DG1|1||I21.9^MI^I10C|||F"))
    assert [row["codes"][0][1] for row in rows if row["kind"] == "condition"] == ["I21.9"]


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[tuple[Pipeline, OmopStore]]:
    vault = Vault.open(tmp_path / "vault.sqlite", key=PseudonymKey(bytes(32)), bits=SecureBits())
    with closing(vault), OmopStore.open(tmp_path / "omop.duckdb") as store:
        starter.ensure(store, now=SystemClock().now())
        yield Pipeline(store, vault, SystemClock(), practice=DatePractice.SHIFTED), store


def test_costs_and_plans_stand_in_the_cdm_and_no_policy_does(taken, tmp_path):
    pipeline, store = taken
    path = tmp_path / "messages.hl7"
    path.write_bytes(
        message("ADT^A01", PID, PV1, IN1 + POLICY)
        + message(
            "DFT^P03", PID, PV1, ft1(said="77", amount="100&USD", done=XRAY),
            ft1("PY", said="78", amount="80&USD"), f"PR1|1||{XRAY}||20200502", sent="20200503120000+0200",
        )
    )  # fmt: skip
    (source,) = pipeline.ingest([path]).sources
    assert (source.stored, source.quarantined) == (2, 0)
    con = store.connection.con
    assert con.execute(
        "SELECT cost_domain_id, total_charge, total_paid, cost_event_id IN (SELECT procedure_occurrence_id"
        " FROM procedure_occurrence UNION ALL SELECT visit_occurrence_id FROM visit_occurrence)"
        " FROM cost ORDER BY 2"
    ).fetchall() == [("Procedure", 100.0, None, True), ("Visit", None, 80.0, True)]
    (plan,) = con.execute(
        "SELECT payer_source_value, plan_source_value,"
        " payer_plan_period_end_date - payer_plan_period_start_date FROM payer_plan_period"
    ).fetchall()
    assert plan == ("Blue Cross", "Blue Advantage HMO", 730)
    everything = [
        str(con.execute(f'FROM "{name}"').fetchall())
        for (name,) in con.execute("SELECT table_name FROM information_schema.tables").fetchall()
        if name.startswith(("fedtwin_", "payer", "cost", "person", "observation"))
    ]
    assert POLICY not in "".join(everything)
