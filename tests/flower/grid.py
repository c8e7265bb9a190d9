"""A Flower grid in one process: every node is a client app that is called at once; for tests without Ray."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import uuid4

from flwr.app import Context, Error, Message, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

Client = Callable[[Message, Context], Message]


class Late(Exception):
    """Raised by a client whose reply is not to come in time."""


class LocalGrid(Grid):
    """Nodes by id; an exception of a client becomes an error reply, contents are serialised, as in Flower."""

    def __init__(self, clients: dict[int, Client], run_config: dict[str, Any] | None = None) -> None:
        TaskIdentity.run_id = TaskIdentity.task_id = TaskIdentity.node_id = 1  # as Flower's processes do
        self.clients = clients
        self.sent: list[Message] = []
        self._context = {
            node: Context(1, node, {"partition-id": i}, RecordDict(), run_config or {})
            for i, node in enumerate(sorted(clients))
        }

    def get_node_ids(self) -> Iterable[int]:
        return list(self.clients)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            message.metadata.__dict__["_message_id"] = str(uuid4())
            message.content = recorddict_from_proto(recorddict_to_proto(message.content))
            self.sent.append(message)
            try:
                reply = self.clients[node](message, self._context[node])
                reply.content = recorddict_from_proto(recorddict_to_proto(reply.content))
            except Late:
                continue
            except Exception as error:
                reply = Message(Error(code=3, reason=f"{type(error).__name__}: {error}"), reply_to=message)
            replies.append(reply)
        return replies[::-1]  # not in the order of the nodes

    def set_run(self, run: Any) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **kwargs: Any) -> Message:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError
