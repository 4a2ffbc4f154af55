"""The report on a run: one self-contained HTML page."""

from jaxcurate.report.findings import Findings
from jaxcurate.report.page import is_report, is_whole, render

__all__ = ["Findings", "is_report", "is_whole", "render"]
