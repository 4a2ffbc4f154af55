"""Relay on this machine for the connection of jax to the coordinator in process 0.

The client of jax aborts its process, with a stack trace of C++, as soon as the connection to the
coordinator breaks. The relay keeps the client's side open, so that
:mod:`jaxcurate.runtime.monitor` has time to report which process died.
"""

import os
import socket
import threading
import time
from collections.abc import Callable

_RETRY_SECONDS = 0.02


def relayed(host: str, port: int) -> str:
    """Starts a relay on this machine, and returns its address.

    Args:
        host: Host to which the relay forwards connections.
        port: Port on that host.

    Returns:
        ``host:port`` at which the relay listens.
    """
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            client = listener.accept()[0]
            _in_background(connect, client)

    def connect(client: socket.socket) -> None:
        # If the coordinator does not listen yet, jax would wait for seconds before it tries again.
        while True:
            try:
                coordinator = socket.create_connection((host, port))
                break
            except OSError:
                time.sleep(_RETRY_SECONDS)
        # Descriptors, since socket objects warn at the exit of the interpreter if they are open.
        ends = client.detach(), coordinator.detach()
        _in_background(_copy, *ends)
        _copy(*reversed(ends))

    _in_background(serve)
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _copy(source: int, sink: int) -> None:
    """Copies bytes until either connection breaks, and closes neither of them."""
    try:
        while part := os.read(source, 2**16):
            while part:
                part = part[os.write(sink, part) :]
    except OSError:
        pass


def _in_background(function: Callable[..., None], *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()
