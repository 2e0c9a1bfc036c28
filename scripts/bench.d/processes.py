"""A server's processes: started on one core, looked at through /proc, and ended by pid."""

import contextlib
import os
import re
import signal
import socket
import ssl
import subprocess
import time
from pathlib import Path

TICK = os.sysconf("SC_CLK_TCK")

# How long a server may take to answer first, and to end; the slowest start is that of a server under callgrind.
START_SECONDS = 20
STOP_SECONDS = 5


class Failed(Exception):
    """The server did not start, or gave a wrong answer; the text says which."""


class Server:
    """A running server of `load`; `start_ms` is the time from exec to its first answer."""

    def __init__(self, command, load, core, environment, cwd, output, port, start_seconds=START_SECONDS):
        self.load = load
        self.port = port
        self.output = output
        pinned = ["taskset", "-c", str(core), *map(str, command)]
        with open(output, "wb") as log:
            started = time.monotonic()
            self.process = subprocess.Popen(pinned, env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
                                            stdout=log, stderr=log, start_new_session=True)
        try:
            self._await_answer(started + start_seconds)
        except Failed:
            self.stop()
            raise
        self.start_ms = (time.monotonic() - started) * 1000

    def _await_answer(self, deadline):
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise Failed(f"it ended with status {self.process.returncode}: {self._last_words()}")
            try:
                self.ask()
                return
            except OSError:
                time.sleep(0.001)
        raise Failed("it did not answer in time: " + self._last_words())

    def _last_words(self):
        lines = Path(self.output).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def ask(self, path=None, timeout=5.0):
        """One request of the load over its own connection: (response, seconds to the first byte of the body)."""
        method, body = self.load.method, b"x" * self.load.request_body
        path = path or self.load.path
        with self._connect(timeout) as connection:
            head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
            head += f"Content-Length: {len(body)}\r\n\r\n"
            sent = time.monotonic()
            connection.sendall(head.encode() + body)
            response, first = b"", None
            while not is_whole(response) and (block := connection.recv(65536)):
                response += block
                _, _, content = response.partition(b"\r\n\r\n")
                if content and first is None:
                    first = time.monotonic() - sent
        if not response:
            raise OSError("closed without an answer")
        return response, first

    def _connect(self, timeout):
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=timeout)
        return unverified().wrap_socket(connection) if self.load.tls else connection

    def pids(self):
        """The whole tree, the first process first."""
        children: dict[int, list[int]] = {}
        for pid, fields in all_stats():
            children.setdefault(int(fields[1]), []).append(pid)
        tree = [self.process.pid]
        for pid in tree:
            tree += children.get(pid, [])
        return tree

    def cpu_seconds(self):
        """User and system time of the tree, with that of children that have ended and been reaped."""
        tree = set(self.pids())
        # utime, stime, cutime, cstime: fields 14 to 17 of proc_pid_stat(5); ours start at field 3.
        return sum(sum(map(int, fields[11:15])) for pid, fields in all_stats() if pid in tree) / TICK

    def memory_kb(self):
        """The proportional set size of each process of the tree, the first process first."""
        return [pss for pid in self.pids() if (pss := proportional_set_size(pid)) is not None]

    def stop(self):
        """Ends the tree: politely, then by force. Bounded in time."""
        tree = self.pids()
        end(self.process.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        for pid in tree:
            if still_in_session(pid, self.process.pid):
                end(pid, signal.SIGKILL)
        self.process.wait(STOP_SECONDS)


def unverified():
    """A TLS context that takes any certificate: those of the bench are nobody's."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def is_whole(response):
    """Whether a response has ended by its own account; servers that do not close when asked to are not waited for."""
    head, end_of_head, content = response.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
    if length:
        return bool(end_of_head) and len(content) >= int(length.group(1))
    return content.endswith(b"0\r\n\r\n")


def all_stats():
    """(pid, fields of /proc/PID/stat from the state on) of every process."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                text = Path("/proc", name, "stat").read_text()
            except OSError:
                continue
            # The name in parentheses may hold anything, even parentheses.
            yield int(name), text[text.rindex(")") + 2 :].split()


def still_in_session(pid, session):
    """Whether `pid` is a process of that session still, and not one that took its number since."""
    try:
        return os.getsid(pid) == session
    except OSError:
        return False


def proportional_set_size(pid):
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass
    return None


def end(pid, with_signal):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, with_signal)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
