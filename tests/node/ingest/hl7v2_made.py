"""Made HL7 v2 messages and what the reader says of them."""

from collections import Counter
from pathlib import Path

from node.ingest.facts import TurnedAway
from node.ingest.readers.hl7v2 import Hl7v2Reader
from node.ingest.readers.hl7v2_messages import facts_of

PID = "PID|1||M1^^^GHH^MR||Doe^Jane||19610615|F||2106-3^White^CDCREC||||||||||||N^Not Hispanic^HL70189"
PV1 = "PV1|1|I|W1^R^B|||||||MED||||7|||||V1^^^GHH^VN|||||||||||||||||01||||||||20200501080000|"


def message(
    kind: str, *segments: str, sent: str = "20200501120000+0200", version: str = "2.5", charset: str = ""
) -> bytes:
    """Return a message of a type ("ADT^A01") with these segments after MSH."""
    header = f"MSH|^~\\&|APP|GHH|EHR|GHH|{sent}||{kind}|C1|P|{version}||||||{charset}"
    return "\r".join([header, *segments, ""]).encode()


def read(data: bytes, *, zone: str = "") -> tuple[list[dict], list[TurnedAway]]:
    """Return a message's facts, and what was turned away."""
    return facts_of(data, 1, zone=zone)


def kinds(rows: list[dict]) -> Counter:
    """Count facts by kind; those that do not assert with their action before it."""
    return Counter(
        row["kind"] if row["action"] == "assert" else f"{row['action']} {row['kind']}" for row in rows
    )


def one(rows: list[dict], kind: str) -> dict:
    """Return the only fact of a kind."""
    found = [row for row in rows if row["kind"] == kind]
    assert len(found) == 1, [row["place"] for row in found]
    return found[0]


def read_file(path: Path, *, batch_records: int = 1000) -> tuple[list[dict], list[TurnedAway], int]:
    """Return a file's facts, what was turned away, and its number of records."""
    rows: list[dict] = []
    turned_away: list[TurnedAway] = []
    records = 0
    for batch in Hl7v2Reader().read(path, batch_records=batch_records):
        rows += batch.facts.to_pylist()
        turned_away += batch.turned_away
        records += batch.records
    return rows, turned_away, records


def accounted(rows: list[dict], turned_away: list[TurnedAway], records: int) -> bool:
    """Return whether each record either has a fact or is turned away as a whole, once."""
    with_facts = {row["record"] for row in rows}
    whole = [note.record for note in turned_away if note.whole_record]
    return (
        len(whole) == len(set(whole))
        and not with_facts & set(whole)
        and with_facts | set(whole) == set(range(1, records + 1))
    )
