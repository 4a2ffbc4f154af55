"""The scripts of the evidence as modules."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts" / "evidence"))
