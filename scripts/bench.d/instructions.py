"""User-space instructions per request, counted by callgrind: a figure that does not depend on the machine's mood."""

import re
import shutil
import subprocess
import time
from pathlib import Path

from processes import Failed, Server, free_port, unverified

WARM_UP = 500
COUNTED = 2000

# The thread that looks from time to time whether others need its help: how often it does while callgrind slows the
# server down says nothing of a request.
WATCHES = "standby_thread"

# callgrind makes a server some fifty times slower.
START_SECONDS = 120


def count(command_for, load, core, environment, cwd, work):
    """Instructions per request of the whole tree, over one kept-alive connection.

    `command_for(port)` gives the server's command line.
    """
    folder = Path(work, "callgrind")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    port = free_port()
    callgrind = ["valgrind", "--tool=callgrind", "--trace-children=yes", "--separate-threads=yes",
                 f"--callgrind-out-file={folder}/out.%p"]
    command, log = [*callgrind, *command_for(port)], Path(work, "callgrind.log")
    server = Server(command, load, core, environment, cwd, log, port, START_SECONDS)
    try:
        requests = Requests(port, load)
        requests.send(WARM_UP)
        pids = server.pids()
        control(pids, "--zero")
        requests.send(COUNTED)
        control(pids, "--dump")
        time.sleep(0.5)
    finally:
        server.stop()
    dumps = [dump for pid in pids for dump in folder.glob(f"out.{pid}.1-*")]
    return sum(total(dump) for dump in dumps if WATCHES not in dump.read_text()) / COUNTED


def control(pids, action):
    for pid in pids:
        command = ["callgrind_control", action, str(pid)]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        if done.returncode != 0:
            raise Failed("callgrind_control: " + done.stderr.strip())


def total(dump):
    """The instructions of a callgrind output file."""
    found = re.search(r"^(?:totals|summary): (\d+)", dump.read_text(), re.MULTILINE)
    return int(found.group(1)) if found else 0


class Requests:
    """One kept-alive connection that sends the same request again and again, opened anew where a server closes it."""

    def __init__(self, port, load):
        import http.client

        if load.tls:
            secure = http.client.HTTPSConnection("127.0.0.1", port, timeout=30, context=unverified())
            self.connection: http.client.HTTPConnection = secure
        else:
            self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        self.headers = browser_headers() if load.script in ("browser.lua", "visitors.lua") else {}
        self.varies = load.script == "visitors.lua"
        self.sent = 0
        if load.closes:
            self.headers["Connection"] = "close"
        self.body = b"x" * load.request_body or None
        self.method = load.method

    def send(self, times):
        for _ in range(times):
            self.sent += 1
            if self.varies:
                self.headers["Cookie"] = f"sessionid={self.sent * 7919:032x}; csrftoken={self.sent * 104729:032x}"
            self.connection.request(self.method, "/", body=self.body, headers=self.headers)
            response = self.connection.getresponse()
            response.read()
            if response.status != 200:
                raise Failed(f"status {response.status}")


def browser_headers():
    """The headers of browser.lua, so that they are written down once."""
    text = Path(__file__).with_name("browser.lua").read_text()
    found = re.findall(r"wrk\.headers\[\"(.+?)\"\] = (['\"])(.*)\2$", text, re.MULTILINE)
    return {name: value for name, _, value in found}
