"""Who may import whom: the floors of the house, read from the sources."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ALLOWED = {  # a room of jobs -> the rooms below it
    "messages": set[str](),
    "clock": set[str](),
    "errors": set[str](),
    "sigterm": {"errors"},
    "storage": {"errors"},
    "toml_file": {"errors"},
    "config": {"errors", "toml_file", "storage"},
    "sources": {"errors", "storage"},
    "fetching": {"errors", "storage"},
    "table": {"errors", "storage"},
    "rows": {"errors", "storage", "table"},
    "planning": {"errors", "config", "storage", "sources", "table", "rows"},
    "pipeline": {"errors", "config", "storage", "fetching", "table"},
    "publish": {"errors", "storage", "fetching", "table", "rows", "quality"},
    "execution": {"errors", "config", "storage", "fetching", "table", "planning", "pipeline"},
    "calibrations": {"errors", "config", "storage", "table"},
    "verify": {
        *("errors", "storage", "fetching", "table", "pipeline", "execution", "publish"),
        "calibrations",
    },
    "quality": {"errors", "config", "storage", "table"},
    "ending": {"errors", "config", "storage", "table", "execution", "publish", "quality"},
    "run": {
        *(
            "calibrations",
            "ending",
            "errors",
            "config",
            "storage",
            "sources",
            "table",
            "planning",
            "pipeline",
        ),
        *("execution", "publish"),
    },
    "cli": {
        *("errors", "toml_file", "config", "storage", "table", "rows", "publish", "quality"),
        *("run", "preview", "caption", "calibrations", "verify"),
    },
    "demo": {"errors", "config", "run", "cli"},
    "__init__": {"config", "run"},
    "__main__": {"cli"},
}
ALLOWED["estimate"] = {"config", "planning", "pipeline", "execution"}
ALLOWED["preview"] = ALLOWED["run"] | {"estimate"}
for rooms in ALLOWED.values():
    rooms |= {"messages", "clock", "sigterm"}
ALLOWED["caption"] = {"storage", "sources", "pipeline", "execution"}
USES_THE_MODEL = {
    "errors",
    "config",
    "planning",
    "pipeline",
    "execution",
    "publish",
    "calibrations",
    "caption",
    "verify",
    "cli",
}
DASK_IS_FOR = ("execution/cluster/", "execution/settling.py", "execution/worker/batches.py")


def imports(path: Path, types: bool = True) -> Iterator[str]:
    """Yield the names that a file imports; those for `types` alone only if wanted."""
    tree = ast.parse(path.read_text())
    for_types = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types and not types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.module and not node.level, f"{path} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def top(name: str) -> str:
    """The package that a name belongs to: jobs and schemas are installed in captioner."""
    first, *rest = name.split(".")
    return rest[0] if first == "captioner" and rest and rest[0] in ("jobs", "schemas") else first


def rooms_used(path: Path) -> set[str]:
    names = (name.split(".") for name in imports(path) if top(name) == "jobs")
    return {parts[2] if len(parts) > 2 else "__init__" for parts in names}


def room(path: Path) -> str:
    return path.relative_to(ROOT / "jobs").parts[0].removesuffix(".py")


def test_every_room_of_jobs_has_its_place() -> None:
    assert {room(path) for path in sources("jobs")} == set(ALLOWED)


@pytest.mark.parametrize("name", ALLOWED)
def test_a_room_of_jobs_imports_only_what_lies_below_it(name: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {used}"
        for path in sources("jobs")
        if room(path) == name
        for used in rooms_used(path) - ALLOWED[name] - {name}
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["captioner", "schemas"])
def test_the_model_and_the_schemas_stand_alone(package: str) -> None:
    foreign = {"captioner", "schemas", "jobs", "dask", "distributed", "pandas"} - {package}
    foreign |= {"torch", "torchvision"} if package == "schemas" else set()
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources(package)
        for name in imports(path)
        if top(name) in foreign
    ]
    assert not wrong


def test_the_captioner_does_not_import_its_training() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in sources("captioner")
        for name in imports(path)
        if name.startswith("captioner.training") and "training" not in path.parts
    ]
    assert not wrong


def test_the_model_is_used_only_where_images_are_captioned_or_named() -> None:
    users = {room(p) for p in sources("jobs") for name in imports(p) if top(name) == "captioner"}
    assert users == USES_THE_MODEL


def test_only_a_query_photograph_is_encoded_where_people_publish() -> None:
    light = ("captioner.errors.", "captioner.image.", "captioner.calibration.")
    users = {
        path.name
        for path in sources("jobs/publish")
        for name in imports(path)
        if top(name) == "captioner" and not name.startswith(light)
    }
    assert users == {"photograph.py"}


def test_dask_is_imported_only_where_it_wires() -> None:
    users = {
        str(path.relative_to(ROOT / "jobs"))
        for path in sources("jobs")
        for name in imports(path)
        if top(name) in {"dask", "distributed"}
    }
    assert {user for user in users if not user.startswith(DASK_IS_FOR)} == set()


def module_of(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name if name.startswith("captioner.") else f"captioner.{name}"


def test_no_import_goes_in_a_circle() -> None:
    files = [path for package in ("captioner", "jobs", "schemas") for path in sources(package)]
    modules = {module_of(path): path for path in files}
    graph = {
        module: {
            name
            for used in imports(path, types=False)
            for name in (used, used.rpartition(".")[0])
            if name in modules
        }
        for module, path in modules.items()
    }
    assert list(TopologicalSorter(graph).static_order())


def test_one_module_has_one_name() -> None:
    users = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in ("captioner", "jobs", "schemas", "tests")
        for path in sources(package)
        for name in imports(path)
        if name.split(".")[0] in {"jobs", "schemas"}
    ]
    assert not users
