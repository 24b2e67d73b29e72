"""Reading one batch ahead: the same batches, one more in memory, and no thread that outlives its reader."""

import threading
from collections.abc import Iterator

import pytest

from node.ingest.ahead import one_ahead
from node.ingest.errors import UnreadableSource
from node.ingest.facts import FactBatch, table_of


def batches(count: int, made: list[int]) -> Iterator[FactBatch]:
    for number in range(count):
        made.append(number)
        yield FactBatch(table_of([]), [], records=number)


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_batches_come_in_order_and_all_of_them(count):
    assert [batch.records for batch in one_ahead(batches(count, []))] == list(range(count))


def test_at_most_one_batch_is_ahead():
    made: list[int] = []
    for batch in one_ahead(batches(20, made)):
        assert len(made) <= batch.records + 2


def test_an_error_of_the_reader_comes_where_the_batch_would_have():
    def broken() -> Iterator[FactBatch]:
        yield FactBatch(table_of([]), [], records=1)
        raise UnreadableSource("x.hl7", "ends in the middle")

    found = one_ahead(broken())
    assert next(found).records == 1
    with pytest.raises(UnreadableSource):
        next(found)


def test_who_stops_early_leaves_no_thread():
    made: list[int] = []
    found = one_ahead(batches(1000, made))
    next(found)
    assert any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
    found.close()
    assert not any(thread.name.startswith("read-ahead") for thread in threading.enumerate())
    assert len(made) <= 2
