"""The node as one process: opens what the hospital's folder holds, connects out, and serves until SIGTERM.

It may be killed at any moment and started again: the ledger releases what had not been committed, the store
holds whole loads only, and the coordinator hears of it by its stream. It prints one line of JSON on stdout
when it is at work; `status.json` in its folder says how it is, for `fedtwin node status`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from node import boundary, key_holder
from node.audit import AuditLog
from node.audit_events import AuditEvent
from node.data_epoch import epoch_key
from node.deid_standing import deid_standing
from node.home import NodeHome
from node.keys import NodeKeys
from node.policy import Policy
from node.quality.standing import standing
from node.renewal import renew_if_due
from node.roster import RosterKeeper
from node.running import SOFTWARE_VERSION, Parts, RunningNode
from node.session import Tls
from node.stores import Stores
from node.training.approvals import Approvals
from privacy import private_files
from privacy.ledger import Ledger
from privacy.long_vectors import ready_for_long_vectors
from privacy.rng import SecureBits
from protocols.clock import Clock
from protocols.refusal import RefusalCode, Refused
from protocols.round import RoundReply, RoundRequest

log = logging.getLogger(__name__)

STATUS_FILE = "status.json"
STATUS_EVERY_S = 5.0
RENEWAL_EVERY_S = 3600.0  # a certificate lives for months
FIRST_RENEWAL_S = 30.0  # after the start: a node that was off for long may be late
SPLIT_LABEL = b"fedtwin training split v1"
WARM_EVERY_S = 1.0  # between looks whether training is to be expected


@asynccontextmanager
async def serving(
    home: NodeHome,
    *,
    clock: Clock,
    flower: bool = True,
    make: Callable[[Parts], RunningNode] = RunningNode,
) -> AsyncIterator[RunningNode]:
    """Serve inside the block. With `flower` off this node trains nothing, whatever its policy says.

    Args: make: puts the parts together; tests pass one that stops where they want to look.
    Raises: MalformedConfig if the hospital has not joined; ChainBroken, AuditBroken; ChainBusy if another
    process serves this folder.
    """
    config, keys = home.config(), NodeKeys.load(home.keys)
    async with AsyncExitStack() as stack:
        audit = AuditLog(home.audit, clock=clock)
        stack.callback(audit.close)
        ledger = Ledger(home.ledger, clock=clock)
        stack.callback(ledger.close)
        rosters = RosterKeeper.open(home)
        key_holder.require_library(rosters.current)
        stores = Stores(home)
        stack.callback(stores.close)
        policy = _PolicyFile(home.policy, audit)
        parts = Parts(
            me=config.node_id,
            identity_key=keys.identity,
            broker_address=config.broker_address,
            tls=lambda: Tls(home.authority.read_bytes(), keys.tls_pem, home.certificate.read_bytes()),
            roster=lambda: rosters.current,
            accept_roster=rosters.accept,
            peers=rosters.peers,
            policy=policy,
            ledger=ledger,
            audit=audit,
            warehouse=stores.warehouse,
            epoch_key=epoch_key(keys.pseudonym),
            dataset=config.dataset,
            store=stores.store,
            approvals=Approvals(home.path),
            clock=clock,
            bits=SecureBits(),
            trusted_key_holder=lambda: key_holder.trusted(home.path),
            quality=lambda: standing(home.quality),
            deid=lambda: deid_standing(home.deid, version=SOFTWARE_VERSION),
        )
        node = make(parts)
        audit.record(AuditEvent.NODE_STARTED, version=SOFTWARE_VERSION)
        stack.callback(lambda: audit.record(AuditEvent.NODE_STOPPED))
        stack.push_async_callback(node.close)
        if flower and policy.allows_training():
            await _start_flower(home, parts, node, stack, split_key=split_key(keys.pseudonym))
        status = _Status(home, node, parts)
        warming = asyncio.to_thread(ledger.warm)
        for background in (node.run(), status.keep(), _keep_certified(home, node, clock=clock), warming):
            task = asyncio.create_task(background)
            stack.push_async_callback(_ended, task)
        stack.callback(status.stopped)
        yield node


def serve(home: NodeHome, *, clock: Clock, flower: bool = True) -> None:
    """Serve until SIGTERM or SIGINT. Raises: as `serving`."""
    ready_for_long_vectors()
    stop_logging = boundary.start_logging(home.logs)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO each poll of the SuperNode is a line
    try:
        asyncio.run(serve_until_stopped(home, clock=clock, flower=flower))
    finally:
        stop_logging()


async def serve_until_stopped(
    home: NodeHome,
    *,
    clock: Clock,
    flower: bool = True,
    make: Callable[[Parts], RunningNode] = RunningNode,
) -> None:
    """Serve until a signal comes; say on stdout when the node is at work."""
    stopped = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopped.set)
    async with serving(home, clock=clock, flower=flower, make=make):
        sys.stdout.write(json.dumps({"serving": True, "node_id": str(home.config().node_id)}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


class _PolicyFile:
    """The policy as the file says at this moment; parsed again when the file has changed."""

    def __init__(self, path: Path, audit: AuditLog) -> None:
        self._path = path
        self._audit = audit
        self._lock = threading.Lock()
        self._read: tuple[tuple[int, int, int], Policy] | None = None

    def __call__(self) -> Policy:
        """Return the policy. Raises: Refused(NO_POLICY) without one; MalformedPolicy."""
        with self._lock:
            try:
                stat = self._path.stat()
            except FileNotFoundError:
                raise Refused(RefusalCode.NO_POLICY) from None
            seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            if self._read is None or self._read[0] != seen:
                data = self._path.read_bytes()
                self._read = (seen, Policy.parse(data))
                self._audit.record(AuditEvent.POLICY_LOADED, policy_hash=hashlib.sha256(data).hexdigest())
            return self._read[1]

    def allows_training(self) -> bool:
        """Return whether there is a policy and it lets this node train. Read at the start only."""
        try:
            return self().training_allowed
        except Exception as error:
            log.warning("no training: the policy says nothing (%s)", boundary.to_code(error))
            return False


class _Status:
    """Writes `status.json`: how this process is, for the hospital's own eyes."""

    def __init__(self, home: NodeHome, node: RunningNode, parts: Parts) -> None:
        self._path = home.path / STATUS_FILE
        self._node = node
        self._parts = parts

    async def keep(self) -> None:
        """Write it whenever something changed, until cancelled."""
        before: dict[str, Any] = {}
        while True:
            now = self._fields()
            if now != before:
                await asyncio.to_thread(self._write, now)
                before = now
            await asyncio.sleep(STATUS_EVERY_S if now["connected"] else STATUS_EVERY_S / 5)

    def stopped(self) -> None:
        """Say that the node does not run."""
        self._write({**self._fields(), "running": False, "connected": False, "connected_since": None})

    def _fields(self) -> dict[str, Any]:
        connection = self._node.stream.connection
        since = connection.connected_since
        return {
            "running": True,
            "pid": os.getpid(),
            "version": SOFTWARE_VERSION,
            "connected": since is not None,
            "connected_since": since.isoformat() if since else None,
            "last_error": connection.last_error,
            "attempts": connection.attempts,
            "revoked": self._node.revoked,
            "roster_version": self._parts.roster().version,
            "open_questions": len(self._node.answering.unanswered()),
            "broker_address": self._parts.broker_address,
        }

    def _write(self, fields: dict[str, Any]) -> None:
        private_files.write(self._path, json.dumps(fields).encode())


class _LazyTrainer:
    """The trainer, made when a round first needs it: it loads torch, which a node that answers does not."""

    def __init__(self, home: NodeHome, parts: Parts, node: RunningNode, *, split_key: bytes) -> None:
        self._home = home
        self._parts = parts
        self._node = node
        self._split_key = split_key
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._made: Any = None

    def train(self, request: RoundRequest) -> RoundReply:
        """Train one round, in the runner's thread. Raises: Refused."""
        reply: RoundReply = self.made().train(request)
        return reply

    def made(self) -> Any:
        """Return the trainer. Raises: Refused(NO_DATA) while there is no store."""
        with self._lock:
            if self._made is None:
                from node.training.held_models import HeldModels
                from node.training.own_part import OwnParts
                from node.training.rounds import Trainer
                from node.training.validation import LocalFigures

                parts = self._parts
                self._made = Trainer(
                    approvals=parts.approvals,
                    policy=parts.policy,
                    ledger=parts.ledger,
                    audit=parts.audit,
                    store=parts.store(),
                    sums=self._node.sums,
                    loop=self._loop,
                    split_key=self._split_key,
                    bits=parts.bits,
                    clock=parts.clock,
                    dataset=parts.dataset,
                    quality=parts.quality,
                    deid=parts.deid,
                    own_parts=OwnParts(self._home.own_parts),
                    held=HeldModels(self._home.held_models),
                    figures=LocalFigures(self._home.looks),
                )
            return self._made


async def _start_flower(
    home: NodeHome, parts: Parts, node: RunningNode, stack: AsyncExitStack, *, split_key: bytes
) -> None:
    """Start the SuperNode and the runner that executes the installed app."""
    from node.flower.client_app import make_client_app
    from node.flower.supernode import SuperNode

    trainer = _LazyTrainer(home, parts, node, split_key=split_key)
    supernode = SuperNode(
        make_client_app(trainer, to_code=boundary.to_code),
        folder=home.flwr,
        fleet_address=home.config().fleet_address,
        ca=home.authority,
        key=home.flower_key,
        log=home.logs / "supernode.log",
    )
    await supernode.start()
    stack.push_async_callback(supernode.stop)
    warming = asyncio.create_task(_warm(trainer, parts.approvals))
    stack.push_async_callback(_ended, warming)


async def _warm(trainer: _LazyTrainer, approvals: Approvals) -> None:
    """Load what the first round would wait for, seconds of work, once a plan is there that may have any."""
    while not approvals.expect_training():
        await asyncio.sleep(WARM_EVERY_S)
    with contextlib.suppress(Refused):  # no data yet: the first round will say so
        await asyncio.to_thread(trainer.made)


async def _keep_certified(home: NodeHome, node: RunningNode, *, clock: Clock) -> None:
    """Renew the certificate in time, until cancelled."""
    await asyncio.sleep(FIRST_RENEWAL_S)
    while True:
        stub = node.stream.stub
        if stub is not None:
            try:
                if await renew_if_due(home, stub, clock=clock):
                    node.record(AuditEvent.CERTIFICATE_RENEWED)
            except Exception:
                log.exception("the certificate could not be renewed; it will be tried again")
        await asyncio.sleep(RENEWAL_EVERY_S if stub is not None else FIRST_RENEWAL_S)


async def _ended(task: asyncio.Task[Any]) -> None:
    """Cancel a task and wait until it has ended."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def split_key(pseudonym_key: bytes) -> bytes:
    """Return the key that splits patients into training and test, told apart from the pseudonyms' own."""
    return hmac.new(pseudonym_key, SPLIT_LABEL, hashlib.sha256).digest()
