"""``python -m jaxcurate``."""

from jaxcurate.cli import exit_with_code

exit_with_code()
