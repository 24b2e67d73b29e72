"""Which amount of a bill is what: FHIR's adjudication categories, and those of CMS that have no FHIR code."""

from __future__ import annotations

from collections.abc import Iterable

from node.ingest.facts import Kind
from node.ingest.readers.fhir_claim_forms import Adjudication
from node.ingest.readers.fhir_elements import Money, codes_in
from node.ingest.readers.fhir_record import Record
from node.ingest.readers.fhir_rows import Origin
from node.ingest.readers.fhir_times import Moment

CLAIM = 32810  # OMOP type concept "Claim"
MEANINGS = {
    "submitted": "charged",
    "line_sbmtd_chrg_amt": "charged",
    "rev_cntr_tot_chrg_amt": "charged",
    "CLM_LINE_SBMT_CHRG_AMT": "charged",
    "paidtoprovider": "paid_to_provider",
    "line_nch_pmt_amt": "paid_to_provider",
    "rev_cntr_pmt_amt_amt": "paid_to_provider",
    "paidtopatient": "paid_to_patient",
    "benefit": "benefit",
    "eligible": "allowed",
    "line_alowd_chrg_amt": "allowed",
    "deductible": "deductible",
    "line_bene_ptb_ddctbl_amt": "deductible",
    "coinsurance": "coinsurance",
    "line_coinsrnc_amt": "coinsurance",
    "copay": "copay",
    "paidbypatient": "paid_by_patient",
    "priorpayerpaid": "prior_payer_paid",
    "noncovered": "not_covered",
}


class Amounts:
    """The amounts of one bill or line, added up by what they are."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._currency: str | None = None
        self._mixed = False

    def _note(self, meaning: str, money: Money | None, *, once: bool = False) -> None:
        if money is None or money.value is None or (once and meaning in self._sums):
            return
        currency = money.currency or money.code
        self._mixed |= self._currency is not None and currency is not None and currency != self._currency
        self._currency = self._currency or currency
        self._sums[meaning] = self._sums.get(meaning, 0.0) + money.value

    def asked(self, money: Money | None) -> None:
        """Note what is asked for, unless it is known."""
        self._note("charged", money, once=True)

    def paid_out(self, money: Money | None) -> None:
        """Note what the payer paid."""
        self._note("paid", money)

    def adjudicated(self, adjudications: Iterable[Adjudication]) -> None:
        """Note the amounts whose categories are known; of a category that comes twice, the first."""
        for one in adjudications:
            if one.category is None or one.amount is None:
                continue
            for code in sorted(codes_in((one.category,))):
                if meaning := MEANINGS.get(code.rpartition("/")[2]):
                    self._note(meaning, one.amount, once=True)
                    break

    def add(
        self,
        record: Record,
        origin: Origin,
        part: str,
        *,
        start: Moment | None,
        encounter: str | None,
        other_key: str | None,
        revenue: str | None = None,
    ) -> None:
        """Add COST if there is an amount; `other_key` is what it was for. Currencies are never added up."""
        if not self._sums or self._mixed:
            return
        sums = dict(self._sums)
        charged, paid = sums.pop("charged", None), sums.pop("paid", None)
        if paid is None and sums.keys() & {"paid_to_provider", "paid_to_patient"}:
            paid = sums.get("paid_to_provider", 0.0) + sums.get("paid_to_patient", 0.0)
        pairs = {name: f"{value:.15g}" for name, value in sorted(sums.items())}
        record.rows.add(
            origin,
            Kind.COST,
            part,
            encounter=encounter,
            start=start,
            type_concept_id=CLAIM,
            charged=charged,
            paid=sums.get("benefit") if paid is None else paid,
            currency=self._currency,
            other_key=other_key,
            details=({**pairs, "revenue": revenue} if revenue else pairs) or None,
        )
