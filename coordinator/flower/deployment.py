"""Flower at the coordinator as one thing to start and stop: SuperLink, gateway, and who may connect."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from coordinator.flower.control_api import SuperLinkRefused, public_key_pem
from coordinator.flower.fleet_gateway import FleetGateway
from coordinator.flower.superlink import SuperLink
from privacy import private_files
from protocols.clock import Clock
from protocols.ids import NodeId

KEEP_STEP_S = 5.0  # the roster is looked at this often; `roster_changed` makes it at once
ADDRESS_FILE = "superlink.json"

_log = logging.getLogger(__name__)

Roster = Callable[[], Mapping[NodeId, str]]


class FlowerDeployment:
    """Keeps a SuperLink on loopback, a fleet gateway before it, and SuperNodes in step with the roster.

    Guarantee: a SuperNode is admitted while its key stands in the roster; one that is revoked is refused from
    its next call on.
    """

    def __init__(
        self,
        home: Path,
        *,
        roster: Roster,
        certificate: Path,
        key: Path,
        clock: Clock,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare it.

        Args: home, the coordinator's; roster, returns the SuperNode key (OpenSSH form) of each node that is
        not revoked; certificate and key, PEM files of the coordinator's public listeners; host and port,
        where hospitals reach the gateway (0: a free port).
        """
        self._home = home
        self._roster = roster
        self._certificate, self._key = certificate, key
        self._host, self._port = host, port
        self._superlink = SuperLink(
            home / "flower", home=home, log=home / "logs" / "superlink.log", clock=clock
        )
        self._gateway: FleetGateway | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    @property
    def superlink(self) -> SuperLink:
        """The SuperLink, for its control API."""
        return self._superlink

    @property
    def fleet_port(self) -> int:
        """The gateway's port. Raises: RuntimeError before `start`."""
        if self._gateway is None:
            raise RuntimeError("the fleet gateway is not started")
        return self._gateway.port

    async def start(self) -> None:
        """Start all of it; when this returns, hospitals can connect. Raises: SuperLinkDown, OSError."""
        gateway = FleetGateway(
            upstream=self._superlink.address,
            upstream_ca=self._superlink.ca,
            host=self._host,
            port=self._port,
            certificate=self._certificate,
            key=self._key,
            revive=self._revive,
        )
        try:
            await self._superlink.start()
            await self.keep_step()
            await gateway.start()
        except BaseException:
            await gateway.stop()
            await self._superlink.stop()
            raise
        self._gateway = gateway
        where = {"address": self._superlink.address, "ca": str(self._superlink.ca)}
        private_files.write(self._home / "flower" / ADDRESS_FILE, json.dumps(where).encode())
        self._keeping = asyncio.create_task(self._keep())

    async def stop(self) -> None:
        """Stop all of it. Safe to call twice."""
        (self._home / "flower" / ADDRESS_FILE).unlink(missing_ok=True)
        if self._keeping is not None:
            self._keeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._keeping
            self._keeping = None
        if self._gateway is not None:
            await self._gateway.stop()
            self._gateway = None
        await self._superlink.stop()

    def round_opened(self) -> None:
        """Say that a training round was opened: its messages are about to come."""
        if self._gateway is not None:
            self._gateway.expect_messages()

    def roster_changed(self) -> None:
        """Say that a node joined or was revoked: it takes effect at once."""
        self._changed.set()

    async def keep_step(self) -> None:
        """Register who is in the roster, remove who is not. Raises: SuperLinkRefused, httpx.HTTPError."""
        wanted = {public_key_pem(key): node for node, key in self._roster().items()}
        known = {node.public_key: node for node in await self._superlink.control.supernodes()}
        for pem in known.keys() - wanted.keys():
            await self._superlink.control.unregister(known[pem].flower_id)
        for pem in wanted.keys() - known.keys():
            try:
                await self._superlink.control.register(pem, name=str(wanted[pem]))
            except SuperLinkRefused as refused:  # one bad key must not keep the others out
                _log.warning("SuperNode of %s not registered: HTTP %s", wanted[pem], refused.status)

    async def _revive(self, public_key: bytes) -> int | None:
        """Return Flower's id of the SuperNode with this key, if the roster lists it."""
        if public_key not in {public_key_pem(key) for key in self._roster().values()}:
            return None
        known = {node.public_key: node for node in await self._superlink.control.supernodes()}
        return known[public_key].flower_id if public_key in known else None

    async def _keep(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), KEEP_STEP_S)
            self._changed.clear()
            try:
                await self.keep_step()
            except Exception as error:  # the SuperLink is being restarted: the next look will do
                _log.warning("SuperNodes not compared with the roster: %s", type(error).__name__)
