"""Judgment, from heartbeats, of the process that holds up the others of a run."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxcurate.runtime.rendezvous import Member

_BUSY_FRACTION = 0.01
_LEAST_BUSY_SECONDS = 0.05


@dataclass(frozen=True)
class Beat:
    """Heartbeat: the state of a process, as it reports it."""

    steps: int
    """Number of common steps that it has begun."""
    step: str
    """Name of the latest step."""
    busy: float
    """Seconds of CPU time that it has used, without those of its monitor."""
    moved: int
    """Pages and blocks that it has read from, or written to, a disk."""
    line: str
    """Line of Python at which its main thread is."""
    in_jax: bool
    """True if the main thread is within jax, where it compiles or waits for a device."""


@dataclass(frozen=True)
class Seen:
    """Knowledge that process 0 has of a process, in seconds of its own clock."""

    member: Member
    beat: Beat
    heard: float
    """Time of the latest heartbeat."""
    stepped: float
    """Time at which the number of steps last rose."""
    active: float
    """Time at which it was last seen to do anything."""
    then: Beat
    """Heartbeat at that time."""
    left: bool = False
    """True if its program has ended."""


def first_seen(member: Member, now: float) -> Seen:
    """Returns the knowledge of a process that has just started."""
    beat = Beat(0, "the start", 0.0, 0, "its start", False)
    return Seen(member, beat, now, now, now, beat)


def updated(seen: Seen, beat: Beat, now: float) -> Seen:
    """Returns the knowledge of a process after another heartbeat."""
    stepped = now if beat.steps > seen.beat.steps else seen.stepped
    least = max(_LEAST_BUSY_SECONDS, _BUSY_FRACTION * (now - seen.active))
    busy = beat.busy - seen.then.busy > least
    seen = replace(seen, beat=beat, heard=now, stepped=stepped)
    moved = beat.moved > seen.then.moved
    if not seen.left and (stepped == now or busy or moved or beat.in_jax):
        seen = replace(seen, active=now, then=beat)
    return seen


def last_report(member: Member, beat: Beat, what: str, silence: float) -> str:
    """Returns a line that names a process and the place that it had reached."""
    return (
        f"{member} {what}; last heard of {silence:.1f} s ago, after step {beat.steps} "
        f"({beat.step}), at {beat.line}"
    )


def verdict(
    seen: Mapping[int, Seen], now: float, heartbeat_seconds: float, stall_seconds: float
) -> str | None:
    """Returns a line on the process that the others wait for without end, or None.

    Args:
        seen: Knowledge of each process, by its number.
        now: Present time, in seconds.
        heartbeat_seconds: Time of silence after which a process has stopped.
        stall_seconds: Time without work after which a process is stuck, if another process that
            is ahead took no step for as long; 0 for never.
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
    # A process whose heartbeats are late may be stopped, which shows by itself before long.
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
    what = "has ended its program" if peer.left else "is stuck: it used no CPU or disk"
    return (
        f"{peer.member} {what} for {now - peer.active:.0f} s after step {peer.beat.steps} "
        f"({peer.beat.step}), at {peer.beat.line}, while process {ahead.member.process} waits for "
        f"it in step {ahead.beat.steps} ({ahead.beat.step})"
    )
