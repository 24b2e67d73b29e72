"""The SuperNode's loopback runtime API, as far as the runner uses it.

Flower's own client of it retries by signals to the process and exits it on a version mismatch, which a node
process cannot have. This one speaks the same protobuf over HTTP and raises. flwr is pinned to 1.41.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass
from typing import TypeVar

import httpx
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.app.message import remove_content_from_message
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    ObjectTree,
    PullObjectRequest,
    PullObjectResponse,
    PushObjectRequest,
    PushObjectResponse,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.runtime_pb2 import (
    AcquireTaskRequest,
    AcquireTaskResponse,
    PullAppMessagesRequest,
    PullAppMessagesResponse,
    PullTaskInputRequest,
    PullTaskInputResponse,
    PushAppMessagesRequest,
    PushAppMessagesResponse,
    PushTaskOutputRequest,
    PushTaskOutputResponse,
    SendTaskHeartbeatRequest,
    SendTaskHeartbeatResponse,
)
from flwr.supercore.auth import create_superexec_auth_metadata, derive_auth_secret
from flwr.supercore.constant import TASK_TOKEN_HEADER, TaskType
from flwr.supercore.inflatable.inflatable_object import (
    get_all_nested_objects,
    get_object_tree,
    iterate_object_tree,
    no_object_id_recompute,
)
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.runtime_version_compatibility import RuntimeVersionMetadata
from google.protobuf.message import Message as Proto

from protocols.round import MAX_PIECES, PIECE_BYTES

MEDIA_TYPE = "application/protobuf"
PART_TIMEOUT_S = 60.0  # for the SuperNode to fetch 32 MB over a slow line
PART_POLL_S = 0.02
TIMEOUT_S = 30.0  # loopback; a large model takes a second
ACQUIRE = "/flwr.proto.Runtime/AcquireTask"  # what the secret signs
MAX_PARTS = MAX_PIECES + 2  # a message, its dictionary of records, and as many records as a model has pieces
MAX_OBJECT_BYTES = PIECE_BYTES + 2**16  # a piece of the parameters, and what stands around it

Reply = TypeVar("Reply", bound=Proto)


class RuntimeApiError(Exception):
    """A call failed. Carries the call and the HTTP status (0: no answer)."""

    def __init__(self, call: str, status: int) -> None:
        super().__init__(f"runtime API call {call} failed: HTTP {status}")
        self.call = call
        self.status = status


class MalformedMessage(ValueError):
    """A message is not put together as one of ours."""


@dataclass(frozen=True, slots=True)
class Task:
    """A claimed task; the token lets its holder pull the input and push the answer."""

    token: str

    def __repr__(self) -> str:
        return "Task(<hidden>)"


class RuntimeApi:
    """Calls on one SuperNode. Not safe for use by two threads at once: make one for each."""

    def __init__(self, address: str, *, secret: bytes) -> None:
        """`secret` is the content of the file that the SuperNode was started with."""
        self._secret = derive_auth_secret(secret)
        version = RuntimeVersionMetadata.from_local_component("flwr-clientapp")
        self._headers = {"content-type": MEDIA_TYPE, "accept": MEDIA_TYPE, **dict(version.as_metadata())}
        # A proxy from the environment must not see loopback traffic.
        self._client = httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=TIMEOUT_S)

    def acquire(self) -> Task | None:
        """Claim the oldest pending task of a ClientApp, if there is one. Raises: RuntimeApiError."""
        request = AcquireTaskRequest(supported_task_types=[TaskType.CLIENT_APP])
        signed = create_superexec_auth_metadata(auth_secret=self._secret, method=ACQUIRE, request=request)
        found = self._call("acquire-task", request, AcquireTaskResponse, headers=signed)
        return Task(found.token) if found.token else None

    def start(self, task: Task) -> tuple[int, int]:
        """Mark the task as begun; return (run id, node id). The bundle that comes along is dropped unread."""
        found = self._call("pull-task-input", PullTaskInputRequest(), PullTaskInputResponse, task=task)
        return found.context.run_id, found.context.node_id

    def pull_header(self, task: Task) -> tuple[Message, ObjectTree] | None:
        """Return the message's metadata (no content yet) and the list of its parts."""
        found = self._call("pull-messages", PullAppMessagesRequest(), PullAppMessagesResponse, task=task)
        if len(found.messages_list) != 1 or len(found.message_object_trees) != 1:
            return None
        header = message_from_proto(found.messages_list[0])
        tree = found.message_object_trees[0]
        header.metadata.__dict__["_message_id"] = (
            tree.object_id
        )  # a reply names it; Flower's own way to set it
        return header, tree

    def pull_content(self, task: Task, tree: ObjectTree, *, run_id: int, node_id: int) -> Message:
        """Return the whole message, if it is put together from the parts that ours have.

        Raises: MalformedMessage, RuntimeApiError.
        """
        node = Node(node_id=node_id)
        parts = [part.object_id for part in iterate_object_tree(tree)]
        contents: dict[str, bytes] = {}
        try:
            # All parts are waited for, ours or not: answered earlier, the SuperNode loses the message.
            for part in parts[:MAX_PARTS]:
                contents[part] = self._pull(task, PullObjectRequest(node=node, run_id=run_id, object_id=part))
            if not 3 <= len(parts) <= MAX_PARTS:
                raise MalformedMessage(f"a message has 3 to {MAX_PARTS} parts, got {len(parts)}")
            kinds = Counter(content.split(b" ", 1)[0].decode("latin-1") for content in contents.values())
            records = kinds.pop(ConfigRecord.__qualname__, 0)
            if not records or kinds != {Message.__qualname__: 1, RecordDict.__qualname__: 1}:
                raise MalformedMessage("a message has a part of another kind")
        finally:
            confirm = ConfirmMessageReceivedRequest(
                node=node, run_id=run_id, message_object_id=tree.object_id
            )
            self._call("confirm-message-received", confirm, ConfirmMessageReceivedResponse, task=task)
        try:
            message = inflate_object_from_contents(tree.object_id, contents)
        except Exception as error:  # whatever Flower raises on bytes from outside: they are malformed
            raise MalformedMessage("a message cannot be read") from error
        if not isinstance(message, Message):
            raise MalformedMessage("not a message")
        message.metadata.__dict__["_message_id"] = tree.object_id
        return message

    def push_reply(self, task: Task, reply: Message, *, run_id: int, node_id: int) -> None:
        """Hand in the reply. Raises: RuntimeApiError."""
        reply.metadata.__dict__["_message_id"] = reply.object_id
        with no_object_id_recompute():
            request = PushAppMessagesRequest(
                messages_list=[message_to_proto(remove_content_from_message(reply))],
                message_object_trees=[get_object_tree(reply)],
            )
            accepted = self._call("push-messages", request, PushAppMessagesResponse, task=task)
            for object_id, part in get_all_nested_objects(reply).items():
                if object_id not in accepted.objects_to_push:
                    continue
                pushed = PushObjectRequest(
                    node=Node(node_id=node_id),
                    run_id=run_id,
                    object_id=object_id,
                    object_content=part.deflate(),
                    session_id=accepted.session_id,
                )
                self._call("push-object", pushed, PushObjectResponse, task=task)

    def finish(self, task: Task, *, sub_status: str) -> None:
        """Close the task. No text goes along. Raises: RuntimeApiError."""
        request = PushTaskOutputRequest(sub_status=sub_status, details="")
        self._call("push-task-output", request, PushTaskOutputResponse, task=task)

    def heartbeat(self, task: Task) -> bool:
        """Say that the task is being worked on; return whether it is wanted. Raises: RuntimeApiError."""
        request = SendTaskHeartbeatRequest()
        return self._call("send-task-heartbeat", request, SendTaskHeartbeatResponse, task=task).success

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _pull(self, task: Task, request: PullObjectRequest) -> bytes:
        """Return a part. The SuperNode hands out a task before it has fetched all of its message."""
        ends = time.monotonic() + PART_TIMEOUT_S
        while True:
            found = self._call("pull-object", request, PullObjectResponse, task=task)
            if found.object_available:
                break
            if not found.object_found or time.monotonic() > ends:
                raise MalformedMessage("a part is missing")
            time.sleep(PART_POLL_S)
        if len(found.object_content) > MAX_OBJECT_BYTES:
            raise MalformedMessage(f"a part has at most {MAX_OBJECT_BYTES} bytes")
        return found.object_content

    def _call(
        self,
        name: str,
        request: Proto,
        reply: type[Reply],
        *,
        task: Task | None = None,
        headers: dict[str, str] | None = None,
    ) -> Reply:
        sent = self._headers | (headers or {})
        if task is not None:
            sent[TASK_TOKEN_HEADER] = task.token
        try:
            response = self._client.post(
                f"/v1/runtime/{name}", content=request.SerializeToString(deterministic=True), headers=sent
            )
        except httpx.HTTPError as error:
            raise RuntimeApiError(name, 0) from error
        if not response.is_success:
            raise RuntimeApiError(name, response.status_code)
        found = reply()
        found.ParseFromString(response.content)
        return found
