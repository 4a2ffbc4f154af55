"""Judges from heartbeats which process of a run holds up the others."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from jaxcurate.runtime.rendezvous import Member

_BUSY_FRACTION = 0.01
_LEAST_BUSY_SECONDS = 0.05


@dataclass(frozen=True)
class Beat:
    """Heartbeat, in which a process tells of itself."""

    steps: int
    """Number of common steps that it has begun."""
    step: str
    """Name of the latest step."""
    busy: float
    """Seconds of CPU time that it has used, apart from those of its monitor."""
    moved: int
    """Pages and blocks that it has read from, or written to, a disk."""
    line: str
    """Line of Python at which its main thread is."""
    in_jax: bool
    """Whether the main thread is within jax: it compiles, or waits for a device."""


@dataclass(frozen=True)
class Seen:
    """Knowledge that process 0 has of one process, in seconds of its own clock."""

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
    """Whether its program has come to its end."""


def first_seen(member: Member, now: float) -> Seen:
    """Returns what is known of a process that has just come."""
    beat = Beat(0, "the start", 0.0, 0, "its start", False)
    return Seen(member, beat, now, now, now, beat)


def updated(seen: Seen, beat: Beat, now: float) -> Seen:
    """Returns what is known after another heartbeat."""
    stepped = now if beat.steps > seen.beat.steps else seen.stepped
    least = max(_LEAST_BUSY_SECONDS, _BUSY_FRACTION * (now - seen.active))
    busy = beat.busy - seen.then.busy > least
    seen = replace(seen, beat=beat, heard=now, stepped=stepped)
    moved = beat.moved > seen.then.moved
    if not seen.left and (stepped == now or busy or moved or beat.in_jax):
        seen = replace(seen, active=now, then=beat)
    return seen


def told_of(member: Member, beat: Beat, what: str, silence: float) -> str:
    """Returns the line that names a process and says where it was."""
    return (
        f"{member} {what}; last heard of {silence:.1f} s ago, after step {beat.steps} "
        f"({beat.step}), at {beat.line}"
    )


def verdict(
    seen: Mapping[int, Seen], now: float, heartbeat_seconds: float, stall_seconds: float
) -> str | None:
    """Returns a line on the process that the others wait for in vain, or None.

    Args:
        seen: what is known of each process.
        now: the present time.
        heartbeat_seconds: a process that was silent for longer has stopped.
        stall_seconds: a process that did nothing for longer, while another that is ahead of it
            took no step for as long, is stuck; 0 for never.
    """
    present = [one for one in seen.values() if not one.left]
    silent = [one for one in present if now - one.heard > heartbeat_seconds]
    if silent:
        one = min(silent, key=lambda one: one.heard)
        return told_of(one.member, one.beat, "no longer answers", now - one.heard)
    waiting = [one for one in present if stall_seconds and now - one.stepped > stall_seconds]
    if not waiting:
        return None
    ahead = max(waiting, key=lambda one: one.beat.steps)
    # A process whose heartbeats are late may be stopped, which shows by itself before long.
    behind = [
        one
        for one in seen.values()
        if one.beat.steps < ahead.beat.steps
        and now - one.active > stall_seconds
        and (one.left or now - one.heard < heartbeat_seconds / 3)
    ]
    if not behind:
        return None
    one = min(behind, key=lambda one: one.beat.steps)
    what = "has ended its program" if one.left else "is stuck: it used no CPU or disk"
    return (
        f"{one.member} {what} for {now - one.active:.0f} s after step {one.beat.steps} "
        f"({one.beat.step}), at {one.beat.line}, while process {ahead.member.process} waits for "
        f"it in step {ahead.beat.steps} ({ahead.beat.step})"
    )
