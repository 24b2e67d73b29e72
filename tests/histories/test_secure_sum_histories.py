"""Recorded orders of events of a secure sum, replayed with real parties. Each bug leaves its history here."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from privacy import errors
from privacy.rng import Words
from tests.privacy.sum_network import CONTEXT, SumNetwork, node, plain_sum, vectors_of

HISTORIES = json.loads(Path(__file__).with_name("secure_sum.json").read_text())


def carry_out(network: SumNetwork, event: list[Any]) -> None:
    """Let something happen."""
    match event:
        case ["open"]:
            network.open()
        case ["advertise"]:
            network.advertise()
        case ["share"]:
            network.share()
        case ["deliver"]:
            network.deliver()
        case ["dies", index]:
            network.die(index)
        case ["sends", index, step]:
            assert index in network.alive
            network.send(index, vectors(network)[index], step=step)
        case ["reveals", index, step]:
            assert index in network.alive
            network.reveal(index, step=step)
        case _:
            check(network, event)


def check(network: SumNetwork, event: list[Any]) -> None:
    """See whether a claim of the history holds."""
    match event:
        case ["is late", index, step]:
            late = network.parties[index].masked(vectors(network)[index], step=step, context=CONTEXT)
            assert not network.collector.input(node(index), late, step=step, context=CONTEXT)
        case ["closes", step, survivors]:
            assert network.collector.close(step) == tuple(node(index) for index in survivors)
        case ["refuses", index, step, error]:
            with pytest.raises(getattr(errors, error)):
                network.reveal(index, step=step)
        case ["total", step, contributors]:
            total = network.collector.total(step)
            np.testing.assert_array_equal(total, plain_sum(vectors(network), contributors))
        case ["no total", step, error]:
            with pytest.raises(getattr(errors, error)):
                network.collector.total(step)
        case _:
            raise AssertionError(f"no such event: {event}")


def vectors(network: SumNetwork) -> dict[int, Words]:
    """Return what the parties send, in every step."""
    return vectors_of(len(network.parties), length=9)


@pytest.mark.parametrize("history", HISTORIES, ids=[history["name"] for history in HISTORIES])
def test_the_history_ends_as_recorded(history: dict[str, Any]) -> None:
    network = SumNetwork(history["parties"], steps=history["steps"], colluders=history["colluders"])
    for event in history["events"]:
        carry_out(network, event)
