"""What is imported is declared, so that an update of somebody else's dependencies takes nothing away."""

import ast
import re
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OWN = ("caliber_pipeline", "caliber_pipeline_tests")
PARTS = {"pydantic_core"}  # of another package, which pins it: to declare it too could only break the two apart
NAME = re.compile(r"[\w.-]+")


def find_imported(folder: Path) -> set[str]:
    """The top-level modules that the folder's code imports, wherever in a file it does."""
    return {
        name.partition(".")[0]
        for path in folder.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        for name in _names(node)
    }


def _names(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield node.module or ""


def list_declared() -> set[str]:
    """The packages that pyproject.toml names, in whatever extra."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [
        *project["dependencies"],
        *(line for extra in project["optional-dependencies"].values() for line in extra),
    ]
    return {_canonical(match[0]) for line in requirements if (match := NAME.match(line))}


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.mark.parametrize("folder", OWN)
def test_every_package_that_is_imported_is_declared(folder: str) -> None:
    declared, distributions = list_declared(), packages_distributions()
    installed = (find_imported(ROOT / folder) & distributions.keys()) - PARTS - {*OWN}
    assert {name for name in installed if declared.isdisjoint(map(_canonical, distributions[name]))} == set()
