"""The epoch of a hospital changes with what it would answer from, and with nothing else."""

from typing import Any

import pytest

from node.data_epoch import EPOCH_BYTES, data_epoch, epoch_key
from node.policy import Policy, starter
from node.policy_form import MalformedPolicy
from protocols.refusal import RefusalCode, Refused

KEY = epoch_key(b"k" * 32)


class Content:
    """A warehouse of which only the name of its content is asked."""

    def __init__(self, name: str) -> None:
        self._name = name

    def epoch(self) -> str:
        return self._name


def epoch(content: str = "loads 1 and 2", *, text: bytes = starter("demo"), key: bytes = KEY) -> bytes:
    return data_epoch(key, warehouse=lambda: Content(content), policy=lambda: Policy.parse(text))  # type: ignore[arg-type,return-value]


def refuse(code: RefusalCode) -> Any:
    raise Refused(code)


def test_other_data_another_policy_and_another_hospital_have_another_epoch() -> None:
    stricter = starter("demo").replace(b"max_epsilon = 2.0", b"max_epsilon = 1.5")
    found = [epoch(), epoch("loads 1 to 3"), epoch(text=stricter), epoch(key=epoch_key(b"l" * 32))]
    assert len({*found}) == 4
    assert all(len(one) == EPOCH_BYTES for one in found)


def test_comments_and_order_in_the_policy_file_change_nothing() -> None:
    text = starter("demo").replace(b'"gaussian", "laplace"', b'"laplace", "gaussian"')
    assert epoch(text=text + b"\n# a remark\n") == epoch()


def test_a_hospital_without_data_or_policy_has_an_epoch_and_one_that_cannot_tell_has_none() -> None:
    def without_policy(code: RefusalCode = RefusalCode.NO_POLICY) -> bytes:
        return data_epoch(KEY, warehouse=lambda: Content("x"), policy=lambda: refuse(code))  # type: ignore[arg-type,return-value]

    def without_data(code: RefusalCode) -> bytes:
        return data_epoch(KEY, warehouse=lambda: refuse(code), policy=lambda: Policy.parse(starter("demo")))

    def broken() -> Policy:
        raise MalformedPolicy("sites.minimum", "at least 2")

    assert len({without_policy(), without_data(RefusalCode.NO_DATA), epoch("x")}) == 3
    assert without_data(RefusalCode.NOT_READY) == b""  # an ingest is under way
    malformed = data_epoch(KEY, warehouse=lambda: Content("x"), policy=broken)  # type: ignore[arg-type,return-value]
    assert malformed == without_policy()  # either way this hospital allows nothing
    with pytest.raises(Refused):
        without_policy(RefusalCode.INTERNAL)


def test_the_key_is_none_of_the_other_keys() -> None:
    assert epoch_key(b"k" * 32) not in (b"k" * 32, epoch_key(b"l" * 32))
