"""A headless Chromium, driven over its debugging pipe: pages as a person's browser sees them."""

import base64
import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip


class Browser:
    """One page. Messages are JSON, ended by NUL (the protocol's pipe transport)."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = commands
        self._answers = os.fdopen(answers, "rb")
        self._number = 0
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]

    def send(self, method: str, **params: object) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result

    def _receive(self) -> bytes:
        message = bytearray()
        while (byte := self._answers.read(1)) != b"\0":
            assert byte, "the browser ended"
            message += byte
        return bytes(message)

    def open(
        self, url: str, *, width: int = 1200, height: int = 900, scheme: str = "light"
    ) -> None:
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.send("Emulation.setEmulatedMedia", features=features)
        self.send("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        answer = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, condition: str) -> None:
        """Wait until an expression is true in the page."""
        done = self.evaluate(f"""new Promise(resolve => {{
            const until = Date.now() + 15000;
            (function look() {{
                if ({condition}) resolve(true);
                else if (Date.now() > until) resolve(false);
                else setTimeout(look, 20);
            }})();
        }})""")
        assert done, f"not in time: {condition}"

    def screenshot(self) -> bytes:
        """Give a picture of what is in the window, as PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])

    def close(self) -> None:
        self._answers.close()


@contextmanager
def open_browser(directory: Path) -> Generator[Browser, None, None]:
    """Run a Chromium with a new profile in a directory."""
    if shutil.which("chromium") is None:
        pytest.skip("chromium is not installed")
    commands_read, commands = os.pipe()
    answers, answers_write = os.pipe()
    flags = " ".join([*_FLAGS, shlex.quote(f"--user-data-dir={directory}/profile")])
    # It speaks on descriptors 3 and 4.
    script = f"exec 3<&{commands_read} 4>&{answers_write}; exec chromium {flags}"
    process = subprocess.Popen(
        ["bash", "-c", script],
        pass_fds=(commands_read, answers_write),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(commands_read)
    os.close(answers_write)
    try:
        browser = Browser(commands, answers)
        yield browser
        browser.close()
    finally:
        os.close(commands)  # it ends with its pipe
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
