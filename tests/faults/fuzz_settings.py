"""Random settings and command lines: accepted rightly or refused in one line, never a traceback.

``run(n, seed)`` tries as many as are wanted, and ``run_commands`` whole command lines;
`tests/test_fuzz_settings.py` tries a few hundred, and those that were found to fail once.
"""

import contextlib
import copy
import dataclasses
import io
import json
import math
import random
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from faults.limits import time_limit

from jaxcurate import cli
from jaxcurate.checks import InputError
from jaxcurate.config import ClusterConfig, Config, GrowConfig, SampleConfig
from jaxcurate.curation.level import Level
from jaxcurate.dataclass_fields import to_dataclass
from jaxcurate.sources import web_like

SECONDS = 20
"""Nothing that is tried may take longer."""
WHOLE = dataclasses.asdict(
    Config(
        "npy:x.npy",
        ClusterConfig((Level(8), Level(3))),
        SampleConfig(10),
        recipe=web_like(),
        grow=GrowConfig("npy:new.npy"),
    )
)
"""Settings that are right, with a value for every field."""
HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 3, 7, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, -(2**63)),
    *(
        10**30,
        10**400,
        10**5000,
        0.0,
        -0.0,
        0.5,
        1.0,
        1.5,
        -1.5,
        1e-320,
        1e308,
        math.inf,
        -math.inf,
    ),
    *(math.nan, 1j, "", " ", "a", "a b", "a/b", "../a", "/", ".", "..", "~", "~nobody-here/x", "-"),
    *("_", "\0", "a\0b", "a\nb", "\r", "\x1b[2J", "\x7f", "\ud800", "\u202e", "é", "²", "a" * 256),
    *(
        "a" * 5000,
        "npy:",
        "npy:\0",
        "folder:",
        "tfds:",
        "tfds:x:y",
        "gs://b/x",
        "npy:gs://b/x",
        ":",
    ),
    *(
        "npy:x.npy",
        "folder:.",
        "cpu",
        "pmap",
        "pixels",
        "png",
        "cosine",
        "random",
        "1",
        "nan",
        "None",
    ),
    *(
        b"",
        b"a",
        (),
        [],
        {},
        set(),
        (1,),
        [1],
        (1, 2),
        [2, 1],
        (0.4, 1.0),
        [None],
        ["a"],
        [[1]],
        {"a": 1},
    ),
    *(
        {1: 2},
        {"name": "a"},
        ("curated", "random"),
        ("pool", "pool"),
        [True, True],
        object,
        range(3),
    ),
)
"""Values of every kind, for fields of any kind."""


def hostile(draw: random.Random) -> dict[Any, Any]:
    """Returns right settings in which some fields are others."""
    settings = copy.deepcopy(WHOLE)
    for _ in range(draw.choice([1, 1, 1, 2, 3, 8])):
        at: Any = settings
        while True:
            keys = list(at) if isinstance(at, dict) else list(range(len(at)))
            if not keys:
                break
            key = draw.choice(keys)
            if draw.random() < 0.03 and isinstance(at, dict):
                if draw.random() < 0.5:
                    del at[key]
                else:
                    at[draw.choice(["unknown", 1, "", "\n", 10**5000, None])] = 1
                break
            inner = at[key]
            if isinstance(inner, tuple):
                at[key] = inner = list(inner)
            if isinstance(inner, dict | list) and draw.random() < 0.8:
                at = inner
                continue
            at[key] = value(draw, inner)
            break
    return settings


def value(draw: random.Random, right: Any) -> Any:
    """Returns a value in the place of a right one."""
    if draw.random() < 0.5:
        return draw.choice(HOSTILE)
    match right:
        case bool():
            return not right
        case int():
            return draw.choice([right + draw.randint(-3, 3), draw.randint(-(2**70), 2**70)])
        case float():
            return draw.choice([right * draw.uniform(-2, 2), draw.uniform(-1e9, 1e9)])
        case str():
            letters = [
                draw.choice([*right, *"a0/\\.:~-\n\0 \u00e9\ud800"])
                for _ in range(draw.randint(0, 40))
            ]
            return "".join(letters)
    return draw.choice([right, [right] * draw.randint(0, 4)])


def check(settings: Any) -> bool:
    """Makes settings of a mapping, or sees it refused; returns whether they were made.

    Raises:
        AssertionError: they were accepted and are not right.
        Exception: any but the one that refuses.
    """
    try:
        with time_limit(SECONDS):
            made = to_dataclass(Config, settings, "config")
    except InputError as error:
        assert len(str(error)) < 20_000, f"{len(str(error))} characters"
        return False
    plain = dataclasses.asdict(made)
    _check_values(plain, "config")
    assert to_dataclass(Config, plain, "config") == made
    assert json.loads(json.dumps(plain, allow_nan=False)) == json.loads(json.dumps(plain))
    for name in (made.sample.name, made.grow.name):
        assert name not in ("", ".", "..") and "/" not in name and len(name.encode()) < 256, name
    return True


def _check_values(at: Any, where: str) -> None:
    """Refuses values that no field may have."""
    if isinstance(at, Mapping):
        for key, inner in at.items():
            _check_values(inner, f"{where}.{key}")
    elif isinstance(at, list | tuple):
        for inner in at:
            _check_values(inner, where)
    elif type(at) is int:
        least = -1 if where.endswith("seed") else 0
        assert least <= at < 2**63, f"{where}={at}"
    elif type(at) is float:
        assert 0 <= at < math.inf, f"{where}={at}"
    elif type(at) is str:
        assert at.isprintable() or not any(ord(c) < 32 or ord(c) == 127 for c in at), where
    else:
        assert at is None or type(at) is bool, f"{where}={at!r}"


def run(n: int, seed: int) -> Counter:
    """Tries ``n`` mappings; returns how many were accepted and how many refused.

    Raises:
        AssertionError: with the mapping, where one was not dealt with rightly.
    """
    draw, counts = random.Random(seed), Counter()
    for number in range(n):
        settings = hostile(draw)
        try:
            counts["accepted" if check(settings) else "refused"] += 1
        except BaseException as error:
            changed = [(k, v) for k, v in settings.items() if v != WHOLE.get(k)]
            raise AssertionError(
                f"{number} of seed {seed}: {error!r}: {_short(changed)}"
            ) from error
    return counts


def flags(draw: random.Random) -> list[str]:
    """Returns the flags of a command line, most of them wrong."""
    paths = [
        "source",
        "seed",
        "cluster.levels",
        "cluster.levels[0].n_clusters",
        "sample.size",
        "title",
    ]
    paths += ["sample.name", "grow.name", "grow.source", "sample.mix", "sample.mix.retrieved"]
    paths += ["evaluate.arms", "evaluate.pretraining.learning_rate", "embed.encoder", "embed", ""]
    paths += [
        "n_devices",
        "memory_limit",
        "image_size",
        "unknown",
        "cluster.unknown",
        "recipe",
        ".",
    ]
    out = []
    for _ in range(draw.choice([1, 1, 2, 4])):
        text = draw.choice(HOSTILE)
        text = text if isinstance(text, str) else _short(text)
        text = draw.choice([text, f"({text},)", f"'{text}'", ""])
        name = draw.choice(
            ["config." + draw.choice(paths)] * 9
            + ["workdir", "quiet", "wait", "flag", "", "config"]
        )
        out.append(draw.choice([f"--{name}={text}"] * 6 + [f"--{name}", text, f"-{name}"]))
    return [flag.replace("\0", draw.choice(["", "0"])) for flag in out]  # no argument holds a NUL


def check_command(place: Path, arguments: list[str]) -> int:
    """Runs ``jaxcurate status`` and returns its exit code, 0 or 2.

    Raises:
        AssertionError: another code, or more than a line of refusal.
        Exception: any: the command raised it.
    """
    said = io.StringIO()
    whole = [
        "status",
        f"--config={place}/config.py:npy:{place}/x.npy",
        f"--workdir={place}/work",
        *arguments,
    ]
    with (
        contextlib.redirect_stderr(said),
        contextlib.redirect_stdout(io.StringIO()),
        time_limit(SECONDS),
    ):
        try:
            code = cli.main(whole)
        except SystemExit as error:
            raise AssertionError(f"SystemExit({error})") from error
    assert code in (0, 2), code
    assert code == 0 or said.getvalue().splitlines()[-1].startswith("jaxcurate: "), said.getvalue()
    assert "Traceback" not in said.getvalue()
    assert not (place / "work").exists(), "status writes"
    return code


def run_commands(place: Path, n: int, seed: int) -> Counter:
    """Tries ``n`` command lines; returns how many ended with each exit code.

    Raises:
        AssertionError: with the flags, where one was not dealt with rightly.
    """
    draw, counts = random.Random(seed), Counter()
    for number in range(n):
        arguments = flags(draw)
        try:
            counts[check_command(place, arguments)] += 1
        except BaseException as error:
            raise AssertionError(
                f"{number} of seed {seed}: {error!r}: {_short(arguments)}"
            ) from error
    return counts


def _short(value: Any) -> str:
    try:
        return repr(value)[:600]
    except ValueError:  # thousands of digits
        return "9" * 5000 if isinstance(value, int) else "a number of thousands of digits"
