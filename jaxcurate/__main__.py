"""``python -m jaxcurate``."""

import sys

from jaxcurate.cli import main

sys.exit(main())
