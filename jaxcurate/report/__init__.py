"""The report: one self-contained page."""

from jaxcurate.report.findings import Findings
from jaxcurate.report.page import render

__all__ = ["Findings", "render"]
