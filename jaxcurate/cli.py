"""The command line: flags, configuration, errors in one line.

The only place where a ConfigDict is turned into plain frozen dataclasses.
"""

import os
import sys
from collections.abc import Sequence
from typing import Any

from jaxcurate.checks import InputError

COMMANDS = (
    *("run", "embed", "dedup", "cluster", "sample", "export", "evaluate", "report", "grow"),
    "status",
)
USAGE = (
    f"jaxcurate {'|'.join(COMMANDS)} --config=configs/NAME.py[:ARG] --workdir=DIR "
    "[--config.field=value ...] [--quiet]"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 0, or 2 for bad input, told in one line."""
    argv = sys.argv if argv is None else ["jaxcurate", *argv]
    if len(argv) < 2 or argv[1] in ("-h", "--help", "help"):
        print(f"usage: {USAGE}", file=sys.stdout if len(argv) > 1 else sys.stderr)
        return 0 if len(argv) > 1 else 2
    try:
        _command(argv)
    except (ValueError, OSError) as error:
        print(f"jaxcurate: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxcurate: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def _command(argv: Sequence[str]) -> None:
    command, config, path, quiet = _parsed(argv)
    from jaxcurate.plain import to_dataclass
    from jaxcurate.settings import Settings

    settings = to_dataclass(Settings, config, "config")
    _set_up_devices(settings.n_devices)

    from jaxcurate import parallel
    from jaxcurate.pipeline import Pipeline
    from jaxcurate.progress import Progress

    parallel.mapper = settings.mapper
    progress = Progress(quiet)
    pipeline = Pipeline(settings, path, progress)
    if command == "status":
        for stage, state, where in pipeline.status():
            print(f"{stage:<10}{state:<14}{where}")
        return
    pipeline.run(None if command == "run" else (command,))
    if command == "run":
        progress.line(f"where the time went:\n{progress.where_time_went()}")
    if command in ("run", "report"):
        print(pipeline.path / "report.html")


def _parsed(argv: Sequence[str]) -> tuple[str, dict[str, Any], str, bool]:
    """The command, the configuration as plain values, the work directory, and ``--quiet``."""
    from absl import flags
    from ml_collections import config_flags

    values = flags.FlagValues()
    config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=list(argv))
    path = flags.DEFINE_string("workdir", None, "where the files go", flag_values=values)
    quiet = flags.DEFINE_bool("quiet", False, "no progress", flag_values=values)
    try:
        rest = values(list(argv))
    except KeyError as error:
        raise InputError(f"the configuration has no field {error}") from error
    except Exception as error:  # a configuration is a program, and may fail in any way
        raise InputError(_reason(error)) from error
    if len(rest) != 2 or rest[1] not in COMMANDS:
        raise InputError(f"{' '.join(rest[1:])!r} is not a command; usage: {USAGE}")
    if config.value is None:
        raise InputError(f"--config is missing; usage: {USAGE}")
    if not path.value:
        raise InputError(f"--workdir is missing; usage: {USAGE}")
    return rest[1], config.value.to_dict(), path.value, quiet.value


def _reason(error: BaseException) -> str:
    """What an error says, without the traceback that ml_collections writes into a config's own."""
    while "Traceback" in str(error) and error.__context__ is not None:
        error = error.__context__
    return str(error)


def _set_up_devices(n_devices: int) -> None:
    """On a CPU, makes a device of each core: a run of the comparison then has one to itself."""
    import jax

    if jax.config.jax_num_cpu_devices < 0:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", n_devices or min(cores or 1, 8))


if __name__ == "__main__":
    sys.exit(main())
