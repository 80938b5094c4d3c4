"""The official MCP conformance suite and Inspector against the product: `make conformance`.

The product as shipped is started on a free port and a data folder of its own; scenarios of the
suite are run on it in both protocol eras, and the Inspector reads its tools strictly. Then the
product is started with the suite's own tools beside its own, and all that each protocol version
requires of servers is run on that. A line is printed for each; the exit code is 1 unless all have
run and passed. Checks that fail on the product as shipped and are known stand in baseline.yml; one
of them that passes fails the run too.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from persona_mcp.server.app import PATHS
from tests.processes import LIMIT_S, PERSONA, environment, model_server, variables

HERE = Path(__file__).parent
COMMANDS = HERE / "node_modules" / ".bin"
SUITE = COMMANDS / "conformance"
REQUIREMENTS = HERE / "node_modules" / "@modelcontextprotocol" / "conformance" / "requirements"
INSPECTOR = COMMANDS / "inspector"
DOOR = "/mcp"
SHIPPED = (PERSONA, "serve", "--port", "0")
WITH_FIXTURES = (sys.executable, "-m", "tests.conformance.fixtures")
ERAS = ("modern", "legacy")
SCENARIOS = {
    "2026-07-28": (
        "server-stateless",
        "tools-list",
        "resources-list",
        "prompts-list",
        "sep-2164-resource-not-found",
        "caching",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
        "completion-complete",
        "input-required-result-unsupported-methods",
        "input-required-result-ignore-extra-params",
        "http-header-validation",
    ),
    "2025-11-25": (
        "server-initialize",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "completion-complete",
        "dns-rebinding-protection",
        "server-sse-multiple-streams",
        "server-session-lifecycle",
    ),
}
AT_ONCE = 3
START_S = 120.0
SCENARIO_S = 120.0
REQUIRED_S = 900.0
"""Far beyond what is needed: a busy machine is no fault of the product."""
LOOK_S = 0.05
NODE_MAJOR = 22
ADDRESS = re.compile(r"serves on (http://\S+)")
COLOUR = re.compile(r"\x1b\[\d*m")
PASSED = re.compile(r"^✓ (\S+): [1-9]\d* passed, 0 failed", re.MULTILINE)
"""How the suite sums up a scenario that ran and passed."""


@dataclass(frozen=True)
class Scenario:
    """One scenario of the suite, at one protocol version."""

    version: str
    name: str

    @property
    def label(self) -> str:
        """Name it for people."""
        return f"{self.version} {self.name}"


@dataclass(frozen=True)
class Outcome:
    """How something ended.

    Attributes:
        label: What it was, for people.
        passed: Whether it ran, and nothing unexpected was found.
        summary: In a few words.
        output: What was written.
    """

    label: str
    passed: bool
    summary: str
    output: str


def main() -> int:
    """Run everything; return the exit code."""
    if fault := missing():
        say(fault)
        return 2
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with serving(SHIPPED, folder / "shipped") as url, ThreadPoolExecutor(AT_ONCE) as pool:
            scenarios = [Scenario(v, name) for v, names in SCENARIOS.items() for name in names]
            tell(outcomes, pool.map(lambda one: carried_out(one, url + DOOR, folder), scenarios))
            doors = [(path, era) for path in PATHS for era in ERAS]
            tell(outcomes, pool.map(lambda one: inspected(url, one[0], one[1], folder), doors))
            tell(outcomes, pool.map(lambda one: refused(url, one[0], one[1], folder), doors))
        with serving(WITH_FIXTURES, folder / "fixtures") as url:
            tell(outcomes, (required(version, url + DOOR, folder) for version in SCENARIOS))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        say(f"\n--- {outcome.label}\n{outcome.output}")
    say(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def tell(outcomes: list[Outcome], found: Iterable[Outcome]) -> None:
    """Print how each ends as soon as it does, and keep it."""
    for outcome in found:
        say(f"{'ok    ' if outcome.passed else 'FAILED'} {outcome.label}: {outcome.summary}")
        outcomes.append(outcome)


def missing() -> str | None:
    """Say what is not installed; None if all is there."""
    if not (SUITE.exists() and INSPECTOR.exists()):
        return "the suite is not installed: run `make suite`"
    run = subprocess.run(["node", "--version"], env=suite_environment(), capture_output=True)
    found = re.match(rb"v(\d+)\.", run.stdout)
    if found is None or int(found[1]) < NODE_MAJOR:
        return f"the suite needs Node {NODE_MAJOR}; found {run.stdout.decode().strip() or 'none'}"
    return None


def suite_environment() -> dict[str, str]:
    """Return an environment in which the suite's own Node is found first."""
    return {**os.environ, "PATH": f"{COMMANDS}{os.pathsep}{os.environ['PATH']}"}


@contextmanager
def serving(command: Sequence[str], folder: Path) -> Iterator[str]:
    """Run a server, with the tests' model server behind it, in a new folder.

    Yields:
        Its address.
    """
    folder.mkdir()
    written = folder / "serve.log"
    root = str(HERE.parent.parent)
    with model_server() as model, written.open("w") as log:
        given = variables(folder / "data", model.openai_url, PYTHONPATH=root)
        process = subprocess.Popen(
            command,
            cwd=folder,  # no `.env` of whoever runs this
            env=environment(**given),
            stdout=log,
            stderr=log,
        )
        try:
            yield address(process, written)
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def address(process: subprocess.Popen[bytes], written: Path) -> str:
    """Wait until a server says where it serves.

    Raises:
        RuntimeError: It does not.
    """
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        if found := ADDRESS.search(written.read_text()):
            return found[1]
        time.sleep(LOOK_S)
    raise RuntimeError(f"the server did not start:\n{written.read_text()}")


def carried_out(scenario: Scenario, url: str, folder: Path) -> Outcome:
    """Run a scenario; one that the suite skips has not passed."""
    results = folder / scenario.label.replace(" ", "-")
    command = [
        *(str(SUITE), "server", "--url", url),
        *("--spec-version", scenario.version, "--scenario", scenario.name),
        *("--expected-failures", str(HERE / "baseline.yml"), "--output-dir", str(results)),
        *("--timeout", f"{SCENARIO_S * 1000:g}"),
    ]
    run = finished(command, suite_environment(), SCENARIO_S)
    statuses = checked(results)
    passed = statuses.count("SUCCESS")
    counted = len(statuses) - statuses.count("SKIPPED")
    summary = f"{passed} of {counted} checks passed" if passed else "it did not run"
    return Outcome(scenario.label, run.returncode == 0 and passed > 0, summary, run.stdout)


def required(version: str, url: str, folder: Path) -> Outcome:
    """Run all that a protocol version requires of servers; each scenario must have run."""
    command = [
        *(str(SUITE), "server", "--url", url, "--requirements", version),
        *("--output-dir", str(folder / f"required-{version}"), "--timeout"),
        f"{SCENARIO_S * 1000:g}",
    ]
    run = finished(command, suite_environment(), REQUIRED_S)
    names = yaml.safe_load((REQUIREMENTS / f"{version}.yaml").read_text("utf-8"))["server"]
    passed = set(PASSED.findall(run.stdout)) & set(names)
    summary = f"{len(passed)} of {len(names)} scenarios passed"
    good = run.returncode == 0 and len(passed) == len(names)
    return Outcome(f"{version} required, with fixtures", good, summary, run.stdout)


def inspected(url: str, path: str, era: str, folder: Path) -> Outcome:
    """Have the Inspector read the tools and find what clients could stumble over."""
    listing = folder / f"tools{path.replace('/', '-')}-{era}.json"
    command = [
        *(str(INSPECTOR), "--cli", url + path, "--transport", "http", "--protocol-era", era),
        *("--method", "tools/list", "--strict", "--output", str(listing)),
    ]
    # It keeps its settings in the home folder.
    run = finished(command, {**suite_environment(), "HOME": str(folder)}, SCENARIO_S)
    tools = len(json.loads(listing.read_text("utf-8"))["tools"]) if listing.exists() else 0
    good = run.returncode == 0 and tools > 0
    return Outcome(f"Inspector, {era}, {path}", good, f"{tools} tools read strictly", run.stdout)


def refused(url: str, path: str, era: str, folder: Path) -> Outcome:
    """Have the Inspector call a tool in vain: it must show what we say, and nothing of its own."""
    given = json.dumps({"persona_id": "nobody", "message": "Hello."})
    command = [
        *(str(INSPECTOR), "--cli", url + path, "--transport", "http", "--protocol-era", era),
        *("--method", "tools/call", "--tool-name", "persona_chat", "--tool-args-json", given),
        *("--format", "json"),
    ]
    run = finished(command, {**suite_environment(), "HOME": str(folder)}, SCENARIO_S)
    good = "persona 'nobody' not found" in run.stdout
    summary = "an error is shown as it is" if good else "our error is not shown"
    return Outcome(f"Inspector, {era}, {path}", good, summary, run.stdout)


def finished(
    command: list[str], environment: dict[str, str], limit_s: float
) -> "subprocess.CompletedProcess[str]":
    """Run a command; one without an end within its time has failed."""
    try:
        run = subprocess.run(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=limit_s + LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, f"no end within {limit_s + LIMIT_S:g} s", "")
    return subprocess.CompletedProcess(command, run.returncode, COLOUR.sub("", run.stdout), "")


def checked(results: Path) -> list[str]:
    """Return how the checks of a scenario ended, remarks left out."""
    found = [
        check["status"]
        for path in results.rglob("checks.json")
        for check in json.loads(path.read_text("utf-8"))
    ]
    return [status for status in found if status != "INFO"]


def say(text: str) -> None:
    """Print a line at once, also into a file."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
