"""Headless Chromium over its own pipes: opens a page, presses keys, and tells what went wrong meanwhile.

The DevTools protocol needs no WebSocket where the browser gets two file descriptors
(`--remote-debugging-pipe`): JSON, each message ended by a zero byte.
"""

from __future__ import annotations

import base64
import json
import os
import selectors
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_TIMEOUT_S = 60.0
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-prefers-reduced-motion",
)


class Browser:
    """One tab of a headless Chromium.

    `complaints` are console messages, exceptions and violations of a policy; `requests` every URL that was
    asked for.
    """

    def __init__(self, reader: int, writer: int) -> None:
        self._reader, self._writer = reader, writer
        self._buffer = b""
        self._last = 0
        self._session: str | None = None
        self._events: list[Mapping[str, Any]] = []
        self.complaints: list[str] = []
        self.requests: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask the browser for one thing and wait for its answer."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._hear()
            if heard.get("id") == self._last:
                if "error" in heard:
                    raise AssertionError(f"{method}: {heard['error']}")
                return dict(heard["result"])
            self._note(heard)

    def open(self, url: str, width: int = 1280, height: int = 900) -> None:
        """Show a page at a size and wait until it is loaded."""
        self.resize(width, height)
        self._events.clear()
        self.call("Page.navigate", url=url)
        deadline = time.monotonic() + _TIMEOUT_S
        while not any(event.get("method") == "Page.loadEventFired" for event in self._events):
            assert time.monotonic() < deadline, f"{url} does not finish loading"
            self._note(self._hear())

    def resize(self, width: int, height: int = 900) -> None:
        """Give the page another size."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def dark(self, wanted: bool) -> None:
        """Prefer dark pages, or light ones."""
        scheme = "dark" if wanted else "light"
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and release one key."""
        text = {"Enter": "\r", " ": " "}.get(key)
        down: dict[str, Any] = {"type": "keyDown", "key": key, "windowsVirtualKeyCode": code}
        if text is not None:
            down["text"] = text
        self.call("Input.dispatchKeyEvent", **down)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, windowsVirtualKeyCode=code)

    def click(self, x: float, y: float) -> None:
        """Click at a place of the window."""
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A picture of the page, as PNG."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))

    def pdf(self) -> bytes:
        """The page printed."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def settle(self) -> None:
        """Wait until the page has drawn twice, and with it everything that was waiting."""
        self.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def _hear(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            with selectors.DefaultSelector() as selector:
                selector.register(self._reader, selectors.EVENT_READ)
                assert selector.select(_TIMEOUT_S), "the browser says nothing"
            part = os.read(self._reader, 1 << 20)
            assert part, "the browser has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(message))

    def _note(self, event: Mapping[str, Any]) -> None:
        self._events.append({"method": event.get("method")})
        params = event.get("params", {})
        match event.get("method"):
            case "Log.entryAdded":
                self.complaints.append(params["entry"]["text"])
            case "Runtime.consoleAPICalled" | "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(params)[:400])
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case _:
                pass


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser that keeps what it keeps in `profile`, and ends with the block."""
    here, theirs_out = os.pipe()
    theirs_in, there = os.pipe()

    def put_in_place() -> None:
        # the browser reads from 3 and writes to 4; by way of high numbers, for either may be 3 or 4 already
        os.dup2(theirs_in, 103)
        os.dup2(theirs_out, 104)
        os.dup2(103, 3)
        os.dup2(104, 4)

    process = subprocess.Popen(
        ["/usr/bin/chromium", *_FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        close_fds=False,
        preexec_fn=put_in_place,
        start_new_session=True,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        browser = Browser(here, there)
        yield browser
        browser._session = None
        os.write(there, b'{"id": 0, "method": "Browser.close"}\0')
        process.wait(10)
    finally:
        os.close(here)
        os.close(there)
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
