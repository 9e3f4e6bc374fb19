"""A real browser: headless Chromium, driven through ChromeDriver's own HTTP interface (W3C
WebDriver), so that no client library is needed."""

import json
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
KEYS = {"tab": "\ue004", "enter": "\ue007", "escape": "\ue00c"}


def has_browser() -> bool:
    """Whether there is one on this machine."""
    return shutil.which("chromedriver") is not None


class Browser:
    """One window."""

    def __init__(self, session: str) -> None:
        self._session = session

    def open(self, url: str) -> None:
        """Goes there and waits until it is loaded."""
        _post(f"{self._session}/url", {"url": url})

    def resize(self, width: int, height: int) -> None:
        """Sets the window's size in pixels."""
        _post(f"{self._session}/window/rect", {"width": width, "height": height})

    def run(self, script: str) -> Any:
        """What a script returns: `return document.title`."""
        return _post(f"{self._session}/execute/sync", {"script": script, "args": []})["value"]

    def wait(self, script: str, limit_s: float = 20.0) -> Any:
        """What a script returns as soon as that is neither null nor false."""
        deadline = time.monotonic() + limit_s
        while not (found := self.run(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(script)
            time.sleep(0.02)
        return found

    def press(self, *keys: str) -> None:
        """Presses keys one after the other; a key is a character or a name of `KEYS`."""
        actions = []
        for key in keys:
            value = KEYS.get(key, key)
            actions += [{"type": "keyDown", "value": value}, {"type": "keyUp", "value": value}]
        sources = [{"type": "key", "id": "keyboard", "actions": actions}]
        _post(f"{self._session}/actions", {"actions": sources})


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser while the block runs."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    driver = subprocess.Popen(["chromedriver", f"--port={port}"], stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        options = {"args": FLAGS}
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        deadline = time.monotonic() + 30
        while True:
            try:
                session = _post(f"{url}/session", wanted)["value"]["sessionId"]
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        yield Browser(f"{url}/session/{session}")
    finally:
        driver.terminate()
        driver.wait()


def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    data = json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        found: dict[str, Any] = json.load(answer)
    return found
