"""JSON messages, one on each line, over a TCP connection between two processes."""

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
    """End of a connection for messages, which stays open until the process ends.

    Any thread may send; only one thread may receive.

    Args:
        connection: Connected socket, which must not be used elsewhere afterwards.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.setblocking(False)
        # A descriptor, since a socket object warns at the exit of the interpreter if it is open.
        self._descriptor = connection.detach()
        self._lock = threading.Lock()
        self._rest = b""

    def fileno(self) -> int:
        """Returns the file descriptor, with which :func:`ready` can wait for messages."""
        return self._descriptor

    def send(self, message: Message) -> None:
        """Sends a message, which is lost if the other end is gone or does not read in time."""
        left = json.dumps(message).encode() + b"\n"
        end = time.monotonic() + _SEND_SECONDS
        with self._lock:
            while left and time.monotonic() < end:
                try:
                    left = left[os.write(self._descriptor, left) :]
                except BlockingIOError:
                    time.sleep(_RETRY_SECONDS)
                except OSError:  # receive reports that the connection has ended
                    return

    def receive(self) -> tuple[list[Message], bool]:
        """Returns the messages that have arrived, and whether the connection is still open.

        A connection whose bytes are not messages does not count as open.
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
    """Waits until a channel, socket or descriptor can be read.

    Args:
        waiting: Channels, sockets and descriptors.
        seconds: Longest time to wait.

    Returns:
        The members of ``waiting`` that can be read; none if the time is over.
    """
    with selectors.DefaultSelector() as selector:
        for source in waiting:
            selector.register(source, selectors.EVENT_READ)
        return [key.fileobj for key, _ in selector.select(seconds)]
