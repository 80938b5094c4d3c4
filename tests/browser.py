"""A page in a real browser, Debian's Chromium, driven through its own protocol."""

import json
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
WITHIN_S = 30.0
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--hide-scrollbars",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--remote-debugging-port=0",
)
"""No sandbox: a container's root has none to give; what is opened is of our own making."""


class Page:
    """A page that is open; remembers what it asked the network for, and what went wrong in it."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._number = 0
        self.requests: list[str] = []
        self.faults: list[str] = []
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Call the browser, and take in what it tells meanwhile."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": params}))
        while True:
            told = json.loads(self._socket.recv(WITHIN_S))
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self._take_in(told)

    def _take_in(self, told: dict[str, Any]) -> None:
        method, params = told["method"], told.get("params", {})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.faults.append(str(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.faults.append(str(params["entry"]))
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.faults.append(str(params["args"]))

    def open(self, path: Path, width: int = 1200, height: int = 900, *, dark: bool = False) -> None:
        """Open a file, and wait until all of it is there."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=path.as_uri())
        ready = "new Promise(go => document.readyState === 'complete' ? go() : onload = go)"
        self.run(f"{ready}.then(() => location.href)")

    def run(self, script: str) -> Any:
        """Run a script in the page, and return its value."""
        found = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def picture(self, path: Path) -> None:
        """Make a picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", clip=clip, captureBeyondViewport=True)
        path.write_bytes(b64decode(shot["data"]))


@contextmanager
def page(profile: Path) -> Iterator[Page]:
    """Start a browser of its own, and give its page.

    Args:
        profile: An empty folder that it may write to.
    """
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as browser:
        try:
            with connect(page_address(browser), max_size=None) as socket:
                yield Page(socket)
        finally:
            browser.terminate()


def page_address(browser: "subprocess.Popen[str]") -> str:
    """Read where the browser listens, and ask it for its page."""
    from httpx import get

    assert browser.stderr is not None
    for line in browser.stderr:
        if "DevTools listening on" in line:
            host = line.split("ws://")[1].split("/")[0]
            pages = get(f"http://{host}/json/list", timeout=WITHIN_S).json()
            return str(next(one["webSocketDebuggerUrl"] for one in pages if one["type"] == "page"))
    raise AssertionError("the browser does not start")
