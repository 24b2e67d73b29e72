"""The ClientApp: a strict parse, the hospital's trainer, a reply that says only which model it holds.

This module is named by the bundle; the runner never loads it by name. It builds the app around the trainer
that the node process holds, and the simulation engine builds it around a trainer of its own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

from flwr.app import ConfigRecord, Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp

from node import boundary
from protocols.refusal import RefusalCode, Refused
from protocols.round import MESSAGE_TYPE, RECORD, MalformedRound, RoundReply, RoundRequest

# Flower error codes 0 to 99 are its own; ours say which refusal by their place in the closed list.
FIRST_ERROR_CODE = 100

_log = logging.getLogger(__name__)


class Trainer(Protocol):
    """Trains one round at one hospital, under the hospital's own policy and budget."""

    def train(self, request: RoundRequest) -> RoundReply:
        """Run the steps of the round in its secure-sum session. Raises: Refused, else it is a fault."""
        ...


def make_client_app(
    trainer: Trainer, *, to_code: Callable[[BaseException], RefusalCode] = boundary.to_code
) -> ClientApp:
    """Return an app that trains with `trainer` and answers every error with a code.

    Guarantee: a reply holds a digest and a step count, or a code of the closed list; no text of an exception
    and nothing from `run_config` is ever used.
    """
    app = ClientApp()

    @app.train()
    def train(message: Message, _context: Context) -> Message:
        return answer(message, trainer, to_code=to_code)

    return app


def answer(
    message: Message, trainer: Trainer, *, to_code: Callable[[BaseException], RefusalCode] = boundary.to_code
) -> Message:
    """Return the reply to one message; see `make_client_app`."""
    try:
        reply = trainer.train(parse_request(message))
        return Message(RecordDict({RECORD: ConfigRecord(reply.fields())}), reply_to=message)
    except Exception as error:  # the boundary: whatever happened leaves as a code
        code = to_code(error)
        # The kind of the error, never its text: a message may quote a value.
        _log.warning("round refused: %s (%s)", code.value, type(error).__name__)
        return refusal(message, code)


def parse_request(message: Message) -> RoundRequest:
    """Return the request in a Flower message, refusing whatever is not just that. Raises: MalformedRound."""
    if message.metadata.message_type != MESSAGE_TYPE or not message.has_content():
        raise MalformedRound("not a training message")
    content = message.content
    if not all(isinstance(record, ConfigRecord) for record in content.values()):
        raise MalformedRound("needs records of one kind")
    return RoundRequest.parse({name: dict(record) for name, record in content.items()})


def refusal(message: Message, code: RefusalCode) -> Message:
    """Return the reply that carries `code` and nothing else."""
    return Message(Error(FIRST_ERROR_CODE + list(RefusalCode).index(code), code.value), reply_to=message)


class _NoTrainer:
    def train(self, request: RoundRequest) -> RoundReply:
        raise Refused(RefusalCode.NOT_READY)


# What the bundle's reference resolves to, if somebody runs it with Flower's stock runner: it trains nothing.
app = make_client_app(_NoTrainer())
