"""What processes say of each other, without any process: facts, verdicts, messages."""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest

from jaxcurate import Level
from jaxcurate.checks import InputError
from jaxcurate.runtime import processes, relay, steps
from jaxcurate.runtime.channel import Channel, ready
from jaxcurate.runtime.devices import ONE_DEVICE
from jaxcurate.runtime.facts import code_facts, described, differences
from jaxcurate.runtime.rendezvous import Member, meet, split_address
from jaxcurate.runtime.verdict import Beat, first_seen, updated, verdict

BEAT = Beat(steps=5, step="fetch", busy=1.0, moved=7, line="a.py:1 (f)", in_jax=False)


def seen_at(times, changed=lambda beat, now: beat, process=1):
    """What is known of a process after heartbeats at the given times."""
    seen = first_seen(Member(process, "host", 100 + process), 0.0)
    for now in times:
        seen = updated(seen, changed(BEAT, now), now)
    return seen


def test_equal_facts_do_not_differ():
    assert differences({0: {"a": "1"}, 1: {"a": "1"}}) is None


def test_all_processes_that_differ_are_named():
    facts = {process: {"a": str(process // 2), "b": "same"} for process in range(4)}
    assert differences(facts) == (
        "a is not the same in all processes: process 2 has a=1, process 3 has a=1, "
        "process 0 has a=0"
    )
    facts = {0: {"a": "1"}} | {process: {"a": "2"} for process in range(1, 100)}
    assert "process 4 has a=2, 95 more differ, process 0 has a=1" in differences(facts)


def test_a_fact_that_one_process_lacks_differs():
    assert "process 1 has a=nothing" in differences({0: {"a": "1"}, 1: {}})


@pytest.mark.parametrize(
    ("value", "other"),
    [
        (3, 4),
        (None, 0),
        ("a", "b"),
        (np.ones((3, 2)), np.ones((3, 2), np.float32)),
        (np.ones((3, 2)), np.zeros((3, 2))),
        (np.ones((3, 2)), np.ones((2, 3))),
        (np.zeros((0, 2)), np.zeros((0, 3))),
        ([Level(3)], [Level(4)]),
        (list(range(10**4)), [*range(10**4 - 1), 0]),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"b": 1}),
        ({"a": [Level(3)]}, {"a": [Level(4)]}),
        (dict.fromkeys(range(10**4), 0), dict.fromkeys(range(10**4), 0) | {10**4 - 1: 1}),
        (np.ones(2), None),
        (print, None),
    ],
)
def test_values_are_described_apart(value, other):
    assert described(value) != described(other)
    assert described(value) == described(value)
    assert len(described(value)) < 500


def test_numbers_are_described_alike_whatever_their_type():
    assert described(np.int64(3)) == described(3) == "3"


def test_the_order_of_the_entries_of_a_mapping_does_not_matter():
    assert described({"a": 1, "b": [2]}) == described({"b": [2], "a": np.int64(1)})


def test_the_description_of_rows_reads_a_few():
    class Rows:
        shape, dtype, read = (10**6, 4), np.dtype(np.float32), 0

        def __len__(self):
            return self.shape[0]

        def __getitem__(self, row):
            self.read += 1
            return np.zeros(4, np.float32)

    rows = Rows()
    described(rows)
    assert 0 < rows.read < 20


def test_code_facts_name_the_versions():
    facts = code_facts()
    assert {"jaxcurate", "python", "jax", "jaxlib", "numpy"} < facts.keys()


def test_within_one_process_nothing_is_compared(devices):
    class Unreadable:
        @property
        def shape(self):
            raise AssertionError("it was read")

    before = steps.taken()
    processes.agree("kmeans", devices, x=Unreadable())
    processes.agree("kmeans", ONE_DEVICE, x=Unreadable())
    assert steps.taken() == before


def test_a_silent_process_is_named():
    seen = {0: seen_at(range(1, 40), process=0), 1: seen_at(range(1, 9)), 2: seen_at(range(1, 30))}
    assert verdict(seen, 37, 30, 0) is None
    assert verdict(seen, 38.5, 30, 0) == (
        "process 1 (pid 101 on host) no longer answers; last heard of 30.5 s ago, after step 5 "
        "(fetch), at a.py:1 (f)"
    )
    seen[1] = replace(seen[1], left=True)
    assert verdict(seen, 38.5, 30, 0) is None


def ahead(process=0):
    return seen_at(range(1, 60), lambda beat, now: replace(beat, steps=6), process)


def test_a_process_that_does_nothing_while_others_wait_is_named():
    seen = {0: ahead(), 1: seen_at(range(1, 60))}
    assert verdict(seen, 45, 30, 45) is None
    line = verdict(seen, 60, 30, 45)
    assert line.startswith("process 1 (pid 101 on host) is stuck: it used no CPU or disk for 59 s")
    assert line.endswith("at a.py:1 (f), while process 0 waits for it in step 6 (fetch)")
    assert verdict(seen, 60, 30, 0) is None  # turned off


@pytest.mark.parametrize(
    "changed",
    [
        lambda beat, now: replace(beat, busy=1 + 0.02 * now),
        lambda beat, now: replace(beat, moved=7 + now),
        lambda beat, now: replace(beat, in_jax=True),
        lambda beat, now: replace(beat, steps=min(5, now // 10)),
    ],
)
def test_a_process_that_works_is_not_stuck(changed):
    assert verdict({0: ahead(), 1: seen_at(range(1, 60), changed)}, 60, 30, 45) is None


def test_a_process_at_rest_that_nobody_waits_for_is_not_stuck():
    assert (
        verdict({0: seen_at(range(1, 60), process=0), 1: seen_at(range(1, 60))}, 60, 30, 9) is None
    )


def test_a_process_whose_monitor_uses_some_cpu_is_stuck():
    idle = lambda beat, now: replace(beat, busy=1 + 0.005 * now)
    assert "is stuck" in verdict({0: ahead(), 1: seen_at(range(1, 60), idle)}, 60, 30, 45)


def test_a_process_that_was_stopped_is_not_told_to_be_stuck():
    assert verdict({0: ahead(), 1: seen_at(range(1, 40))}, 60, 30, 15) is None


def test_a_process_that_left_before_the_others_is_named():
    early = replace(seen_at(range(1, 10)), left=True)
    assert "has ended its program" in verdict({0: ahead(), 1: early}, 60, 30, 45)


def joined():
    """Both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname())
        return near, listener.accept()[0]


def test_messages_arrive_whole_and_in_order():
    one, two = (Channel(end) for end in joined())
    one.send({"a": "x" * 10**5})
    one.send({"b": 1})
    messages = []
    while len(messages) < 2:
        assert ready([two], 5) == [two]
        arrived, is_open = two.receive()
        assert is_open
        messages += arrived
    assert messages == [{"a": "x" * 10**5}, {"b": 1}]
    assert two.receive() == ([], True)
    one.close()
    assert two.receive() == ([], False)
    two.close()


@pytest.mark.parametrize("line", [b"GET / HTTP/1.1\r\n", b"[1]\n", b"\xff\n"])
def test_what_is_no_message_closes_the_connection(line):
    stranger, end = joined()
    channel = Channel(end)
    stranger.sendall(line)
    assert ready([channel], 5)
    assert not channel.receive()[1]
    stranger.close()
    channel.close()


def test_a_connection_that_takes_nothing_does_not_block_for_ever(monkeypatch):
    monkeypatch.setattr("jaxcurate.runtime.channel._SEND_SECONDS", 0.2)
    other, end = joined()
    channel, begun = Channel(end), time.monotonic()
    channel.send({"a": "x" * 10**7})
    assert time.monotonic() - begun < 2
    other.close()
    channel.close()


def test_the_relay_keeps_the_near_end_open():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(split_address(relay.relayed(*listener.getsockname())))
        far = listener.accept()[0]
        near.sendall(b"there")
        assert far.recv(9) == b"there"
        far.sendall(b"back")
        assert near.recv(9) == b"back"
        far.close()
        near.settimeout(0.2)
        with pytest.raises(TimeoutError):
            near.recv(1)
        near.close()


@pytest.mark.parametrize("address", ["host", "host:", ":4000", "host:port"])
def test_an_address_has_a_port(address):
    with pytest.raises(InputError, match="must be host:port"):
        split_address(address)


def test_an_ipv6_address_is_split():
    assert split_address("[::1]:4000") == ("::1", 4000)


def test_a_port_that_is_taken_is_told():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f"process 0 cannot listen on 0.0.0.0:{port}"):
            meet(f"127.0.0.1:{port}", 2, 0, {}, 1, f"0.0.0.0:{port}")


def test_another_program_at_the_address_is_told():
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        def answer():
            with suppress(OSError):  # the listener is closed at the end
                while True:
                    with other.accept()[0] as connection:
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n")

        threading.Thread(target=answer, daemon=True).start()
        with pytest.raises(InputError, match="a program that is not process 0 of this run"):
            meet(address, 2, 1, {}, 0.5)
        other.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("name", ["heartbeat_seconds", "start_seconds", "stall_seconds"])
def test_seconds_are_checked(name):
    with pytest.raises(InputError, match=f"{name}=-1 must be at least"):
        processes.initialize("127.0.0.1:1", 2, 0, **{name: -1})
