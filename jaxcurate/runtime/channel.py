"""JSON messages, one a line, over a TCP connection between two processes."""

import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable
from typing import Any

_LONGEST = 2**20
_SEND_SECONDS = 5.0
_RETRY_SECONDS = 0.01

Message = dict[str, Any]


class Channel:
    """One end of a connection, open until the process ends. Any thread sends, one receives."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        # A socket object would complain at the exit of the interpreter that nobody closed it.
        self._descriptor = connection.detach()
        self._lock = threading.Lock()
        self._rest = b""

    def fileno(self) -> int:
        """Returns the descriptor to wait on."""
        return self._descriptor

    def send(self, message: Message) -> None:
        """Sends a message; where the other end is gone or takes nothing, it is lost."""
        left = json.dumps(message).encode() + b"\n"
        end = time.monotonic() + _SEND_SECONDS
        with self._lock:
            while left and time.monotonic() < end:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    time.sleep(_RETRY_SECONDS)
                except OSError:  # the end of the connection shows when it is read
                    return

    def receive(self) -> tuple[list[Message], bool]:
        """Returns the messages that have arrived, and whether the connection is open.

        Bytes that are no messages close the connection.
        """
        try:
            arrived = os.read(self._descriptor, 2**16)
        except BlockingIOError:
            return [], True
        except OSError:
            arrived = b""
        *lines, self._rest = (self._rest + arrived).split(b"\n")
        try:
            messages = [json.loads(line) for line in lines]
        except ValueError:
            return [], False
        wellformed = all(isinstance(message, dict) for message in messages)
        return messages, bool(arrived) and wellformed and len(self._rest) <= _LONGEST

    def close(self) -> None:
        """Closes the connection."""
        os.close(self._descriptor)


def ready(waiting: Iterable[Any], seconds: float) -> list[Any]:
    """Waits until any of the channels, sockets or descriptors can be read; returns those."""
    with selectors.DefaultSelector() as selector:
        for one in waiting:
            selector.register(one, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]
