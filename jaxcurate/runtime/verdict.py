"""Detection, from heartbeats, of the process that the others of a run wait for in vain."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxcurate.runtime.rendezvous import Member

_BUSY_FRACTION = 0.01
_LEAST_BUSY_SECONDS = 0.05


@dataclass(frozen=True)
class Beat:
    """State of a process, which it reports in a heartbeat."""

    steps: int
    """Number of common steps that the process has begun (see :mod:`jaxcurate.runtime.steps`)."""
    step: str
    """Name of the latest common step."""
    busy: float
    """Seconds of CPU time that the process has used, without those of its monitor."""
    moved: int
    """Number of pages and blocks that the process has read from or written to disks."""
    line: str
    """Line of Python that its main thread runs."""
    in_jax: bool
    """True if the main thread is within jax, where it compiles or waits for a device."""


@dataclass(frozen=True)
class Seen:
    """Knowledge that process 0 has of a process, with times in seconds of its own clock."""

    member: Member
    """Process that the knowledge is about."""
    beat: Beat
    """Latest heartbeat."""
    heard: float
    """Time at which the latest heartbeat arrived."""
    stepped: float
    """Time at which the number of steps last rose."""
    active: float
    """Time of the latest heartbeat that showed any activity."""
    then: Beat
    """Latest heartbeat that showed any activity."""
    left: bool = False
    """True if the program of the process has ended."""


def first_seen(member: Member, now: float) -> Seen:
    """Returns the knowledge of a process that has just started."""
    beat = Beat(0, "the start", 0.0, 0, "its start", False)
    return Seen(member, beat, now, now, now, beat)


def updated(seen: Seen, beat: Beat, now: float) -> Seen:
    """Returns the knowledge of a process after another heartbeat.

    Args:
        seen: Knowledge before it.
        beat: Heartbeat that has arrived.
        now: Present time, in seconds.
    """
    stepped = now if beat.steps > seen.beat.steps else seen.stepped
    least = max(_LEAST_BUSY_SECONDS, _BUSY_FRACTION * (now - seen.active))
    busy = beat.busy - seen.then.busy > least
    seen = replace(seen, beat=beat, heard=now, stepped=stepped)
    moved = beat.moved > seen.then.moved
    if not seen.left and (stepped == now or busy or moved or beat.in_jax):
        seen = replace(seen, active=now, then=beat)
    return seen


def last_report(member: Member, beat: Beat, condition: str, silence: float) -> str:
    """Returns a message that names a process, its condition, and the place that it had reached.

    Args:
        member: Process.
        beat: Its latest heartbeat.
        condition: Verb that follows the name of the process, such as "died".
        silence: Seconds since the latest heartbeat.
    """
    return (
        f"{member} {condition}; last heard of {silence:.1f} s ago, after step {beat.steps} "
        f"({beat.step}), at {beat.line}"
    )


def verdict(
    seen: Mapping[int, Seen], now: float, heartbeat_seconds: float, stall_seconds: float
) -> str | None:
    """Returns a message on the process that the others wait for in vain, or None.

    Args:
        seen: Knowledge of each process, by its number.
        now: Present time, in seconds.
        heartbeat_seconds: Time without a heartbeat after which a process counts as stopped.
        stall_seconds: Time without work after which a process counts as stuck, if another process
            that is ahead took no common step for as long; 0 for never.
    """
    present = [peer for peer in seen.values() if not peer.left]
    silent = [peer for peer in present if now - peer.heard > heartbeat_seconds]
    if silent:
        peer = min(silent, key=lambda peer: peer.heard)
        return last_report(peer.member, peer.beat, "no longer answers", now - peer.heard)
    waiting = [peer for peer in present if stall_seconds and now - peer.stepped > stall_seconds]
    if not waiting:
        return None
    ahead = max(waiting, key=lambda peer: peer.beat.steps)
    # A process whose heartbeats are late is left out: it may be stopped, which the check above
    # reports before long.
    behind = [
        peer
        for peer in seen.values()
        if peer.beat.steps < ahead.beat.steps
        and now - peer.active > stall_seconds
        and (peer.left or now - peer.heard < heartbeat_seconds / 3)
    ]
    if not behind:
        return None
    peer = min(behind, key=lambda peer: peer.beat.steps)
    condition = "has ended its program" if peer.left else "is stuck: it used no CPU or disk"
    return (
        f"{peer.member} {condition} for {now - peer.active:.0f} s after step {peer.beat.steps} "
        f"({peer.beat.step}), at {peer.beat.line}, while process {ahead.member.process} waits for "
        f"it in step {ahead.beat.steps} ({ahead.beat.step})"
    )
