"""The files for whoever runs a server: whole, in step with the code, and without a secret."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from persona_mcp.config.settings import Settings
from persona_mcp.config.variables import variables_of
from persona_mcp.server.cli.app import app

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "packaging"
CONTAINER, UNIT = FOLDER / "Containerfile", FOLDER / "persona.service"
COMPOSE = FOLDER / "compose.yaml"
INSTRUCTIONS = {
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "RUN",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
}
VARIABLE = re.compile(r"\bPERSONA_[A-Z_]*[A-Z]\b")
NEEDED = re.compile(r"\$\{([A-Z_]+)(:\?|:-)?")
SERVICES = {"persona", "postgres", "chroma", "ollama", "prometheus", "grafana"}


def instructions() -> list[tuple[str, str]]:
    """Read the container file: each instruction and what it is given."""
    text = re.sub(r"^#.*\n", "", CONTAINER.read_text("utf-8"), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def compose() -> Any:
    """Read the compose file."""
    return yaml.safe_load(COMPOSE.read_text("utf-8"))


def command_of(words: list[str]) -> Any:
    """Parse a command line of ours as the program does, and return the command that it names."""
    root = typer.main.get_command(app)
    context = root.make_context("persona", words[:1], resilient_parsing=True)
    command = root.commands[words[0]]  # type: ignore[attr-defined]
    return command.make_context(words[0], words[1:], parent=context)


@pytest.mark.parametrize(
    "file", sorted(f for f in FOLDER.rglob("*") if f.is_file()), ids=lambda file: file.name
)
def test_a_file_names_only_settings_that_there_are(file: Path) -> None:
    known = {variable.name for variable in variables_of(Settings)}
    named = set(VARIABLE.findall(file.read_text("utf-8"))) - {"PERSONA_NAME"}
    assert named <= known


def test_the_container_file_is_made_of_what_there_is() -> None:
    found = instructions()

    assert {name for name, _ in found} <= INSTRUCTIONS
    assert found[0][0] == "FROM"
    for name, given in found:
        if name == "COPY" and not given.startswith("--from"):
            *sources, _ = given.split()
            assert all((ROOT / source).exists() for source in sources)
    extras = re.findall(r"--extra (\w+)", CONTAINER.read_text("utf-8"))
    listed = (ROOT / "pyproject.toml").read_text("utf-8")
    assert all(re.search(rf"^{extra} = \[", listed, re.MULTILINE) for extra in extras)


def test_the_container_serves_on_the_port_that_it_opens_and_not_as_root() -> None:
    found = dict(instructions())
    words = yaml.safe_load(found["CMD"])
    chosen = command_of(words).params

    assert yaml.safe_load(found["ENTRYPOINT"]) == ["persona"]
    assert str(chosen["port"]) == found["EXPOSE"]
    assert f"127.0.0.1:{found['EXPOSE']}/health/live" in found["HEALTHCHECK"]
    assert found["USER"] == "persona"


def test_what_is_ignored_is_no_part_of_what_the_container_installs() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    ignored = [line for line in lines if not line.startswith("#")]
    installed = ["graphs", "nodes", "state", "server", "config", "migrations", "README.md"]
    assert not {*installed, "LICENSE", "pyproject.toml", "uv.lock"} & set(ignored)
    assert {".git", ".env"} <= set(ignored)


def test_the_compose_file_has_every_service_with_what_it_needs() -> None:
    found = compose()

    assert set(found["services"]) == SERVICES
    for service in found["services"].values():
        assert {"image", "restart"} <= set(service)
        assert service["image"].count("/") <= 1  # a name, and no registry's address
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            assert target.startswith("/")
            if source.startswith("."):
                assert (FOLDER / source).exists()
            else:
                assert source in found["volumes"]
        assert set(service.get("depends_on", [])) <= SERVICES
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:")
        for secret in service.get("secrets", []):
            assert secret in found["secrets"]


def test_persona_reaches_the_other_services_by_their_names() -> None:
    chosen = compose()["services"]["persona"]["environment"]
    hosts = re.findall(r"(?:@|//)(\w+):\d+", " ".join(map(str, chosen.values())))

    assert set(hosts) >= {"postgres", "chroma", "ollama"}
    assert set(hosts) <= SERVICES | {"persona"}
    mounted = [volume.split(":")[1] for volume in compose()["services"]["persona"]["volumes"]]
    assert mounted == [dict(instructions())["VOLUME"]]


def test_passwords_have_no_default_and_are_asked_for() -> None:
    text = COMPOSE.read_text("utf-8")
    example = (FOLDER / "compose.env.example").read_text("utf-8")
    values = dict(line.split("=", 1) for line in example.splitlines() if "=" in line)

    for name, how in NEEDED.findall(text):
        assert name in values
        if "PASSWORD" in name:
            assert how == ":?"
            assert values[name] == ""


def test_a_stop_may_take_as_long_as_the_server_may() -> None:
    stop_s = Settings(_env_file=None).server.stop_s
    grace = compose()["services"]["persona"]["stop_grace_period"]
    unit = re.search(r"TimeoutStopSec=(\d+)", UNIT.read_text("utf-8"))

    assert unit is not None
    assert int(unit[1]) > stop_s
    assert int(grace.removesuffix("s")) > stop_s


def test_the_unit_starts_a_command_that_there_is() -> None:
    started = re.search(r"^ExecStart=\S+/bin/persona (.+)$", UNIT.read_text("utf-8"), re.MULTILINE)

    assert started is not None
    assert command_of(started[1].split()).command.name == "serve"


def test_systemd_takes_the_unit() -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    done = subprocess.run(
        ["systemd-analyze", "verify", str(UNIT)], capture_output=True, encoding="utf-8", timeout=60
    )
    faults = [line for line in done.stderr.splitlines() if "persona.service" in line]
    assert [line for line in faults if "is not executable" not in line] == []
