"""The setting of a release names its hospitals and the state of their data; nothing passes for another."""

import pytest

from coordinator.epochs import Epochs, setting
from protocols.ids import NodeId
from protocols.refusal import RefusalCode, Refused
from protocols.wire import fedtwin_pb2 as pb

A, B, C = sorted(NodeId.new() for _ in range(3))
OLD, NEW = b"o" * 16, b"n" * 16


def changed(epoch: bytes) -> pb.NodeFrame:
    return pb.NodeFrame(data_epoch=pb.DataEpoch(epoch=epoch))


def test_a_setting_changes_with_any_hospital_and_any_epoch() -> None:
    epochs = {A: OLD, B: OLD, C: NEW}
    found = [
        setting([A, B], epochs),
        setting([A, C], epochs),
        setting([A, B, C], epochs),
        setting([A, B], {A: NEW, B: OLD}),
        setting([A, B], {A: OLD, B: NEW}),
    ]
    assert None not in found
    assert len({*found}) == len(found)
    assert setting([B, A], epochs) == found[0]


def test_where_one_epoch_is_unknown_there_is_no_setting() -> None:
    assert setting([A, B], {A: OLD}) is None


def test_the_newest_epoch_counts_until_the_node_is_gone() -> None:
    epochs = Epochs()
    epochs.connected(A, pb.Hello(data_epoch=OLD))
    epochs.connected(B, pb.Hello())
    assert epochs.now([A, B]) == {A: OLD}
    epochs.heard(A, changed(NEW))
    epochs.heard(B, changed(OLD))
    assert epochs.now([A, B]) == {A: NEW, B: OLD}
    epochs.heard(A, changed(b""))  # cannot tell any more
    assert epochs.now([A, B]) == {B: OLD}
    epochs.lost(B)
    assert epochs.now([A, B]) == {}


def test_an_epoch_of_another_length_is_none() -> None:
    epochs = Epochs()
    epochs.connected(A, pb.Hello(data_epoch=b"longer than sixteen bytes"))
    assert epochs.now([A]) == {}
    with pytest.raises(Refused) as refused:
        epochs.heard(A, changed(b"short"))
    assert refused.value.code is RefusalCode.MALFORMED
