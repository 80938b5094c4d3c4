"""The shape of the source: what lies where, what imports what, what must not be in it."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from persona_mcp.server.operations.modules import MODULES
from persona_mcp.server.reference import PAGES, main, stale_pages

ROOT = Path(__file__).parents[1]
FOLDERS = ("graphs", "nodes", "state", "server", "config", "migrations")
PACKAGE = "persona_mcp"
INSTALLED = "node_modules"
MOST_LINES = 400
# Run by Alembic from their files, and tested through every upgrade.
RUN_BY_ALEMBIC = ("migrations",)
# What tests compare the caches of effects and the schema of a saved state with.
CALLED_BY_TESTS = {"refold_arrow", "refold_feelings", "columns_kept"}
TEXTS = ("*.py", "*.md", "*.toml", "*.yaml", "*.yml", "*.json", "*.mako", "Makefile", "run")
MACHINE_PATHS = re.compile(
    r"(?<![\w.~}/-])/(?:work|root|home/\w|Users/\w|opt|mnt)/|[A-Z]:\\Users\\"
)


def package_dirs() -> dict[str, str]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    mapping: dict[str, str] = project["tool"]["setuptools"]["package-dir"]
    return mapping


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        yield from sorted((ROOT / folder).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join((PACKAGE, *parts)).removesuffix(".__init__")


def top_level(path: Path) -> str:
    return path.relative_to(ROOT).parts[0]


def imported_modules(path: Path) -> set[str]:
    names = set[str]()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


def project_texts() -> Iterator[Path]:
    folders = (*FOLDERS, "tests", "benchmarks", "docs", "examples", ".ci")
    yield from (path for path in ROOT.glob("*") if path.suffix in (".md", ".toml", ".json"))
    yield from (ROOT / name for name in ("Makefile", ".env.example", ".gitignore"))
    for folder in folders:
        for pattern in TEXTS:
            found = (ROOT / folder).rglob(pattern)
            yield from (path for path in found if INSTALLED not in path.parts)


def test_every_folder_is_mapped_and_every_mapped_package_is_built() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    folders = {path.parent for path in sources(*FOLDERS)}

    mapping = package_dirs()

    assert set(project["tool"]["setuptools"]["packages"]) == mapping.keys()
    assert {ROOT / folder for folder in mapping.values()} == folders
    assert all(name == module_name(ROOT / folder) for name, folder in mapping.items())


def test_the_links_for_type_checkers_equal_the_package_map() -> None:
    top = {folder for folder in package_dirs().values() if "/" not in folder}
    typings = ROOT / "typings" / PACKAGE

    links = {link.name: os.readlink(link) for link in typings.iterdir()}

    assert links == {folder: f"../../{folder}" for folder in top}


def test_imports_run_one_way() -> None:
    code = (
        "import sys\n"
        "from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(no_cache=True))\n"
    )

    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "typings", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        text=True,
        encoding="utf-8",
    )

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_pages_made_from_the_code_are_fresh(page: str) -> None:
    assert page not in stale_pages(ROOT), f"{page} is stale: run `make docs`"


def test_pages_are_written_and_stale_ones_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"docs/settings\.md, \.env\.example, docs/ref.*; run"):
        main(check=True)

    main(check=False)

    main(check=True)
    assert stale_pages(tmp_path) == []


def test_the_command_that_writes_pages_can_check_them_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "persona_mcp.server.reference"]
    checks = [*command, "--check"]

    before = subprocess.run(checks, cwd=tmp_path, capture_output=True, text=True)
    subprocess.run(command, cwd=tmp_path, check=True)
    after = subprocess.run(checks, cwd=tmp_path, capture_output=True, text=True)

    assert (before.returncode, before.stdout) == (1, "")
    assert before.stderr.startswith("stale: ")
    assert (after.returncode, after.stderr) == (0, "")


def test_no_source_file_is_longer_than_a_reader_takes_in() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines())
        for path in sources(*(folder for folder in FOLDERS if folder != "migrations"))
    }

    assert {name: n for name, n in lengths.items() if n > MOST_LINES} == {}


def test_every_module_is_imported_by_a_test() -> None:
    """By a test itself, or by a module of its own top-level folder that a test imports: a part.

    Those of the operations are imported by their names.
    """
    tests = [p for p in (ROOT / "tests").rglob("*.py") if INSTALLED not in p.parts]
    by_tests = set[str]().union(*map(imported_modules, tests))
    by_name, by_tested = set(MODULES.values()), dict[str, set[str]]()
    modules = list(sources(*(folder for folder in FOLDERS if folder not in RUN_BY_ALEMBIC)))
    for path in modules:
        if module_name(path) in by_tests:
            by_tested.setdefault(top_level(path), set()).update(imported_modules(path))

    untested = [
        module_name(path)
        for path in modules
        if path.name != "__init__.py"
        and module_name(path) not in by_tests | by_name | by_tested.get(top_level(path), set())
    ]

    assert untested == []


def test_every_function_of_a_law_or_step_is_used_by_more_than_its_tests() -> None:
    trees = [ast.parse(path.read_text("utf-8")) for path in sources(*FOLDERS)]
    used = {
        node.id if isinstance(node, ast.Name) else node.attr
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
    }
    made = {
        node.name
        for path in sources("state", "nodes", "graphs")
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list
    }

    assert made - used == CALLED_BY_TESTS


def test_nothing_is_printed_past_the_terminal() -> None:
    calls = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in sources(*FOLDERS)
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("print", "pprint")
    ]

    assert calls == []


def test_nothing_names_a_folder_of_one_machine() -> None:
    found = {
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in project_texts()
        if path != Path(__file__)
        for match in MACHINE_PATHS.finditer(path.read_text("utf-8"))
    }

    assert found == set()
