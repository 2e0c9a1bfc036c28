"""An image of the example, built by buildah and run by podman: what a container gives the server, and what it wants.

No registry is asked: the base of the image is what debootstrap makes, under the name that the Containerfile has. What
Debian's packages bring: apt-get install buildah podman runc debootstrap
"""

import contextlib
import json
import os
import shutil
import tarfile
import time
from pathlib import Path
from typing import Any

import common
from common import PYTHON, WHEEL, WORK, Browser, expect, free_port, run, wait_for

TOOLS = ["buildah", "podman", "runc", "debootstrap"]
# The release of Debian that has the wheel's Python.
SUITES = {"3.11": "bookworm", "3.13": "trixie"}
IMAGE = "localhost/monoceros-test:1"
# The container's name: of this run, so that two runs do not meet.
NAME = f"monoceros-test-{os.getpid()}"
USER = 10001
# Nothing of the machine's own images is touched.
STORAGE = [f"--root={WORK}/images", f"--runroot={WORK}/run", "--storage-driver=vfs"]

CONFIGURATION = """
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=4096:4096"]
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
"""

APP = '''
import json, os, subprocess, sys, time

def app(environ, start_response):
    answer = globals()[environ["PATH_INFO"].strip("/") or "about"]()
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]

def about():
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
    try:
        open("/srv/app/new", "w")
        root = "writable"
    except OSError as error:
        root = error.strerror
    return {"first": open("/proc/1/cmdline").read(), "parent": os.getppid(), "uid": os.getuid(), "root": root,
            "capabilities": status["CapEff"].strip(), "no_new_privileges": status["NoNewPrivs"].strip()}

def eat():
    eaten = [bytearray(b"x" * (1 << 20)) for _ in range(400)]
    return len(eaten)

def leave_orphans():
    sleeper = "[sys.executable, '-c', 'import time; time.sleep(1)']"
    program = f"import subprocess, sys; [subprocess.Popen({sleeper}) for _ in range(5)]"
    subprocess.run([sys.executable, "-c", program], check=True)
    return True

def processes():
    states = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                states.append(open(f"/proc/{name}/stat").read().rpartition(")")[2].split()[0])
            except OSError:
                pass
    return states
'''


def image() -> None:
    """Built whole, then: PID 1, read only, a numeric user without capabilities, a limit of memory, orphans, TERM."""
    version = run([PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]).strip()
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing or version not in SUITES:
        print(f"skipped: needs {' '.join(missing) or 'a Python of a release of Debian'}")
        return
    configuration = WORK / "containers.conf"
    configuration.write_text(CONFIGURATION)
    os.environ["CONTAINERS_CONF"] = str(configuration)
    make_base(SUITES[version])
    build()
    if starts():
        try:
            live()
        finally:
            podman("rm", "--force", "--ignore", NAME)


def podman(*words: str) -> str:
    # conmon leaves a file named oom where it was started.
    return run(["podman", *STORAGE, *words], folder=WORK)


def buildah(*words: str) -> str:
    return run(["buildah", *STORAGE, *words])


def make_base(suite: str) -> None:
    """The image that the example begins from, with what this machine knows of mirrors and indexes."""
    packages = "python3,python3-venv,ca-certificates,tzdata"
    base = WORK / "base"
    run(["debootstrap", "--variant=minbase", f"--include={packages}", suite, str(base)])
    for path in ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt"):
        if Path(path).exists():
            shutil.copy2(path, base / path[1:])
    with tarfile.open(WORK / "base.tar", "w") as archive:
        archive.add(base, ".")
    folder = WORK / "base-image"
    folder.mkdir()
    (WORK / "base.tar").rename(folder / "base.tar")
    # The packages are there, so that apt need not reach a mirror from inside.
    (folder / "Containerfile").write_text(
        "FROM scratch\nADD base.tar /\nRUN printf '#!/bin/sh\\n' >/usr/bin/apt-get && chmod 755 /usr/bin/apt-get\n"
    )
    buildah("bud", "--isolation", "chroot", "--tag", "docker.io/library/debian:13-slim", str(folder))
    shutil.rmtree(base)


def build() -> None:
    source = common.example("container")
    (source / "app.py").write_text(APP)
    shutil.copy2(WHEEL, source / "vendor")
    index = [word for name, value in os.environ.items() if name.startswith("PIP_INDEX") or name == "PIP_CERT"
             for word in ("--env", f"{name}={value}")]  # fmt: skip
    buildah("bud", "--isolation", "chroot", *index, "--file", "Containerfile.scratch", "--tag", IMAGE, str(source))


def starts() -> bool:
    """Whether podman can run anything on this machine."""
    try:
        podman("run", "--rm", "--network=host", "--entrypoint", "/venv/bin/python", IMAGE, "-c", "")
    except common.Failure as failure:
        print(f"skipped: podman starts no container here: {str(failure)[-300:]}")
        return False
    return True


def live() -> None:
    port = free_port()
    podman(
        "run", "--detach", f"--name={NAME}", "--network=host", "--read-only", "--tmpfs=/tmp", "--cap-drop=all",
        "--security-opt=no-new-privileges", "--memory=200m", "--memory-swap=200m", "--stop-timeout=45", IMAGE,
        "--bind", f"127.0.0.1:{port}", "--workers", "2", "app:app",
    )  # fmt: skip
    wait_for("the server", lambda: common.can_connect(port))
    browser = Browser(port)

    about = read(browser, "/")
    expect(about["first"].startswith("monoceros: master"), "the master is the first process", about)
    expect(about["parent"] == 1, "it is the worker's parent", about)
    expect(about["uid"] == USER, "the user is the image's", about)
    expect(about["root"] == "Read-only file system", "nothing may be written", about)
    expect(int(about["capabilities"], 16) == 0 and about["no_new_privileges"] == "1", "no rights", about)
    expect(read(browser, "/leave_orphans"), "five processes have lost their parent")
    wait_for("the end of the orphans", lambda: len(states := read(browser, "/processes")) == 3 and "Z" not in states)

    # The worker dies of it, with the connection or with 500.
    with contextlib.suppress(OSError, common.Failure):
        read(browser, "/eat")
    said = "Out of memory: the kernel has killed it at the limit of its cgroup."
    wait_for("the reason in the log", lambda: said in podman("logs", NAME))
    wait_for("another worker", lambda: read(browser, "/processes").count("S") >= 2)

    began = time.monotonic()
    podman("stop", NAME)
    took = time.monotonic() - began
    status = podman("inspect", "--format", "{{.State.ExitCode}}", NAME).strip()
    expect(status == "0" and took < 10, "it ends by itself, at once", f"status {status}, {took:.1f} s")


def read(browser: Browser, path: str) -> Any:
    return json.loads(browser.get(path))


if __name__ == "__main__":
    common.run_scenario(globals())
