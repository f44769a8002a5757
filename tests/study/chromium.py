"""Headless Chromium through its own DevTools pipe; the standard library is enough."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

__all__ = ["Chromium", "find"]

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --hide-scrollbars"
    " --disable-background-networking --disable-component-update --disable-sync --mute-audio"
    " --disable-dev-shm-usage --disable-extensions --remote-debugging-pipe"
).split()
_KEYS = {"Enter": ("\r", 13), "Tab": ("\t", 9), "Escape": (None, 27), "ArrowLeft": (None, 37),
         "ArrowUp": (None, 38), "ArrowRight": (None, 39), "ArrowDown": (None, 40),
         "Home": (None, 36), "End": (None, 35)}  # fmt: skip


def find() -> str | None:
    """The browser of this machine, if it has one."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    return next(filter(None, map(shutil.which, names)), None)


class Chromium:
    """One page of a fresh browser. `errors` and `requests` fill while it runs."""

    def __init__(self, program: str) -> None:
        self.profile = tempfile.mkdtemp(prefix="chromium-")
        into, self._write = os.pipe()
        self._read, out = os.pipe()
        command = [program, *FLAGS, f"--user-data-dir={self.profile}", "about:blank"]
        shell = f'exec "$0" "$@" 3<&{into} 4>&{out}'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, *command], pass_fds=(into, out), stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(into)
        os.close(out)
        self._buffer, self._number, self._session = b"", 0, None
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.events: list[str] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def __enter__(self) -> Chromium:
        return self

    def __exit__(self, *_: object) -> None:
        self._session = None
        try:
            self.send("Browser.close")
            self._process.wait(10)
        except (OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)
        shutil.rmtree(self.profile, ignore_errors=True)

    def send(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and wait for its answer."""
        self._number += 1
        call = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            call["sessionId"] = self._session
        os.write(self._write, json.dumps(call).encode() + b"\0")
        while (message := self._next(30)).get("id") != self._number:
            self._note(message)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']}")
        return message["result"]

    def open(
        self, page: Path, width: int = 1280, height: int = 900, dark: bool = False,
        reduced: bool = True, scale: float = 1,
    ) -> float:  # fmt: skip
        """Load a file; return the seconds until its load event and first two frames."""
        self.errors, self.requests, self.events = [], [], []
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=scale, mobile=width < 600)  # fmt: skip
        features = [
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if reduced else "no-preference"},
        ]
        self.send("Emulation.setEmulatedMedia", features=features)
        began = time.perf_counter()
        self.send("Page.navigate", url=page.resolve().as_uri())
        while "Page.loadEventFired" not in self.events:
            self._note(self._next(60))
        self.settle()
        return time.perf_counter() - began

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        done = self.send("Runtime.evaluate", expression=script, returnByValue=True,
                         awaitPromise=True)  # fmt: skip
        if "exceptionDetails" in done:
            raise RuntimeError(f"{script}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def soon(self, condition: str, seconds: float = 10) -> bool:
        """Whether a JavaScript condition comes true within `seconds`."""
        end = time.perf_counter() + seconds
        while not (true := bool(self.run(condition))) and time.perf_counter() < end:
            time.sleep(0.05)
        return true

    def settle(self) -> None:
        """Wait until two frames are drawn."""
        frame = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => r(1))))"
        self.run(frame)

    def click(self, selector: str) -> None:
        """A real click in the middle of the first match, scrolled into view."""
        x, y = self.run(
            f"(() => {{ const n = document.querySelector({json.dumps(selector)});"
            " n.scrollIntoView({block: 'center', inline: 'center', behavior: 'instant'});"
            " const b = n.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2];"
            " })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def key(self, name: str, times: int = 1) -> None:
        """Press a key of `_KEYS`."""
        text, code = _KEYS[name]
        for _ in range(times):
            down = {"key": name, "code": name, "windowsVirtualKeyCode": code}
            extra = {"text": text} if text else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", **down, **extra)
            self.send("Input.dispatchKeyEvent", type="keyUp", **down)
        self.settle()

    def picture(self, path: Path, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        options: dict[str, Any] = {"format": "png", "captureBeyondViewport": whole}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {**size, "x": 0, "y": 0, "scale": 1}
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", **options)["data"]))

    def _next(self, seconds: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], seconds)[0]:
                raise TimeoutError(f"the browser said nothing for {seconds} s")
            piece = os.read(self._read, 1 << 20)
            if not piece:
                raise OSError("the browser closed its pipe")
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(line)

    def _note(self, event: dict[str, Any]) -> None:
        method, given = event.get("method", ""), event.get("params", {})
        self.events.append(method)
        if method == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(given["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled" and given["type"] in ("error", "warning"):
            self.errors.append(json.dumps(given["args"]))
        elif method == "Log.entryAdded" and given["entry"]["level"] in ("error", "warning"):
            self.errors.append(given["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.requests.append(given["request"]["url"])
