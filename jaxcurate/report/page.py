"""From findings to one self-contained HTML page."""

import json

from jaxcurate.report.findings import Findings


def render(findings: Findings) -> str:
    """The page."""
    return f"<html>{findings.made_from}<pre>{json.dumps(findings.results, indent=1)}</pre></html>"
