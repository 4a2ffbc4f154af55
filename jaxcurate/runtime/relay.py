"""A relay on this machine for jax's connection to the coordinator in process 0.

The client of jax aborts its process, with a stack trace of C++, as soon as the connection to the
coordinator breaks. The relay keeps the client's side open, so that the monitor of this package
gets to tell which process died.
"""

import socket
import threading
import time

_RETRY_SECONDS = 0.02


def relayed(host: str, port: int) -> str:
    """Listens on this machine; returns the address whose connections go on to the given one."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            client = listener.accept()[0]
            _in_background(connect, client)

    def connect(client: socket.socket) -> None:
        # jax waits seconds before it tries again where the coordinator does not listen yet.
        while True:
            try:
                coordinator = socket.create_connection((host, port))
                break
            except OSError:
                time.sleep(_RETRY_SECONDS)
        _in_background(_copy, client, coordinator)
        _copy(coordinator, client)

    _in_background(serve)
    return f"127.0.0.1:{listener.getsockname()[1]}"


def _copy(source: socket.socket, sink: socket.socket) -> None:
    """Copies bytes until an end breaks; the other end stays open until the process ends."""
    try:
        while part := source.recv(2**16):
            sink.sendall(part)
    except OSError:
        pass


def _in_background(function: object, *arguments: object) -> None:
    threading.Thread(target=function, args=arguments, daemon=True).start()
