"""What tests of claim readers ask of facts, and how they damage files."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from node.ingest.facts import FactBatch, Reader

Fact = dict[str, Any]


def batches(reader: Reader, path: Path, *, batch_records: int = 100) -> list[FactBatch]:
    return list(reader.read(path, batch_records=batch_records))


def facts(found: list[FactBatch], kind: str | None = None) -> list[Fact]:
    rows = [row for batch in found for row in batch.facts.to_pylist()]
    return [row for row in rows if kind is None or row["kind"] == kind]


def codes(rows: list[Fact]) -> list[tuple[str, str]]:
    return [(code["system"], code["code"]) for row in rows for code in row["codes"] or ()]


def reasons(found: list[FactBatch]) -> Counter[tuple[str, str]]:
    return Counter((away.field, away.reason) for batch in found for away in batch.turned_away)


def kinds(found: list[FactBatch]) -> dict[str, int]:
    return dict(Counter(row["kind"] for row in facts(found)))


def check_account(found: list[FactBatch]) -> int:
    """Records in = records with a fact + records turned away, with none in both; return the records in."""
    records = sum(batch.records for batch in found)
    with_facts = {row["record"] for row in facts(found)}
    away = [away.record for batch in found for away in batch.turned_away if away.whole_record]
    assert len(away) == len(set(away))
    assert with_facts.isdisjoint(away)
    assert with_facts | set(away) == set(range(1, records + 1))
    in_fields = {away.record for batch in found for away in batch.turned_away if not away.whole_record}
    assert in_fields <= set(range(1, records + 1))
    return records


def mutations(content: bytes, rng: np.random.Generator, count: int) -> Iterator[bytes]:
    """Yield damaged copies: cut off, bytes changed, pieces dropped, doubled or swapped."""
    size = len(content)
    for number in range(count):
        data = bytearray(content)
        at, other = sorted(rng.integers(0, size, 2).tolist())
        match number % 6:
            case 0:
                del data[at:]
            case 1:
                for place in rng.integers(0, size, 20).tolist():
                    data[place] = int(rng.integers(0, 256))
            case 2:
                del data[at : min(other, at + 200)]
            case 3:
                data[at:at] = data[at : min(other, at + 500)]
            case 4:
                data[at : at + 1] = bytes(rng.integers(0, 256, 50).astype(np.uint8))
            case _:
                data = bytearray(
                    content.replace(b",", b"\x00,", 3).replace(b"*", b"~*", 3).replace(b"0", b"99", 2)
                )
        yield bytes(data)
