"""``python -m jaxcurate``, and the command ``jaxcurate``."""

import os
import sys
from typing import NoReturn

from jaxcurate.cli import main


def exit_with_code() -> NoReturn:
    """Runs a command and ends the process with its exit code.

    After a signal the process ends at once: threads of XLA may still be computing, and crash while
    the interpreter takes down what they use.
    """
    code = main()
    if code in (130, 143):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    exit_with_code()
