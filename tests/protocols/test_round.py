"""A round's request and reply: what they say, and what is refused."""

from typing import Any

import numpy as np
import pytest

from protocols.ids import SessionId
from protocols.round import MalformedRound, RoundReply, RoundRequest

SESSION = SessionId(bytes(range(16)))
GOOD: dict[str, Any] = {
    "plan_hash": bytes(32),
    "round": 1,
    "session_id": SESSION.raw,
    "parameters": np.array([0.5, -1.0]).tobytes(),
}


def test_a_request_survives_the_wire() -> None:
    sent = RoundRequest(bytes(32), 3, SESSION, np.array([1.0, 2.0]))
    found = RoundRequest.parse(sent.fields())
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
        RoundRequest.parse(GOOD | change)


@pytest.mark.parametrize("name", list(GOOD))
def test_a_missing_field_is_refused(name: str) -> None:
    with pytest.raises(MalformedRound):
        RoundRequest.parse({key: value for key, value in GOOD.items() if key != name})


def test_a_reply_survives_the_wire_and_says_nothing_more() -> None:
    reply = RoundReply(bytes(32), 5)
    assert RoundReply.parse(reply.fields()) == reply
    assert set(reply.fields()) == {"parameters_digest", "steps"}
    for wrong in ({"steps": -1}, {"steps": True}, {"parameters_digest": b""}, {"loss": 0.1}):
        with pytest.raises(MalformedRound):
            RoundReply.parse(reply.fields() | wrong)
