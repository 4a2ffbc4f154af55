"""Connection of the processes of a run, before jax starts, at the address of the coordinator.

Process 0 listens at this address until all processes have connected, and then leaves the port to
jax. The connections stay open for :mod:`jaxcurate.runtime.monitor`, so that no second port has to
be reachable.
"""

import os
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from jaxcurate.checks import InputError
from jaxcurate.runtime.channel import Channel, Message, ready
from jaxcurate.runtime.facts import Facts, differences

_RETRY_SECONDS = 0.1
_MOST_NAMED = 20


@dataclass(frozen=True)
class Member:
    """Process of the run."""

    process: int
    """Index of the process, from 0."""
    host: str
    """Name of its machine."""
    pid: int
    """Process id on that machine."""

    def __str__(self) -> str:
        return f"process {self.process} (pid {self.pid} on {self.host})"


@dataclass(frozen=True)
class Party:
    """Processes of a run, and the connections of this process."""

    me: Member
    """This process."""
    members: dict[int, Member]
    """All processes, by their indices."""
    channels: dict[int, Channel]
    """Connections by the index of the other process: in process 0 to all, in others to process
    0."""


def meet(
    address: str, n: int, process: int, facts: Facts, seconds: float, bind: str | None = None
) -> Party:
    """Connects to the other processes, and waits until all have connected with the same facts.

    Args:
        address: ``host:port`` of process 0.
        n: Number of processes.
        process: Index of this process, from 0.
        facts: Facts that have to be the same in all processes.
        seconds: Longest time to wait.
        bind: ``host:port`` on which process 0 listens. By default the port of ``address`` on all
            interfaces.

    Returns:
        The processes, and the connections of this process.

    Raises:
        InputError: Processes did not connect in time, or facts differ; the message names both.
    """
    me = Member(process, socket.gethostname(), os.getpid())
    facts = facts | {"num_processes": str(n)}
    if process == 0:
        return _host(address, bind, n, me, facts, seconds)
    return _visit(address, me, facts, seconds)


def _host(
    address: str, bind: str | None, n: int, me: Member, facts: Facts, seconds: float
) -> Party:
    listener = _listener(bind or f"[::]:{split_address(address)[1]}")
    there: dict[int, tuple[Channel, Message]] = {}
    strangers: list[Channel] = []
    end = time.monotonic() + seconds

    def refuse(line: str) -> InputError:
        for channel, _ in there.values():
            channel.send({"refused": line})
        return InputError(line)

    with listener:
        while len(there) < n - 1:
            left = end - time.monotonic()
            if left <= 0:
                line = _missing(set(range(1, n)) - set(there), n, seconds)
                apart = differences(_said(facts, there))
                raise refuse(line if apart is None else f"{line}; {apart}")
            waiting = [listener, *strangers, *(channel for channel, _ in there.values())]
            for source in ready(waiting, min(left, 1)):
                if source is listener:
                    strangers.append(Channel(listener.accept()[0]))
                    continue
                messages, is_open = source.receive()
                if source not in strangers or not (messages or is_open):
                    # A process that had connected is gone, and may be started again; or the other
                    # end is a program that does not belong to the run.
                    there = {p: came for p, came in there.items() if came[0] is not source}
                    strangers = [stranger for stranger in strangers if stranger is not source]
                    source.close()
                    continue
                if not messages:
                    continue
                strangers.remove(source)
                line = _unwelcome(messages[0], there, n, me)
                if line is not None:
                    source.send({"refused": line})
                    raise refuse(line)
                there[messages[0]["process"]] = source, messages[0]
    for stranger in strangers:
        stranger.close()
    if (line := differences(_said(facts, there))) is not None:
        raise refuse(line)
    members = {0: me} | {
        p: Member(p, hello["host"], hello["pid"]) for p, (_, hello) in sorted(there.items())
    }
    for channel, _ in there.values():
        channel.send({"members": [asdict(member) for member in members.values()]})
    return Party(me, members, {p: channel for p, (channel, _) in there.items()})


def _said(facts: Facts, there: Mapping[int, tuple[Channel, Message]]) -> dict[int, Facts]:
    return {0: facts} | {p: hello["facts"] for p, (_, hello) in sorted(there.items())}


def _unwelcome(
    hello: Message, there: Mapping[int, tuple[Channel, Message]], n: int, me: Member
) -> str | None:
    """Returns a message that says why a process cannot take part, or None if it can."""
    process: Any = hello.get("process")
    newcomer = f"pid {hello.get('pid')} on {hello.get('host')}"
    if process == 0 or process in there:
        first = there[process][1] if process in there else asdict(me)
        return (
            f"process_id={process} is there twice: pid {first['pid']} on {first['host']}, and "
            f"{newcomer}"
        )
    if not isinstance(process, int) or not 0 < process < n:
        return f"process_id={process} of {newcomer} is not within [0, {n}), num_processes={n}"
    return None


def _missing(missing: set[int], n: int, seconds: float) -> str:
    named = ", ".join(map(str, sorted(missing)[:_MOST_NAMED]))
    more = ", ..." if len(missing) > _MOST_NAMED else ""
    return f"{len(missing)} of {n} processes did not come within {seconds:g} s: {named}{more}"


def _visit(address: str, me: Member, facts: Facts, seconds: float) -> Party:
    end = time.monotonic() + seconds
    reason = "there was no time"
    while time.monotonic() < end:
        try:
            connection = socket.create_connection(split_address(address), timeout=_within(end))
        except OSError as error:
            reason = str(error)
            time.sleep(_RETRY_SECONDS)
            continue
        channel = Channel(connection)
        channel.send(asdict(me) | {"facts": facts})
        answer = _answer(channel, seconds)
        if "refused" in answer:
            raise InputError(answer["refused"])
        if "members" in answer:
            members = {fields["process"]: Member(**fields) for fields in answer["members"]}
            return Party(me, members, {0: channel})
        channel.close()
        reason = "a program that is not process 0 of this run, or it ended"
        time.sleep(_RETRY_SECONDS)
    raise InputError(
        f"process 0 did not come to {address} within {seconds:g} s ({reason}); start it, or give "
        "the coordinator_address at which it runs"
    )


def _within(end: float) -> float:
    return max(0.1, min(5.0, end - time.monotonic()))


def _answer(channel: Channel, seconds: float) -> dict[str, Any]:
    """Returns the answer of process 0, or an empty one if none comes in time."""
    # Process 0 counts the seconds from its own start, and is to be the first to give up.
    end = time.monotonic() + seconds + 10
    while time.monotonic() < end:
        if ready([channel], 1):
            messages, is_open = channel.receive()
            if messages or not is_open:
                return messages[0] if messages else {}
    return {}


def split_address(address: str) -> tuple[str, int]:
    """Returns the host and the port of ``host:port``.

    Args:
        address: Host name, IPv4 address, or IPv6 address in brackets, and port.

    Raises:
        InputError: The host or the port is missing.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"coordinator_address={address!r} must be host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _listener(bind: str) -> socket.socket:
    host, port = split_address(bind)
    try:
        if host == "::" and socket.has_dualstack_ipv6():
            return socket.create_server(
                ("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024
            )
        family = socket.AF_INET6 if ":" in host and host != "::" else socket.AF_INET
        return socket.create_server(
            ("" if host == "::" else host, port), family=family, backlog=1024
        )
    except OSError as error:
        raise InputError(f"process 0 cannot listen on {bind}: {error}") from error
