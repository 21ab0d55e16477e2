"""A headless Chromium that a test drives over the DevTools protocol."""

import base64
import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

from testkit.child_process import Child
from testkit.http1 import fetch
from testkit.waiting import wait_until

QUIET = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
REPLY_SECONDS = 20.0


def find_chromium() -> str:
    """Return the browser's path.

    Raises:
        RuntimeError: it is not installed; the message says how to get it.
    """
    path = shutil.which("chromium")
    if path is None:
        raise RuntimeError("chromium is missing: run .ci/system-packages")
    return path


class Browser(Child):
    """One browser with one page.

    `problems` lists the console's errors since the page was opened: refused by its
    Content-Security-Policy, not loaded, or thrown.
    """

    def __init__(self, folder: Path) -> None:
        self._profile = folder / "profile"
        self._page: ClientConnection | None = None
        self._connection = ExitStack()
        self._commands = 0
        self.problems: list[str] = []
        arguments = (find_chromium(), *QUIET, f"--user-data-dir={self._profile}", "about:blank")
        super().__init__(arguments, log=folder / "chromium.out")

    def start(self) -> None:
        """Start it and attach to its page."""
        super().start()
        file = self._profile / "DevToolsActivePort"
        wait_until(lambda: self.check_alive() and file.exists() and file.read_text(), "its port")
        port = int(file.read_text().split()[0])
        pages = wait_until(lambda: fetch(port, "/json/list").json(), "its page")
        address = pages[0]["webSocketDebuggerUrl"]
        self._page = self._connection.enter_context(connect(address, max_size=None))
        for domain in ("Log", "Page", "Runtime"):
            self.command(f"{domain}.enable")

    def close(self) -> None:
        """End it."""
        self._page = None
        self._connection.close()
        super().close()

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Raises:
            RuntimeError: the browser refused it.
            TimeoutError: no reply in time.
        """
        if self._page is None:
            raise RuntimeError(f"{self} was not started")
        self._commands += 1
        message = {"id": self._commands, "method": method, "params": parameters}
        self._page.send(json.dumps(message))
        while True:
            reply = json.loads(self._page.recv(timeout=REPLY_SECONDS))
            if reply.get("id") == self._commands:
                break
            self._collect(reply)
        if "error" in reply:
            raise RuntimeError(f"{method}: {reply['error']['message']}")
        result: dict[str, Any] = reply["result"]
        return result

    def _collect(self, event: dict[str, Any]) -> None:
        if event["method"] == "Log.entryAdded" and event["params"]["entry"]["level"] == "error":
            self.problems.append(event["params"]["entry"]["text"])
        if event["method"] == "Runtime.exceptionThrown":
            self.problems.append(event["params"]["exceptionDetails"]["text"])

    def open(
        self, url: str, *, width: int = 1280, dark: bool = False, javascript: bool = True
    ) -> None:
        """Load a page in a window of this width, and wait until it is loaded."""
        self.command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.command("Emulation.setEmulatedMedia", features=[scheme])
        self.command("Emulation.setScriptExecutionDisabled", value=not javascript)
        self.problems.clear()
        self.command("Page.navigate", url=url)
        wait_until(lambda: self.evaluate("document.readyState") == "complete", f"{url} in {self}")

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression, or of its promise.

        Raises:
            RuntimeError: it threw.
        """
        reply = self.command(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in reply:
            raise RuntimeError(f"{expression}: {reply['exceptionDetails']['text']}")
        return reply["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of the first element of a selector."""
        return str(self.evaluate(f"document.querySelector({json.dumps(selector)}).textContent"))

    def click(self, selector: str) -> None:
        """Click into the middle of an element with the mouse."""
        element = f"document.querySelector({json.dumps(selector)})"
        self.evaluate(f"{element}.scrollIntoView()")
        box = self.evaluate(f"{element}.getBoundingClientRect().toJSON()")
        middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            event = {"type": kind, "button": "left", "clickCount": 1, **middle}
            self.command("Input.dispatchMouseEvent", **event)

    def type(self, selector: str, text: str) -> None:
        """Replace the text of a field by typed text."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).select()")
        self.command("Input.insertText", text=text)

    def screenshot(self, path: Path) -> None:
        """Write a PNG of the whole page."""
        reply = self.command("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(reply["data"]))
