"""What the simulators of platforms share: a folder, processes that end with the test, a browser, and patience.

Each simulator is a program of its own, `PROGRAM SCENARIO`, which ends with status 0 if the scenario held. Rust tests
start it; by hand it needs MONOCEROS_WHEEL and, for another Python than its own, PLATFORM_PYTHON.
"""

import atexit
import contextlib
import ctypes
import fcntl
import http.cookiejar
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

ROOT = Path(__file__).resolve().parents[2]
STAGE = ROOT / "scripts/stage"
WHEEL = os.environ.get("MONOCEROS_WHEEL", "")
PYTHON = os.environ.get("PLATFORM_PYTHON", sys.executable)
# For what must happen on a busy machine, too.
PATIENCE = 60.0
# Nobody's: a user without an entry in passwd, as OpenShift assigns them.
STRANGER = 1000670000

WORK = Path(tempfile.mkdtemp(prefix="monoceros-platform-"))
WORK.chmod(0o755)


def run_scenario(scenarios: dict[str, object]) -> None:
    """Runs the scenario that the command line names, one of the functions with a docstring."""
    name = sys.argv[1] if len(sys.argv) == 2 else ""
    scenario = scenarios.get(name)
    if not callable(scenario) or not WHEEL:
        sys.exit(f"usage: MONOCEROS_WHEEL=PATH {sys.argv[0]} SCENARIO")
    scenario()
    print(f"{name}: held", flush=True)


@atexit.register
def clean_up() -> None:
    """Ends what was started, and leaves nothing behind."""
    for process in Process.started:
        process.kill()
    if not os.environ.get("PLATFORM_KEEP"):
        shutil.rmtree(WORK, ignore_errors=True)


class Failure(AssertionError):
    """Something was not as the platform or its users need it."""


class Process:
    """A process with a session of its own, so that all it starts can be ended with it; its words go to a file."""

    started: ClassVar[list["Process"]] = []

    def __init__(self, command: list[str], env: dict[str, str], folder: Path, log: Path) -> None:
        self.log_path = log
        with log.open("ab") as output:
            self.child = subprocess.Popen(
                command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        Process.started.append(self)

    @property
    def pid(self) -> int:
        return self.child.pid

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    @property
    def is_over(self) -> bool:
        return self.child.poll() is not None

    def stop(self, seconds: float) -> int:
        """TERM to the process alone; its status, which must come in time."""
        self.child.send_signal(signal.SIGTERM)
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failure(f"still there {seconds} s after TERM:\n{self.log}") from None

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()


class Browser:
    """A client with cookies, that fills in Django's forms."""

    def __init__(self, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        self.cookies = http.cookiejar.CookieJar()
        self.opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies)
        )

    def get(self, path: str, headers: dict[str, str] | None = None) -> str:
        return self.open(urllib.request.Request(self.base + path, headers=headers or {}))

    def post(self, path: str, **fields: str) -> str:
        """Sends a form that has been got before, with the token that Django asks for."""
        token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', self.get(path))
        if not token:
            raise Failure(f"{path} has no form")
        data = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
        return self.open(urllib.request.Request(self.base + path, data, {"Referer": self.base + path}))

    def open(self, request: urllib.request.Request) -> str:
        try:
            with self.opener.open(request, timeout=PATIENCE) as response:
                return response.read().decode()
        except urllib.error.HTTPError as error:
            raise Failure(f"{request.full_url}: {error.code}\n{error.read().decode(errors='replace')[:2000]}") from None


def log_in(browser: Browser, name: str, password: str) -> None:
    """Into Django's admin."""
    page = browser.post("/admin/login/?next=/admin/", username=name, password=password)
    expect("Site administration" in page, "the administrator is in", page)


def expect(condition: object, what: str, seen: object = "") -> None:
    if not condition:
        raise Failure(f"not so: {what}\n{seen}")


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)


def run(command: list[str], env: dict[str, str] | None = None, folder: Path | None = None, status: int = 0) -> str:
    """Runs a command to its end, which must be that status; all that it says."""
    done = subprocess.run(
        command, env=env, cwd=folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, errors="replace", check=False,
    )  # fmt: skip
    expect(done.returncode == status, f"{command} ends with {status}, and not {done.returncode}", done.stdout)
    return done.stdout


def plain_environment(**more: str) -> dict[str, str]:
    """What is this machine's and not the developer's: how programs and packages are found."""
    kept = {name: value for name, value in os.environ.items() if name == "PATH" or name.startswith("PIP_")}
    return {**kept, **more}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def can_connect(port: int) -> bool:
    with socket.socket() as client:
        client.settimeout(1)
        return client.connect_ex(("127.0.0.1", port)) == 0


def copy(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__")))


def example(name: str) -> Path:
    """A copy of one of the examples, without what is left where somebody has tried it by hand."""
    left = shutil.ignore_patterns("__pycache__", ".venv*", "staticfiles", "*.sqlite3*")
    return Path(shutil.copytree(ROOT / "examples" / name, WORK / "source", ignore=left))


def cut_the_network() -> None:
    """From here on this process and all that it starts have no network but a loopback of their own: unshare -n."""
    clone_newnet, siocsifflags, iff_up = 0x40000000, 0x8914, 1
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(clone_newnet):
        raise Failure(f"unshare: {os.strerror(ctypes.get_errno())} (root may)")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, siocsifflags, struct.pack("16sh14x", b"lo", iff_up))
    try:
        socket.create_connection(("192.0.2.1", 80), timeout=1).close()
    except OSError:
        return
    raise Failure("there is still a network")


def as_stranger(command: list[str], writable: Path) -> list[str]:
    """The command as a user whom nobody knows, of group 0, on a root that is read only but for one folder."""
    base = Path(run([PYTHON, "-c", "import sys; print(sys.base_prefix)"]).strip())
    closed = next((path for path in reversed(base.parents) if not path.stat().st_mode & 0o001), None)
    script = ["set -e", "mount --make-rprivate /"]
    if closed:
        # The interpreter may lie in a home that others may not enter: it alone is put into an open one.
        script += [
            f"mount --bind {base} /mnt", f"mount -t tmpfs none {closed}", f"chmod 755 {closed}", f"mkdir -p {base}",
            f"mount --move /mnt {base}",
        ]  # fmt: skip
    script += [
        f"mkdir -p {writable}", "mount --rbind / /mnt", "mount -o remount,bind,ro /mnt",
        f"mount --bind {writable} /mnt{writable}", "cd /mnt",
        f'exec chroot /mnt setpriv --reuid {STRANGER} --regid 0 --clear-groups --no-new-privs "$@"',
    ]  # fmt: skip
    return ["unshare", "-m", "sh", "-c", "\n".join(script), "sh", *command]
