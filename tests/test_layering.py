"""Who may import whom: the floors of the house, read from the sources."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FORBIDDEN = {
    "schemas": {"captioner", "jobs", "torch", "torchvision", "dask", "distributed", "pandas"},
    "captioner": {"schemas", "jobs", "dask", "distributed", "pandas"},
    "jobs": set[str](),
}
DASK_IS_FOR = {"jobs/cluster.py", "jobs/drive.py"}


def imports(path: Path) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_only_what_it_stands_on(package: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name, _ in imports(path)
        if name.split(".")[0] in FORBIDDEN[package]
    ]
    assert not wrong


def test_the_captioner_does_not_import_its_training() -> None:
    wrong = [
        f"{path.name} imports {name}"
        for path in (ROOT / "captioner").glob("*.py")
        for name, _ in imports(path)
        if name.startswith("captioner.training")
    ]
    assert not wrong


def test_dask_is_imported_only_where_it_wires() -> None:
    users = {
        str(path.relative_to(ROOT))
        for path in sources("jobs")
        for name, _ in imports(path)
        if name.split(".")[0] in {"dask", "distributed"}
    }
    assert users == DASK_IS_FOR


def test_relative_imports_are_not_used() -> None:
    for package in FORBIDDEN:
        for path in sources(package):
            tree = ast.walk(ast.parse(path.read_text()))
            assert not [n for n in tree if isinstance(n, ast.ImportFrom) and n.level], path
