"""Imports point down one list of folders, no file is long, and public functions have examples."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest

import jaxcurate

ROOT = Path(jaxcurate.__file__).parent
ORDER = (
    *("__main__", "cli", "cli_flags", "pipeline", "planning", "report", "config", "evaluation"),
    *("training", "encoders", "export", "sources", "models", "curation", "neighbors", "kmeans"),
    *("artifacts", "runtime", "dataclass_fields", "stateless_random", "checks"),
)
"""Folders and loose modules from the top down; each imports only from those after it."""
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in ROOT.rglob("*.py")
}
PUBLIC = (
    *("jaxcurate", "jaxcurate.kmeans", "jaxcurate.curation", "jaxcurate.neighbors"),
    *("jaxcurate.artifacts", "jaxcurate.sources", "jaxcurate.encoders", "jaxcurate.models"),
    *("jaxcurate.planning", "jaxcurate.training"),
    *("jaxcurate.evaluation", "jaxcurate.export", "jaxcurate.report"),
)
"""Packages whose `__all__` names the public functions."""


def imports(path):
    """Yields the modules of the package that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "jaxcurate":
            below = node.module.removeprefix("jaxcurate").strip(".")
            for name in node.names:
                module = f"{below}.{name.name}".strip(".")
                yield module if module in MODULES else below


def test_imports_point_down():
    for module, path in MODULES.items():
        place = module.split(".")[0]
        if module == "__init__":
            continue
        for other in filter(None, imports(path)):
            there = other.split(".")[0]
            assert place == there or ORDER.index(place) < ORDER.index(there), (module, other)


def test_no_circle_within_a_folder():
    done, open_ = set(), []

    def visit(module):
        if module in open_:
            raise AssertionError(" -> ".join([*open_[open_.index(module) :], module]))
        if module in done or module not in MODULES:
            return
        open_.append(module)
        for other in imports(MODULES[module]):
            visit(other)
        done.add(open_.pop())

    for module in MODULES:
        visit(module)


def test_files_are_short_and_few_are_loose():
    loose = [module for module in MODULES if "." not in module]
    assert len(loose) <= 8, loose
    for path in MODULES.values():
        assert len(path.read_text().splitlines()) <= 400, path


@pytest.mark.parametrize("package", PUBLIC)
def test_every_public_function_has_an_example(package):
    module = importlib.import_module(package)
    public = {name: getattr(module, name) for name in module.__all__}
    functions = {name: value for name, value in public.items() if inspect.isroutine(value)}
    without = [name for name, value in functions.items() if ">>>" not in (value.__doc__ or "")]
    assert not without, f"functions of {package} without an example: {', '.join(without)}"
