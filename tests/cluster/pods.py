"""A pod and its kubelet: one container with the real server, probed, restarted, and ended as Kubernetes does it.

What it does is in the documentation of Kubernetes (pod lifecycle, configure probes): a startup probe holds the other
two back; a readiness probe goes on after the pod is deleted, a liveness probe does not; the grace period runs from the
deletion, and preStop is part of it; a container that ends is started again at once the first time, and later with a
back-off that doubles.
"""

import contextlib
import itertools
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from clients import ask
from networks import PORT, Network

FIRST_BACK_OFF, LONGEST_BACK_OFF = 10.0, 300.0
# How often the kubelet looks; the real one hears of a container's end by an event.
TURN = 0.02


@dataclass(frozen=True)
class Probe:
    path: str
    period: float
    timeout: float
    failures: int


@dataclass(frozen=True)
class Template:
    """What a Deployment says of its pods."""

    # The program, and its arguments.
    command: tuple[str, ...]
    folder: Path
    startup: Probe
    readiness: Probe
    liveness: Probe
    grace: float
    pre_stop: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)


class Container(Enum):
    """`WAITING`: between two containers. `STARTING`: the startup probe has not passed yet."""

    WAITING = auto()
    STARTING = auto()
    UNREADY = auto()
    READY = auto()


@dataclass(frozen=True)
class Endpoint:
    """A pod in an EndpointSlice."""

    address: str
    ready: bool
    serving: bool


class Pod:
    """Lives until `delete`, and then for as long as its container, or its grace period."""

    numbers = itertools.count(1)

    def __init__(self, network: Network, template: Template, changed: Callable[[], None]) -> None:
        self.name = f"pod-{next(Pod.numbers)}"
        self.template, self.changed = template, changed
        self.place = network.add_pod()
        self.binding = network.binding(self.place)
        self.address = self.place.address
        self.log = template.folder / f"{self.name}.log"
        self.ledger = template.folder / f"{self.name}.orders"
        self.container = Container.WAITING
        self.process: subprocess.Popen[bytes] | None = None
        self.deleted, self.gone = threading.Event(), threading.Event()
        self.deleted_at = 0.0
        self.is_killed = False
        # The exit status of each container that has ended; negative for a signal.
        self.ends: list[int] = []
        # Of the container that serves: seconds until it was ready.
        self.boot_seconds = 0.0
        threading.Thread(target=self.live, name=self.name, daemon=True).start()

    @property
    def endpoint(self) -> Endpoint:
        serving = self.container is Container.READY
        return Endpoint(self.address, serving and not self.deleted.is_set(), serving)

    @property
    def is_ready(self) -> bool:
        return self.endpoint.ready

    def delete(self) -> None:
        self.deleted_at = time.monotonic()
        self.deleted.set()
        self.changed()

    def kill(self) -> None:
        """At once and whole, whatever it does: the laboratory's end, and none of Kubernetes' doings."""
        self.deleted_at = self.deleted_at or time.monotonic()
        self.deleted.set()
        with contextlib.suppress(ProcessLookupError):
            if self.process is not None:
                os.killpg(self.process.pid, signal.SIGKILL)

    def workers(self) -> list[int]:
        if self.process is None:
            return []
        with contextlib.suppress(OSError):
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
            return [int(child) for child in children.split()]
        return []

    def orders(self) -> list[str]:
        return self.ledger.read_text().split() if self.ledger.exists() else []

    def live(self) -> None:
        """The kubelet's part."""
        with self.place.entered:
            back_off = 0.0
            while not self.deleted.wait(back_off):
                process = self.start()
                if self.watch(process):
                    self.stop(process)
                self.ends.append(process.wait())
                self.become(Container.WAITING)
                back_off = min(max(FIRST_BACK_OFF, back_off * 2), LONGEST_BACK_OFF) if len(self.ends) > 1 else 0.0
        self.place.leave()
        self.gone.set()
        self.changed()

    def start(self) -> "subprocess.Popen[bytes]":
        # The server must not outlive this thread: the kernel sees to it.
        words = ["setpriv", "--pdeathsig", "KILL", *self.template.command, *self.binding]
        environment = {"PATH": os.environ["PATH"], "APP_LEDGER": str(self.ledger), **self.template.environment}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, env=environment, cwd=self.template.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        return self.process

    def watch(self, process: "subprocess.Popen[bytes]") -> bool:
        """Probes a container until it has ended (false) or is to be stopped (true)."""
        started = time.monotonic()
        self.become(Container.STARTING)
        startup, readiness = Watch(self.template.startup), Watch(self.template.readiness)
        liveness = Watch(self.template.liveness)
        while process.poll() is None:
            if self.deleted.wait(TURN):
                return True
            if self.container is Container.STARTING:
                startup.look(self.address)
                if startup.has_failed:
                    return True
                if startup.has_passed:
                    self.become(Container.UNREADY)
                continue
            self.look_for_readiness(readiness)
            if self.is_ready and not self.boot_seconds:
                self.boot_seconds = time.monotonic() - started
            liveness.look(self.address)
            if liveness.has_failed:
                return True
        return False

    def look_for_readiness(self, readiness: "Watch") -> None:
        readiness.look(self.address)
        if readiness.has_passed:
            self.become(Container.READY)
        elif readiness.has_failed:
            self.become(Container.UNREADY)

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """preStop, TERM, KILL, with readiness probes meanwhile."""
        begun = self.deleted_at if self.deleted.is_set() else time.monotonic()
        readiness = Watch(self.template.readiness)
        is_told = False
        while process.poll() is None:
            waited = time.monotonic() - begun
            if not is_told and waited >= self.template.pre_stop:
                process.send_signal(signal.SIGTERM)
                is_told = True
            if waited >= self.template.grace:
                self.is_killed = True
                os.killpg(process.pid, signal.SIGKILL)
                return
            if self.container in (Container.UNREADY, Container.READY):
                self.look_for_readiness(readiness)
            time.sleep(TURN)

    def become(self, container: Container) -> None:
        if container is not self.container:
            self.container = container
            self.changed()


class Watch:
    """A probe as time goes: when it is due, and how often it has failed in a row."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.due = time.monotonic()
        self.failures = 0
        self.has_passed = False

    def look(self, address: str) -> None:
        """Asks if it is time to."""
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + self.probe.period
        answer = ask((address, PORT), self.probe.path, self.probe.timeout)
        self.has_passed = answer is not None and 200 <= answer.status < 400
        self.failures = 0 if self.has_passed else self.failures + 1

    @property
    def has_failed(self) -> bool:
        return self.failures >= self.probe.failures
