"""The runner: claims training messages from the hospital's own SuperNode and runs the installed app on them.

Flower's stock runner unpacks the bundle that the coordinator shipped and imports it. This one never looks at
the bundle: there is one app, the object it was given. It is a thread of the node process, because the ledger,
the policy and the store are there.
"""

from __future__ import annotations

import logging
import threading
import time

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.common.constant import SubStatus

from node.flower.client_app import refusal
from node.flower.runtime_api import MalformedMessage, RuntimeApi, RuntimeApiError, Task
from protocols.refusal import RefusalCode
from protocols.round import MESSAGE_TYPE

POLL_S = 0.03  # while a run is on: a call on loopback takes 3 ms
IDLE_POLL_S = 0.5  # otherwise: a hospital's machine has other work
BUSY_FOR_S = 60.0  # a run counts as on for this long after its last task
AWAY_S = 1.0  # after a failed call: the SuperNode is starting, or gone
HEARTBEAT_S = 10.0  # Flower gives a task up 30 s after its claim, 60 s after a heartbeat
REPLY_TRIES = 5  # a SuperNode waits for a reply and does nothing else meanwhile

_log = logging.getLogger(__name__)


class Runner:
    """Runs `app` on the tasks of the SuperNode at `address`, one at a time, in a thread of its own."""

    def __init__(self, app: ClientApp, *, address: str, secret: bytes) -> None:
        """`address` is the SuperNode's runtime API on loopback; `secret` is what both share."""
        self._app = app
        self._address = address
        self._secret = secret
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="flower-runner", daemon=True)
        self.tasks_done = 0

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self, *, timeout_s: float = 10.0) -> bool:
        """Claim no further task; wait for the one at work. Return whether the thread has ended."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        api = RuntimeApi(self._address, secret=self._secret)
        busy_until = float("-inf")
        try:
            while not self._stop.is_set():
                wait_s = POLL_S if time.monotonic() < busy_until else IDLE_POLL_S
                try:
                    task = api.acquire()
                    if task is not None:
                        busy_until = time.monotonic() + BUSY_FOR_S
                        self._work(api, task)
                        wait_s = 0.0
                except RuntimeApiError as error:
                    if error.status:
                        _log.warning("SuperNode refused %s: HTTP %s", error.call, error.status)
                    wait_s = AWAY_S
                except Exception as error:  # the thread must live: a task that broke must not end all others
                    _log.warning("a task broke: %s", type(error).__name__)
                    wait_s = AWAY_S
                self._stop.wait(wait_s)
        finally:
            api.close()

    def _work(self, api: RuntimeApi, task: Task) -> None:
        run_id, node_id = api.start(task)
        with _Heartbeats(self._address, self._secret, task):
            pulled = api.pull_header(task)
            if pulled is None:
                api.finish(task, sub_status=SubStatus.FAILED)
                return
            header, tree = pulled
            try:
                message = api.pull_content(task, tree, run_id=run_id, node_id=node_id)
                reply = self._answer(message, run_id=run_id, node_id=node_id)
            except MalformedMessage:
                reply = refusal(header, RefusalCode.MALFORMED)
            except Exception as error:  # the SuperNode waits for a reply: it gets one, whatever happened
                _log.warning("a message could not be worked on: %s", type(error).__name__)
                reply = refusal(header, RefusalCode.INTERNAL)
            self._hand_in(api, task, reply, run_id=run_id, node_id=node_id)
            failed = reply.has_error()
            api.finish(task, sub_status=SubStatus.FAILED if failed else SubStatus.COMPLETED)
        self.tasks_done += 1

    def _answer(self, message: Message, *, run_id: int, node_id: int) -> Message:
        if message.metadata.message_type != MESSAGE_TYPE or not message.has_content():
            return refusal(message, RefusalCode.MALFORMED)
        # An empty context: run_config is the coordinator's word and decides nothing here.
        context = Context(run_id=run_id, node_id=node_id, node_config={}, state=RecordDict(), run_config={})
        try:
            return self._app(message, context)
        except Exception as error:  # the app turns errors into codes itself; this is the second lock
            _log.warning("app failed: %s", type(error).__name__)
            return refusal(message, RefusalCode.INTERNAL)

    def _hand_in(self, api: RuntimeApi, task: Task, reply: Message, *, run_id: int, node_id: int) -> None:
        for left in reversed(range(REPLY_TRIES)):
            try:
                api.push_reply(task, reply, run_id=run_id, node_id=node_id)
                return
            except RuntimeApiError as error:
                if left == 0 or error.status in (401, 403):
                    raise
                self._stop.wait(AWAY_S)


class _Heartbeats:
    """Keeps a claimed task alive while it is worked on."""

    def __init__(self, address: str, secret: bytes, task: Task) -> None:
        self._api = RuntimeApi(address, secret=secret)
        self._task = task
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="flower-heartbeat", daemon=True)

    def __enter__(self) -> _Heartbeats:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._api.close()

    def _beat(self) -> None:
        while not self._done.wait(HEARTBEAT_S):
            try:
                self._api.heartbeat(self._task)
            except RuntimeApiError as error:
                _log.warning("heartbeat failed: HTTP %s", error.status)
