"""A real browser, driven from Python: what the tests of pages need of it, and what draws their pictures.

Chromium without a window (Debian: apt-get install chromium-headless-shell, 9 seconds; any Chromium or Chrome will do), by
its own debugging protocol over two pipes: https://chromedevtools.github.io/devtools-protocol. So there is no driver to
install. A page is opened from a file:// address, as a reader opens it.

Try:   python tests/browser.py out/eval/page.html page.png --width 1000 --dark
       python tests/browser.py --find        # is there one?
"""
import argparse
import base64
import json
import os
import select
import shutil
import signal
import sys
import tempfile
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: find_browser says that there is none
    fcntl = None

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE = 60  # seconds: a browser that says nothing for so long hangs
KEYS = {"Tab": 9, "ArrowRight": 39, "ArrowLeft": 37, "Enter": 13, " ": 32}  # code of each key that is pressed


def find_browser():
    """The path of a Chromium; None: there is none, or no way to hand it pipes."""
    if fcntl is None:
        return None
    found = [shutil.which(name) for name in NAMES]
    return next(filter(None, found), None)


class PageError(Exception):
    """A script of the page, or one given to Browser.run, raised."""


class Browser:
    """One tab. Use: `with Browser() as browser: browser.open(path); browser.run("document.title")`."""

    def __init__(self, width=1000, height=800):
        self.errors = []    # exceptions and messages of the console since the page was opened
        self.requests = []  # every address that it has asked for
        self.number = 0     # of the last command
        self.rest = b""     # bytes of a message that has not come to its end
        self.profile = tempfile.mkdtemp()
        their_input, self.output = os.pipe()
        self.input, their_output = os.pipe()
        # They become 3 and 4 in the browser, so neither may be 3 or 4 here.
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (their_input, their_output)]
        moves = [(os.POSIX_SPAWN_DUP2, ends[0], 3), (os.POSIX_SPAWN_DUP2, ends[1], 4)]
        nowhere = (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0)  # it complains of missing buses
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars",
                 "--remote-debugging-pipe", f"--user-data-dir={self.profile}", "about:blank"]
        path = find_browser()
        self.process = os.posix_spawn(path, [path, *flags], os.environ, file_actions=[nowhere, *moves])
        for end in (their_input, their_output, *ends):
            os.close(end)
        self.session = None
        page = next(tab for tab in self.send("Target.getTargets")["targetInfos"] if tab["type"] == "page")
        self.session = self.send("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")
        self.resize(width, height)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.close(self.output)
        os.close(self.input)
        os.kill(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)
        shutil.rmtree(self.profile, ignore_errors=True)

    # -- the protocol: JSON messages, each ended by a zero byte

    def send(self, method, **params):
        """A command -> its result. What else the browser tells in the meantime is noted."""
        self.number += 1
        message = dict(id=self.number, method=method, params=params)
        if self.session:
            message["sessionId"] = self.session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.output, data):]
        while True:
            reply = self.receive()
            if reply.get("id") == self.number:
                if "error" in reply:
                    raise PageError(f"{method}: {reply['error']}")
                return reply["result"]

    def receive(self):
        while b"\0" not in self.rest:
            if not select.select([self.input], [], [], PATIENCE)[0]:
                raise PageError(f"the browser says nothing for {PATIENCE} s")
            piece = os.read(self.input, 1 << 16)
            if not piece:
                raise PageError("the browser has gone")
            self.rest += piece
        message, _, self.rest = self.rest.partition(b"\0")
        message = json.loads(message)
        self.note(message.get("method"), message.get("params", {}))
        return message

    def note(self, event, params):
        if event == "Runtime.exceptionThrown":
            self.errors.append(params["exceptionDetails"].get("exception", {}).get("description", "exception"))
        elif event == "Runtime.consoleAPICalled":
            self.errors.append(str([one.get("value") for one in params["args"]]))
        elif event == "Log.entryAdded":
            self.errors.append(params["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])

    # -- what a reader does

    def open(self, path):
        self.errors, self.requests = [], []
        self.send("Page.navigate", url=Path(path).resolve().as_uri())
        while self.receive().get("method") != "Page.loadEventFired":
            pass

    def run(self, script):
        """Evaluate an expression in the page -> its value, as JSON has it."""
        reply = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in reply:
            raise PageError(reply["exceptionDetails"].get("exception", {}).get("description"))
        return reply["result"].get("value")

    def press(self, key, times=1):
        code = KEYS[key]
        for _ in range(times):
            for kind in ("keyDown", "keyUp"):
                text = dict(text="\r" if key == "Enter" else key) if code in (13, 32) and kind == "keyDown" else {}
                self.send("Input.dispatchKeyEvent", type=kind, key=key, code="Space" if key == " " else key,
                          windowsVirtualKeyCode=code, **text)

    def prefer(self, **features):
        """What the reader's system asks for: prefer(color_scheme="dark", reduced_motion="reduce")."""
        wanted = [dict(name="prefers-" + name.replace("_", "-"), value=value) for name, value in features.items()]
        self.send("Emulation.setEmulatedMedia", features=wanted)

    def resize(self, width, height=800):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=False)

    def picture(self, path, whole=False):
        """A screenshot as PNG: of what fits the window, or of the whole page."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        Path(path).write_bytes(base64.b64decode(data))


def main():
    parser = argparse.ArgumentParser(description="Draw a page as PNG.")
    add = parser.add_argument
    add("page", nargs="?", help="an HTML file")
    add("png", nargs="?", help="the picture to write")
    add("--find", action="store_true", help="say where the browser is; exit code 1: there is none")
    add("--width", type=int, default=1000, help="of the window, in pixels")
    add("--height", type=int, default=800, help="of the window, in pixels")
    add("--dark", action="store_true", help="as on a dark system")
    add("--script", default="0", help="an expression to evaluate first, such as scrollTo(0, 400)")
    args = parser.parse_args()
    if args.find:
        print(find_browser() or "no Chromium on the PATH")
        sys.exit(find_browser() is None)
    if not args.png:
        parser.error("name a page and a picture to write")
    with Browser(args.width, args.height) as browser:
        browser.prefer(color_scheme="dark" if args.dark else "light")
        browser.open(args.page)
        browser.run(args.script)
        browser.picture(args.png)


if __name__ == "__main__":
    main()
