"""Signals are put off to a place of the program's choice, and never lost."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import jaxcurate
from jaxcurate.runtime.interruption import postponed_signals

NUMBERS = [signal.SIGTERM, signal.SIGINT]


class Ended(KeyboardInterrupt):
    pass


@pytest.fixture
def handled():
    """Handlers that raise, as those of the command line do."""

    def handler(number, frame):
        raise Ended(number)

    before = {number: signal.signal(number, handler) for number in NUMBERS}
    yield handler
    assert all(signal.getsignal(number) is handler for number in NUMBERS)
    for number, old in before.items():
        signal.signal(number, old)


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_is_delivered_where_the_program_says(handled, number):
    reached = []
    with pytest.raises(Ended), postponed_signals() as interruption:
        interruption.deliver()
        assert not interruption.asked
        send(number)
        assert interruption.asked
        reached.append("after")
        interruption.deliver()
        reached.append("never")
    assert reached == ["after"]


def test_a_signal_that_was_not_delivered_is_delivered_at_the_end(handled):
    reached = []
    with pytest.raises(Ended):
        with postponed_signals():
            send(signal.SIGTERM)
            reached.append("within")
        reached.append("never")
    assert reached == ["within"]


def test_a_second_signal_is_not_put_off(handled):
    with pytest.raises(Ended), postponed_signals():
        send(signal.SIGTERM)
        send(signal.SIGINT)
        pytest.fail("the second signal was put off")


def test_an_error_of_the_block_comes_first(handled):
    with pytest.raises(ZeroDivisionError), postponed_signals():
        send(signal.SIGTERM)
        1 / 0  # noqa: B018


def test_an_ignored_signal_stays_ignored(handled):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with postponed_signals() as interruption:
            send(signal.SIGINT)
            assert not interruption.asked
    finally:
        signal.signal(signal.SIGINT, handled)


def test_other_threads_put_nothing_off(handled):
    seen = []

    def work():
        with postponed_signals() as interruption:
            seen.append((interruption.asked, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [(False, handled)]


def test_without_a_handler_the_signal_ends_the_process():
    program = (
        "import os, signal\n"
        "from jaxcurate.runtime.interruption import postponed_signals\n"
        "with postponed_signals() as interruption:\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('saved', flush=True)\n"
        "    interruption.deliver()\n"
        "    print('never')\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(jaxcurate.__file__).parents[1])}
    command = [sys.executable, "-c", program]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert run.returncode == -signal.SIGTERM and run.stdout == "saved\n", run.stderr
