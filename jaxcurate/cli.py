"""Command line: flags, configuration, and errors in one line.

It is the only module that turns a ConfigDict into frozen dataclasses, and the only one that turns
an error into a line and an exit code.
"""

import itertools
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from jaxcurate.checks import InputError
from jaxcurate.cli_flags import define_launch, define_plan, flag_lines


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code.

    The exit code is 0 on success, 2 after an error that the user can fix, 130 after SIGINT and
    143 after SIGTERM. Such errors are printed as one line. Any other exception is a bug, and is
    raised.

    Args:
        argv: arguments of the command. Those of the process by default.

    Examples:
        Without arguments it prints the usage to standard error:

        >>> main([])
        2
    """
    argv = sys.argv if argv is None else ["jaxcurate", *argv]
    if len(argv) < 2:
        print(_usage(), file=sys.stderr)
        return 2
    if "--version" in argv[1:]:
        print(metadata.version("jaxcurate"))
        return 0
    if {"-h", "--help", "help"} & set(argv[1:]):
        print(_help(next((word for word in argv[1:] if word in _commands()), "run")))
        return 0
    try:
        with _terminated_by_exception():
            _command(argv)
    except KeyboardInterrupt as interrupt:
        terminated = isinstance(interrupt, _Terminated)
        event = "terminated" if terminated else "interrupted"
        return _ended(f"{event}; the same command continues from here", 143 if terminated else 130)
    except Exception as error:
        line = _line(error)
        if line is None:
            raise
        return _ended(" ".join(line.split()), 2)
    return 0


def _ended(line: str, code: int) -> int:
    """Prints a line, tells it to the other processes of the run, and returns the exit code."""
    print(f"jaxcurate: {line}", file=sys.stderr, flush=True)
    if "jaxcurate.runtime.processes" in sys.modules:  # before, nothing is joined
        from jaxcurate.runtime import processes

        processes.end_all(f"ended: {line}", code)
    return code


def _commands() -> tuple[str, ...]:
    """Returns the names of all commands: a run, each of its stages, its plan and its status."""
    from jaxcurate.pipeline import STAGES  # takes a second, for which `--version` need not wait

    return ("run", *(stage.name for stage in STAGES), "plan", "status")


def _usage() -> str:
    return (
        f"usage: jaxcurate {'|'.join(_commands())} --config=NAME[:ARG] --workdir=DIR "
        "[--config.field=value ...] [--quiet] [--wait]"
    )


class _Terminated(KeyboardInterrupt):
    """Exception of SIGTERM, a KeyboardInterrupt so that the same code cleans up after both."""


@contextmanager
def _terminated_by_exception() -> Iterator[None]:
    """Raises an exception in the block on SIGTERM, so that temporary files are removed."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return

    def terminate(number: int, frame: object) -> None:
        raise _Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _line(error: Exception) -> str | None:
    """Returns the line of an error that the user can fix, or None if the error is a bug."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.errno is not None:
        names = " and ".join(repr(os.fspath(name)) for name in _names(error))
        return f"{error.strerror or type(error).__name__}{': ' if names else ''}{names}"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("jaxcurate"):
        return f"the package {error.name} is needed and not installed: pip install {error.name}"
    if isinstance(error, MemoryError):
        return f"not enough memory ({str(error) or 'no size is known'}): {_SMALLER}"
    if type(error).__name__ == "JaxRuntimeError" and "RESOURCE_EXHAUSTED" in str(error):
        return f"not enough memory on the device ({str(error).splitlines()[0]}): {_SMALLER}"
    return None


_SMALLER = (
    "--config.memory_limit=BYTES streams embeddings, and smaller batches "
    "(config.embed.batch_size, config.evaluate.pretraining.batch_size) take less"
)


def _names(error: OSError) -> list[Any]:
    return [name for name in (error.filename, error.filename2) if isinstance(name, str | bytes)]


def _command(argv: Sequence[str]) -> None:
    given = _parsed(argv)
    # Errors of a store are told in one line; its package would log their tracebacks too.
    logging.getLogger("gcsfs").addHandler(logging.NullHandler())
    # Pictures of too many pixels are left out and listed; Pillow would warn of each of them too.
    warnings.filterwarnings("ignore", "Image size .* could be decompression bomb")
    from jaxcurate.config import Config
    from jaxcurate.dataclass_fields import to_dataclass

    settings = to_dataclass(Config, given.config, "config")

    from jaxcurate.runtime import messages, startup
    from jaxcurate.runtime.progress import Progress

    if given.command == "plan":
        from jaxcurate.pipeline.plan import planned

        startup.set_up_devices(settings.n_devices, "cpu")  # it takes no accelerator from a run
        print(planned(settings, given.values, given.path or None, Progress(given.quiet)))
        return
    if given.command != "status":
        startup.join(given.launch)
    startup.set_up_devices(settings.n_devices, settings.platform)

    from jaxcurate.pipeline.run import Pipeline

    Progress(given.quiet).line(startup.found())
    progress = Progress(given.quiet or not messages.is_first())
    pipeline = Pipeline(settings, given.path, progress, wait=given.wait)
    if given.command == "status":
        for stage, state, where in pipeline.status():
            print(f"{stage:<10}{state:<14}{where}")
        return
    pipeline.run(None if given.command == "run" else (given.command,))
    if given.command == "run":
        progress.line(f"where the time went:\n{progress.where_time_went()}")
    if given.command in ("run", "report") and messages.is_first():
        print(pipeline.path / "report.html")


def _help(command: str) -> str:
    """Returns the usage, and the fields that a command reads, with their meanings."""
    from jaxcurate.config import Config
    from jaxcurate.dataclass_fields import explained
    from jaxcurate.pipeline import STAGES

    reads = {stage.name: (*_DEVICES, *stage.reads) for stage in STAGES}.get(command)
    lines = [
        _usage(),
        *flag_lines(command),
        "",
        f"Fields that `{command}` reads, given as --config.FIELD=VALUE:",
    ]
    for field in explained(Config):
        path = field.path.replace("[0]", "")
        if reads is not None and not any(f"{path}.".startswith(f"{read}.") for read in reads):
            continue
        default = f" = {field.default}" if field.default else ""
        lines.append(f"\n  {field.path}: {field.kind}{default}")
        lines += textwrap.wrap(field.meaning, 92, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)


_DEVICES = ("platform", "n_devices", "mapper")
"""Fields that every command reads."""


class _Arguments(NamedTuple):
    """Command with its configuration and flags."""

    command: str
    """Name of the command."""
    config: dict[str, Any]
    """Configuration as plain values."""
    path: str
    """Work directory."""
    quiet: bool
    """True to print no progress."""
    wait: bool
    """True to wait for the end of another run over the work directory."""
    launch: Any
    """Place of this process among those of the run."""
    values: Any
    """Values of all flags."""


def _parsed(argv: Sequence[str]) -> _Arguments:
    """Returns the command, its configuration and its flags."""
    from absl import flags
    from ml_collections import config_flags

    words = [word for word in argv[1:] if not word.startswith("-")]
    if len(words) == 1 and words[0] not in _commands():
        raise InputError(f"{words[0]!r} is not a command; {_usage()}")
    argv, without = _nones(argv)
    values = flags.FlagValues()
    argv, is_given = _with_path(argv)
    if is_given:
        config = config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    else:
        stored = _stored(argv)
        config = config_flags.DEFINE_config_dict(
            "config", stored, flag_values=values, sys_argv=argv
        )
    path = flags.DEFINE_string("workdir", None, "where the files go", flag_values=values)
    quiet = flags.DEFINE_bool("quiet", False, "no progress", flag_values=values)
    wait = flags.DEFINE_bool("wait", False, "wait for another run's end", flag_values=values)
    launch = define_launch(values)
    if words[:1] == ["plan"]:
        define_plan(values)
    try:
        rest = values(list(argv))
    except KeyError as error:
        raise InputError(f"the configuration has no field {error}") from error
    except IndexError as error:
        given = _indexed(argv)
        raise InputError(
            f"a level that is not there: {given}" if given else _reason(error)
        ) from error
    except Exception as error:  # a configuration is a program, and may fail in any way
        raise InputError(_reason(error)) from error
    if len(rest) != 2 or rest[1] not in _commands():
        raise InputError(f"{' '.join(rest[1:])!r} is not a command; {_usage()}")
    try:
        settings = None if config.value is None else config.value.to_dict()
    except OSError as error:  # the file is read when its value is used
        raise InputError(str(error)) from error
    if settings is None:
        raise InputError(f"--config is missing; {_usage()}")
    if not path.value and rest[1] != "plan":  # which needs no work directory
        raise InputError(f"--workdir is missing; {_usage()}")
    for names in without:
        _set_none(settings, names)
    flags_given = path.value or "", quiet.value, wait.value
    return _Arguments(rest[1], settings, *flags_given, launch(), values)


def _with_path(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Returns the arguments with the path of a configuration that was given by its name, such as
    ``--config=auto:pictures,1000``, and whether a configuration was given."""
    found, is_given = list(argv), False
    for i, argument in enumerate(argv):
        name, equals, value = argument.partition("=")
        if name not in ("--config", "-config"):
            continue
        is_given, at = True, i if equals else i + 1
        value = value if equals else argv[at] if at < len(argv) else ""
        config, colon, rest = value.partition(":")
        if re.fullmatch(r"\w+", config):
            path = f"{_named_config(config)}{colon}{rest}"
            found[at] = f"{name}={path}" if equals else path
        elif config and not config.endswith(".py"):
            raise InputError(
                f"--config={config} is no file NAME.py; --config=auto:SOURCE,SIZE takes a source"
            )
    return found, is_given


def _named_config(name: str) -> Path:
    """Returns the path of a configuration of this package.

    Raises:
        InputError: there is no such configuration.
    """
    package = Path(__file__).parent
    # An installed package has them inside, a checkout beside the package.
    roots = package / "configs", package.parent / "configs"
    folders = [folder for root in roots for folder in (root, root / "published")]
    for folder in folders:
        if (folder / f"{name}.py").is_file():
            return folder / f"{name}.py"
    known = sorted(path.stem for folder in folders for path in folder.glob("*.py"))
    raise InputError(f"--config={name} is no file NAME.py, and not one of {', '.join(known)}")


def _stored(argv: Sequence[str]) -> Any:
    """Returns the configuration that an existing work directory holds.

    Raises:
        InputError: there is none.
    """
    from jaxcurate.config import Config, to_config
    from jaxcurate.dataclass_fields import to_dataclass
    from jaxcurate.pipeline.run_config import stored_settings

    path = None
    for argument, following in itertools.zip_longest(argv, argv[1:]):
        name, equals, value = argument.partition("=")
        if name in ("--workdir", "-workdir"):
            path = value if equals else following
    settings = stored_settings(path) if path else None
    if settings is None:
        where = f", and there is no config.json in {path}" if path else ""
        raise InputError(f"--config is missing{where}; {_usage()}")
    return to_config(to_dataclass(Config, settings, "config"))


_FIELD = re.compile(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def _nones(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """Returns the arguments without fields set to None, which flags cannot be, and these fields.

    Raises:
        InputError: a field is unknown.
    """
    from jaxcurate.config import Config
    from jaxcurate.dataclass_fields import kind_of, may_be_none

    kept, without, rest = [], [], list(argv)
    while rest:
        argument = rest.pop(0)
        given = _FIELD.fullmatch(argument)
        kind = None if given is None else kind_of(Config, given[1], "config")
        apart = given is not None and given[2] is None and rest[:1] == ["None"]
        if given is None or not may_be_none(kind) or not (apart or given[2] == "None"):
            kept.append(argument)
        else:
            without.append(given[1])
            del rest[: int(apart)]
    return kept, without


def _set_none(settings: dict[str, Any], path: str) -> None:
    *above, last = re.findall(r"[^.\[\]]+", path)
    inner: Any = settings
    for step in above:
        inner = inner[int(step)] if step.isdigit() else inner[step]
    inner[last] = None


def _indexed(argv: Sequence[str]) -> str:
    """Returns the flags that index levels."""
    return ", ".join(argument for argument in argv if _FIELD.match(argument) and "[" in argument)


_NO_FIELD = re.compile(r"(\w+)\.__init__\(\) got an unexpected keyword argument '(\w+)'")
_NO_PARENT = re.compile(r"Override (\S+) can not be applied because field \"(\w+)\" is None")
_NO_NAME = re.compile(r"cannot import name '(\w+)' from '(jaxcurate[\w.]*)'")


def _reason(error: BaseException) -> str:
    """Returns the message of an error of a configuration, which names the unknown field or class.

    The traceback that ml_collections writes into such an error is left out.
    """
    from jaxcurate.config import OLD_NAMES, Config
    from jaxcurate.dataclass_fields import dataclasses_in, unknown

    while "Traceback" in str(error) and error.__context__ is not None:
        error = error.__context__
    text, known = str(error), dataclasses_in(Config)
    if isinstance(error, TypeError) and (match := _NO_FIELD.match(text)) and match[1] in known:
        return unknown(known[match[1]], match[2], match[1])
    if isinstance(error, ImportError) and (match := _NO_NAME.match(text)) and match[1] in OLD_NAMES:
        name = f"{match[2]}.{match[1]}"
        return f"{name} is of an older release: write {match[2]}.{OLD_NAMES[match[1]]}"
    if match := _NO_PARENT.match(text):
        return f"config.{match[1]} cannot be set, since {match[2]} is None"
    return f"there is no {text}" if isinstance(error, KeyError) else text
