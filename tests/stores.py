"""Emulators of stores, which a test starts as processes of their own."""

import contextlib
import importlib
import importlib.util
import socket
import subprocess
import sys
import time
import urllib.request

import fsspec
import pytest
from etils.epath import backend

BUCKET = "bucket"
SERVERS = {
    "s3": ("s3fs", "moto", ["moto.server", "-H", "127.0.0.1", "-p", "{port}"]),
    "gs": (
        "gcsfs",
        "gcp_storage_emulator",
        ["gcp_storage_emulator", "start", "--host=127.0.0.1", "--port={port}", "--in-memory"],
    ),
}
"""For each scheme: the client, the emulator, and the arguments that start it."""


def environment(scheme, port):
    """Returns the variables that send requests of a scheme to an emulator."""
    place = f"http://127.0.0.1:{port}"
    if scheme == "s3":
        keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return {"AWS_ENDPOINT_URL": place, "AWS_DEFAULT_REGION": "us-east-1", **keys}
    return {"STORAGE_EMULATOR_HOST": place, "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}


def free_port():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@contextlib.contextmanager
def emulated(scheme):
    """Runs an emulator with one empty bucket, and yields its port."""
    client, emulator, arguments = SERVERS[scheme]
    for package in (client, emulator, *(["flask_cors"] if scheme == "s3" else [])):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: pip install -e '.[test]'")
    port = free_port()
    command = [sys.executable, "-W", "ignore", "-m", *(a.format(port=port) for a in arguments)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, **quiet)
    try:
        _make_bucket(scheme, port, server)
        yield port
    finally:
        server.terminate()
        server.wait()


def _make_bucket(scheme, port, server):
    place = f"http://127.0.0.1:{port}"
    if scheme == "s3":
        request = urllib.request.Request(f"{place}/{BUCKET}", method="PUT")
    else:
        data, headers = f'{{"name": "{BUCKET}"}}'.encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(f"{place}/storage/v1/b?project=p", data, headers)
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30):
                return
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline
            time.sleep(0.2)


@contextlib.contextmanager
def connected(scheme):
    """Runs an emulator, and sends all requests of a scheme to it during the block."""
    with emulated(scheme) as port, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(scheme, port).items():
            patch.setenv(name, value)
        _forget(scheme)
        yield f"{scheme}://{BUCKET}"
        _forget(scheme)


def uninstall(scheme, monkeypatch):
    """Makes the client of a scheme missing, also for connections that earlier tests have opened."""
    monkeypatch.setitem(sys.modules, SERVERS[scheme][0], None)
    registry = importlib.import_module("fsspec.registry")
    for name in ("s3", "gs", "gcs"):
        monkeypatch.delitem(registry._registry, name, raising=False)
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()


def _forget(scheme):
    """Lets the next path of a scheme open a new connection."""
    fsspec.get_filesystem_class(scheme).clear_instance_cache()
    backend._FileSystemSpecBackend._get_filesystem.cache_clear()
