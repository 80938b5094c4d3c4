"""The official MCP conformance suite against the product as shipped: `make conformance`.

It starts `persona serve` on a free port and a data folder of its own, runs each scenario in both
protocol eras, prints a line for each, and exits with 1 unless all have run and passed. Checks that
fail and are known stand in baseline.yml; one of them that passes fails the run too.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import LIMIT_S, PERSONA, environment, model_server, variables

HERE = Path(__file__).parent
COMMANDS = HERE / "node_modules" / ".bin"
SUITE = COMMANDS / "conformance"
DOOR = "/mcp"
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
"""Far beyond what is needed: a busy machine is no fault of the product."""
LOOK_S = 0.05
NODE_MAJOR = 22
ADDRESS = re.compile(r"serves on (http://\S+)")
COLOUR = re.compile(r"\x1b\[\d*m")


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
    """How a scenario ended.

    Attributes:
        passed: Whether it ran, and nothing unexpected was found.
        summary: In a few words.
        output: What the suite wrote.
    """

    scenario: Scenario
    passed: bool
    summary: str
    output: str


def main() -> int:
    """Run all scenarios; return the exit code."""
    if fault := missing():
        say(fault)
        return 2
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as url:
        outcomes = all_carried_out(url, Path(folder))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    for outcome in failed:
        say(f"\n--- {outcome.scenario.label}\n{outcome.output}")
    say(f"{len(outcomes) - len(failed)} passed, {len(failed)} failed")
    return 1 if failed else 0


def all_carried_out(url: str, folder: Path) -> list[Outcome]:
    """Run the scenarios, a few at once, and print how each ended."""
    scenarios = [Scenario(v, name) for v, names in SCENARIOS.items() for name in names]
    outcomes = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for outcome in pool.map(lambda scenario: carried_out(scenario, url, folder), scenarios):
            word = "ok    " if outcome.passed else "FAILED"
            say(f"{word} {outcome.scenario.label}: {outcome.summary}")
            outcomes.append(outcome)
    return outcomes


def missing() -> str | None:
    """Say what is not installed; None if all is there."""
    if not SUITE.exists():
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
def serving(folder: Path) -> Iterator[str]:
    """Run the product, with the tests' model server behind it.

    Yields:
        The address of its MCP door.
    """
    written = folder / "serve.log"
    with model_server() as model, written.open("w") as log:
        process = subprocess.Popen(
            [PERSONA, "serve", "--port", "0"],
            cwd=folder,  # no `.env` of whoever runs this
            env=environment(**variables(folder / "data", model.openai_url)),
            stdout=log,
            stderr=log,
        )
        try:
            yield address(process, written) + DOOR
        finally:
            process.terminate()
            process.wait(LIMIT_S)


def address(process: subprocess.Popen[bytes], written: Path) -> str:
    """Wait until the product says where it serves.

    Raises:
        RuntimeError: It does not.
    """
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        if found := ADDRESS.search(written.read_text()):
            return found[1]
        time.sleep(LOOK_S)
    raise RuntimeError(f"persona serve did not start:\n{written.read_text()}")


def carried_out(scenario: Scenario, url: str, folder: Path) -> Outcome:
    """Run a scenario; one that the suite skips has not passed."""
    results = folder / scenario.label.replace(" ", "-")
    command = [
        *(str(SUITE), "server", "--url", url),
        *("--spec-version", scenario.version, "--scenario", scenario.name),
        *("--expected-failures", str(HERE / "baseline.yml"), "--output-dir", str(results)),
        *("--timeout", f"{SCENARIO_S * 1000:g}"),
    ]
    try:
        run = subprocess.run(
            command,
            env=suite_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=SCENARIO_S + LIMIT_S,
        )
    except subprocess.TimeoutExpired:
        return Outcome(scenario, False, f"no end within {SCENARIO_S + LIMIT_S:g} s", "")
    statuses = checked(results)
    passed = statuses.count("SUCCESS")
    counted = len(statuses) - statuses.count("SKIPPED")
    summary = f"{passed} of {counted} checks passed" if passed else "it did not run"
    good = run.returncode == 0 and passed > 0
    return Outcome(scenario, good, summary, COLOUR.sub("", run.stdout))


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
