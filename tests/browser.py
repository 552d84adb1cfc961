"""A page in a real browser: headless Chromium, asked through its DevTools protocol.

with opened(path, width=400) as page:
    page.move_to("circle")
    page.press("Tab")
    page.js("document.activeElement.textContent")
    page.requests  # addresses asked for besides the file itself
"""

import asyncio
import base64
import contextlib
import json
import shutil
import subprocess
import time
import urllib.request

import pytest
from tornado.websocket import websocket_connect

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needed = pytest.mark.skipif(
    not CHROMIUM, reason="no chromium on this machine: a page is not tried in a browser"
)
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")  # fmt: skip


class Page:
    """One open page."""

    def __init__(self, socket, loop):
        self.socket, self.loop, self.number, self.requests = socket, loop, 0, []

    def call(self, method, **params):
        """Answer of a command of the protocol."""
        self.number += 1
        asked = {"id": self.number, "method": method, "params": params}
        return self.loop.run_until_complete(self._answer(json.dumps(asked)))

    async def _answer(self, asked):
        await self.socket.write_message(asked)
        while True:
            told = json.loads(await asyncio.wait_for(self.socket.read_message(), 60))
            if told.get("method") == "Network.requestWillBeSent":
                self.requests.append(told["params"]["request"]["url"])
            if told.get("id") == self.number:
                return told["result"]

    def js(self, expression):
        """Value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def move_to(self, selector, number=0):
        """Move the mouse to the middle of an element, where that can be seen."""
        element = f"document.querySelectorAll('{selector}')[{number}]"
        self.js(f"{element}.scrollIntoView({{block: 'center'}})")
        box = f"(b => [b.x + b.width / 2, b.y + b.height / 2])({element}.getBoundingClientRect())"
        x, y = self.js(box)
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def press(self, key):
        """Press a key."""
        named = {"key": key, "code": key, "windowsVirtualKeyCode": {"Tab": 9}[key]}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **named)

    def press_until(self, key, condition, most=500):
        """Press a key until a condition holds in the page."""
        for _ in range(most):
            self.press(key)
            if self.js(condition):
                return
        raise AssertionError(f"{most} times {key}, and never {condition}")

    def picture(self, path):
        """Store what is seen as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


@contextlib.contextmanager
def opened(path, profile, width=1400, height=900):
    """A file in a browser window of so many pixels; profile: a folder that is the browser's own."""
    command = [CHROMIUM, *OPTIONS, "--remote-debugging-port=0", f"--user-data-dir={profile}", "about:blank"]  # fmt: skip
    loop = asyncio.new_event_loop()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as browser:
        try:
            socket = loop.run_until_complete(_connected(_address(profile)))
            page = Page(socket, loop)
            size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
            page.call("Emulation.setDeviceMetricsOverride", **size)
            page.call("Network.enable")
            page.call("Page.navigate", url=path.as_uri())
            _wait(lambda: page.js("location.protocol + document.readyState") == "file:complete")
            page.requests.remove(path.as_uri())
            yield page
            socket.close()
        finally:
            browser.terminate()
            loop.close()


async def _connected(address):
    return await websocket_connect(address, max_message_size=10**8)


def _address(profile):
    """Where the only page of a browser that was just started listens."""
    file = profile / "DevToolsActivePort"
    _wait(lambda: file.is_file() and file.read_text().count("\n"))
    with urllib.request.urlopen(f"http://127.0.0.1:{file.read_text().split()[0]}/json") as answer:
        tabs = json.load(answer)
    return next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page")


def _wait(true, most_s=30):
    end = time.monotonic() + most_s
    while not true():
        assert time.monotonic() < end, "the browser does not answer"
        time.sleep(0.1)
