"""A round's request and reply: what they say, and what is refused."""

from typing import Any

import numpy as np
import pytest

from protocols.ids import SessionId
from protocols.round import MAX_PIECES, PIECE_BYTES, RECORD, MalformedRound, RoundReply, RoundRequest

SESSION = SessionId(bytes(range(16)))
GOOD: dict[str, Any] = {
    "plan_hash": bytes(32),
    "round": 1,
    "session_id": SESSION.raw,
    "parameters": np.array([0.5, -1.0]).tobytes(),
}


def test_a_request_survives_the_wire() -> None:
    sent = RoundRequest(bytes(32), 3, SESSION, np.array([1.0, 2.0]))
    found = RoundRequest.parse(sent.records())
    assert (found.plan_hash, found.round, found.session_id) == (bytes(32), 3, SESSION)
    assert found.parameters.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "change",
    [
        {"plan_hash": bytes(31)},
        {"plan_hash": "00" * 32},
        {"round": 0},
        {"round": True},
        {"round": 1.0},
        {"round": 10_001},
        {"session_id": bytes(15)},
        {"session_id": str(SESSION)},
        {"parameters": b""},
        {"parameters": bytes(7)},
        {"parameters": [0.5]},
        {"parameters": np.array([np.nan]).tobytes()},
        {"parameters": np.array([np.inf]).tobytes()},
        {"clip_norm": 1e9},
        {"noise_multiplier": 0.0},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(MalformedRound):
        RoundRequest.parse({RECORD: GOOD | change})


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises(MalformedRound):
        RoundRequest.parse({RECORD: {key: value for key, value in GOOD.items() if key != name}})


def large() -> RoundRequest:
    return RoundRequest(bytes(32), 3, SESSION, np.arange(PIECE_BYTES // 8 * 2 + 5, dtype="<f8"))


def test_a_large_model_crosses_in_records_of_bounded_size() -> None:
    records = large().records()
    assert list(records) == ["round", "parameters.1", "parameters.2"]
    assert [len(fields["parameters"]) for fields in records.values()] == [PIECE_BYTES, PIECE_BYTES, 40]
    found = RoundRequest.parse(records)
    np.testing.assert_array_equal(found.parameters, large().parameters)


def test_pieces_that_are_not_the_models_are_refused() -> None:
    def changed(name: str, **fields: Any) -> dict[str, Any]:
        records = large().records()
        records[name] = records[name] | fields
        return records

    whole = large().records()
    for wrong in (
        {name: fields for name, fields in whole.items() if name != "parameters.1"},
        {name: fields for name, fields in whole.items() if name != "parameters.2"},
        whole | {"parameters.3": {"place": 3, "parameters": bytes(8)}},
        whole | {"other": {}},
        {name: fields for name, fields in whole.items() if name != "round"},
        changed("round", pieces=2),
        changed("round", pieces=MAX_PIECES + 1),
        changed("round", pieces=True),
        changed("round", parameters=bytes(PIECE_BYTES - 8)),
        changed("parameters.1", place=2),
        changed("parameters.1", parameters=bytes(PIECE_BYTES - 8)),
        changed("parameters.2", parameters=bytes(PIECE_BYTES + 8)),
        changed("parameters.2", parameters=b""),
        changed("parameters.2", parameters=bytes(7)),
        changed("parameters.2", parameters=[0.5]),
        changed("parameters.2", noise_multiplier=0.0),
    ):
        with pytest.raises(MalformedRound):
            RoundRequest.parse(wrong)
    with pytest.raises(MalformedRound):
        RoundRequest.parse({RECORD: GOOD | {"pieces": 1}})
    with pytest.raises(MalformedRound):
        RoundRequest.parse({})


def test_a_reply_survives_the_wire_and_says_nothing_more() -> None:
    reply = RoundReply(bytes(32), 5)
    assert RoundReply.parse(reply.fields()) == reply
    assert set(reply.fields()) == {"parameters_digest", "steps"}
    for wrong in ({"steps": -1}, {"steps": True}, {"parameters_digest": b""}, {"loss": 0.1}):
        with pytest.raises(MalformedRound):
            RoundReply.parse(reply.fields() | wrong)
