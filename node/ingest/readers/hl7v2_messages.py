"""One HL7 v2 message to facts: which messages are clinical, and who reads which segment."""

from __future__ import annotations

from collections.abc import Callable

from node.ingest.facts import Told, TurnedAway
from node.ingest.readers import hl7v2_reasons as reasons
from node.ingest.readers.hl7v2_documents import Documents
from node.ingest.readers.hl7v2_drugs import component, order_only, rxa, rxd, rxe, rxr, tq1
from node.ingest.readers.hl7v2_findings import dg1, pr1, prb
from node.ingest.readers.hl7v2_lexer import Malformed, check, lex
from node.ingest.readers.hl7v2_payments import ft1, in1
from node.ingest.readers.hl7v2_people import al1, iam, mrg, pid
from node.ingest.readers.hl7v2_record import Record, Row, Segment
from node.ingest.readers.hl7v2_results import ORDERING, nte, obr, obx, orc
from node.ingest.readers.hl7v2_visits import evn, pv1, pv2

CLINICAL = ORDERING | {
    *("ADT", "ORU", "OUL", "ORF", "RDE", "RDS", "RAS", "RGV", "VXU", "MDM"),
    *("BAR", "DFT", "PPR", "REF", "RRI", "UDM", "CSU"),
}
"""Types of messages about patients. Not SIU (what is planned), queries and their answers, ACK, MFN, NMD."""

Handler = Callable[[Record, Segment], None]
HANDLERS: dict[str, Handler] = {
    "EVN": evn,
    "PID": pid,
    "MRG": mrg,
    "AL1": al1,
    "IAM": iam,
    "PV1": pv1,
    "PV2": pv2,
    "IN1": in1,
    "FT1": ft1,
    "DG1": dg1,
    "PRB": prb,
    "PR1": pr1,
    "ORC": orc,
    "OBR": obr,
    "OBX": obx,
    "NTE": nte,
    "RXE": rxe,
    "RXD": rxd,
    "RXA": rxa,
    "RXR": rxr,
    "RXC": component,
    "RXO": order_only,
    "RXG": order_only,
    "ODS": order_only,
    "RQD": order_only,
    "TQ1": tq1,
}
WITHOUT_PATIENT = frozenset({"EVN", "PID"})
ADMINISTRATIVE = frozenset(
    word
    for line in (
        "MSH MSA ERR SFT UAC DSC PD1 NK1 ARV ROL PRT DB1 ACC UB1 UB2 GT1 IN2 IN3 PDA IAR",
        "BLG CTI CTD CON SPM SAC INV SID TQ2 CDO RQ1 AUT PRD RF1 RGS SCH AIS AIG AIL AIP DRG",
        "ABS GP1 GP2 PTH VAR GOL PSH PDC IPC OM1 OBS SHP PAC QRD QRF QAK QPD RCP TXA CSR CSP CSS",
        "PCE NPU OVR IPR ARQ OH1 OH2 OH3 OH4 NDS DSP ADD CM0 CM1 CM2 PEO PES PCR FAC ISD IVC IVT",
        "BPO BPX BTX DON DEV",
    )
    for word in line.split()
)
"""Segments of HL7 that no fact is made of: next of kin, who vouches, who treats, where, which sample."""
SPECIALS = frozenset({"TXA", "OBX"})


def facts_of(
    data: bytes, number: int, *, zone: str = "", told: list[Told] | None = None
) -> tuple[list[Row], list[TurnedAway]]:
    """Return one message's facts and what was turned away; add to `told` who its patients are. Never raises.

    Guarantee: at least one fact, or exactly one note that the whole record was turned away.
    """
    try:
        message = lex(data)
        check(message)
        record = Record(message, number, zone=zone)
        if record.code not in CLINICAL:
            return [], [TurnedAway(number, "MSH-9", reasons.NOT_CLINICAL, True)]
        _walk(record)
    except Malformed as error:
        return [], [TurnedAway(number, error.field, error.reason, True)]
    except (
        Exception
    ):  # one message must not stop a feed; its content may be in the error, so it goes no further
        return [], [TurnedAway(number, "message", reasons.FAULT, True)]
    if told is not None:
        told += record.told
    problems = record.problems
    if not record.rows:
        had_patient = record.patient is not None
        reason = reasons.NO_CONTENT if had_patient else reasons.NO_PATIENT
        problems.append(TurnedAway(number, "message" if had_patient else "PID-3", reason, True))
    return record.rows, problems


def _walk(record: Record) -> None:
    documents = Documents(record)
    counts: dict[str, int] = {}
    for segment in record.message.segments:
        name = segment[0]
        if record.pending is not None and record.pending.segment != name:
            record.flush()
        handler = HANDLERS.get(name)
        if name in SPECIALS and record.code == "MDM":
            handler = documents.obx if name == "OBX" else documents.txa
        if handler is not None:
            record.ordinal = counts[name] = counts.get(name, 0) + 1
            if name == "PID":
                documents.close()
            if record.patient is not None or name in WITHOUT_PATIENT:
                handler(record, segment)
        elif name[0] == "Z":
            record.turn_away("Z", reasons.LOCAL_SEGMENT)
        elif name not in ADMINISTRATIVE:
            record.turn_away("segment", reasons.UNKNOWN_SEGMENT)
    record.flush()
    documents.close()
