"""The private parts of multiprocessing, on each Python that is installed."""

from __future__ import annotations

import subprocess

import pytest

from tests.support.programs import environment, pythons

PROBE = """
import multiprocessing, os, socket, threading
from multiprocessing import managers
from slave import mp_adapter, wire

assert managers.listener_client[mp_adapter.SERIALIZER] == (wire.Listener, wire.Client)
made = mp_adapter.Manager(("127.0.0.1", 0), b"k" * 16, mp_adapter.Server)
server = made.get_server()
assert isinstance(server, managers.Server) and isinstance(server.listener, wire.Listener)
assert server.listener.address[1] > 0 and server.public == ["accept_connection"]
asked = []
proxy = mp_adapter.Proxy("tasks", server.listener.address, b"k" * 16, lambda *call: asked.append(call) or "answer")
assert isinstance(proxy, managers.BaseProxy)
assert proxy._callmethod("fetch", (1,)) == "answer" and asked == [("fetch", (1,))]
del proxy
server.listener.close()

if hasattr(os, "fork"):
    context = multiprocessing.get_context("fork")
    first, second = mp_adapter.next_identity(), mp_adapter.next_identity()
    assert first != second

    def seen():
        mp_adapter.set_parent(4711)
        assert multiprocessing.current_process()._identity == second and multiprocessing.current_process().name == "me"
        assert multiprocessing.parent_process().pid == 4711

    process = context.Process(target=seen, name="me")
    mp_adapter.set_identity(process, second)
    process.start()
    process.join()
    assert process.exitcode == 0
print("ok")
"""


@pytest.mark.parametrize("version, python", pythons())
def test_what_we_use_of_it_is_there(version: str, python: str) -> None:
    done = subprocess.run(
        [python, "-W", "error", "-c", PROBE], env=environment(), capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr
