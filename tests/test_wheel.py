"""The wheel: built from the sdist without a network, complete, and usable on its own."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "persona_mcp"
FOLDERS = ("graphs", "nodes", "state", "server", "config", "migrations")
DATA = (
    "config/minilm/tokenizer.json",
    "config/personas/*.yaml",
    "state/words/*.yaml",
    "server/report/report.html",
    "migrations/script.py.mako",
)
HEAVY = ("langgraph", "chromadb", "sqlalchemy", "onnxruntime", "numpy")
BUILD_S = 120

pytestmark = [
    pytest.mark.wheel,
    pytest.mark.xdist_group("wheel"),  # one process builds it
    pytest.mark.timeout(300),
]


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PERSONA_", "PYTHONPATH", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**inherited, "UV_OFFLINE": "1", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=BUILD_S,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build from a copy, so that no build folder is left in the tree or taken from it."""
    if shutil.which("uv") is None:
        pytest.skip("uv is not installed")
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for name in ("pyproject.toml", project["readme"], *project["license-files"]):
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    for folder in FOLDERS:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored, dirs_exist_ok=True)
    run(
        *("uv", "build", "--no-build-isolation", "--python", sys.executable, "--out-dir", out),
        cwd=copy,
    )
    assert len(list(out.glob("*.tar.gz"))) == 1
    [built] = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel alone in an environment that sees this one's libraries, but not this checkout."""
    environment = tmp_path_factory.mktemp("installed") / "venv"
    run("uv", "venv", "--python", sys.executable, environment, cwd=wheel.parent)
    folder = "Scripts" if os.name == "nt" else "bin"
    python = environment / folder / "python"
    run("uv", "pip", "install", "--no-deps", "--python", python, wheel, cwd=wheel.parent)
    asked = run(
        python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=wheel.parent
    )
    libraries = Path(asked.stdout.strip())
    assert {entry.name.partition("-")[0] for entry in libraries.iterdir()} <= {
        PACKAGE,
        "_virtualenv.py",
        "_virtualenv.pth",
    }
    # It is searched last, and .pth files in it (the editable install's) are not run.
    (libraries / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return environment / folder


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "empty"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def test_the_wheel_holds_the_package_and_its_description_only(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()

    top = {name.partition("/")[0] for name in names}

    assert len(top) == 2
    assert PACKAGE in top
    assert any(re.fullmatch(rf"{PACKAGE}-.+\.dist-info", name) for name in top)


def test_every_source_file_is_in_the_wheel(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}

    written = {
        f"{PACKAGE}/{path.relative_to(ROOT).as_posix()}"
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
    }

    assert inside == written


@pytest.mark.parametrize("pattern", DATA)
def test_the_data_files_are_in_the_wheel(wheel: Path, pattern: str) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())

    wanted = {f"{PACKAGE}/{path.relative_to(ROOT).as_posix()}" for path in ROOT.glob(pattern)}

    assert wanted
    assert wanted <= inside


def test_a_database_is_made_from_the_wheel(installed: Path, empty: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"

    for _ in ("made", "made already"):
        run(installed / "persona", "db", "upgrade", cwd=empty, PERSONA_DATA_DIR=str(data))

    assert (data / "persona.db").exists()


def test_help_of_the_wheel_loads_no_heavy_library(installed: Path, empty: Path) -> None:
    code = (
        "import sys\n"
        "from persona_mcp.server.cli.app import main\n"
        "sys.argv = ['persona', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        f"found = sorted(set({HEAVY!r}) & sys.modules.keys())\n"
        "import persona_mcp.server.cli.app as cli\n"
        "sys.exit(f'{found} {cli.__file__}' if found or 'venv' not in cli.__file__ else 0)\n"
    )

    run(installed / "python", "-P", "-c", code, cwd=empty)


def test_the_wheel_runs_its_own_code_and_knows_its_version(installed: Path, empty: Path) -> None:
    code = (
        "import importlib.metadata, persona_mcp.state.errors as e\n"
        "print(importlib.metadata.version('persona-mcp'), e.__file__)\n"
    )

    version, _, where = run(installed / "python", "-c", code, cwd=empty).stdout.partition(" ")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert version == project["version"]
    assert Path(where.strip()).is_relative_to(installed.parent)
