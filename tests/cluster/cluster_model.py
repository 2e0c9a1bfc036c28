"""A cluster under a load that changes: up to a thousand pods, what measures them, and what makes more of them.

Each pod gets an equal share of a Poisson stream, as random choice by connection makes it: so pods that began together
are alike, and a few of them, simulated request by request, stand for all that did. That is exact for everything but the
chance in the sum of the others, which is smaller than that in the few.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from hpa import SYNC_SECONDS, Autoscaler, PodMetric, replicas_by_total, replicas_by_utilization
from pod_model import App, PodModel

# PodMonitor's interval in the examples; the resolution of metrics-server.
SCRAPE_SECONDS, RESOLUTION_SECONDS = 15, 15
# Pods become ready by turns.
ROUND_SECONDS = 10
# What stands for a cohort, at most.
FIRST_SAMPLE, SAMPLE = 3, 1


@dataclass(frozen=True)
class Figures:
    """What was measured of the real server (figures.json), and what is taken from the sources of Kubernetes."""

    # From the container's start until it passes its startup probe, and the readiness probe after it.
    boot_seconds: float
    workers: int
    threads: int
    # The queue times of the server over those of the model at the same load: at the 95th percentile.
    queue_factor: float = 1.0
    # kube-controller-manager's default of API calls a second bounds how fast pods are made.
    creations_per_second: float = 20.0
    # Scheduling, the sandbox, the image that is there already.
    start_seconds: float = 3.0
    # Until the proxies send to it.
    lag_seconds: float = 2.0


@dataclass
class Cohort:
    """Pods that became ready in the same second: `size` of them, for which `models` stand."""

    size: int
    begun: float
    ready: float
    models: list[PodModel]
    # (when, busy seconds, queue seconds) at each scrape, and (when, cpu seconds): means of the models.
    scrapes: list[tuple[float, float, float]] = field(default_factory=list)
    usages: list[tuple[float, float]] = field(default_factory=list)

    def mean(self, value: Callable[[PodModel], float]) -> float:
        return sum(value(model) for model in self.models) / len(self.models)


@dataclass
class Window:
    """What is noted each time the autoscaler looks: `p95` is of the queue times, in seconds, of what began since."""

    now: float
    rate: float
    wanted: int
    ready: int
    p95: float
    busy: float
    refused: float


class Signal:
    """What the autoscaler is driven by."""

    name = ""

    def replicas(self, cluster: "ClusterModel", current: int) -> int:
        raise NotImplementedError


@dataclass
class Busy(Signal):
    """The query of examples/kubernetes: the busy threads' share, as a number of full pods, over the target.

    `waiting_share` adds the requests that wait, to at most that share of a pod's threads: 0 is the documented query.
    """

    target: float = 0.65
    window: float = 60.0
    waiting_share: float = 0.0
    name: str = "busy share"

    def replicas(self, cluster: "ClusterModel", current: int) -> int:
        total = 0.0
        for cohort in cluster.cohorts:
            busy, waiting = self.rates(cohort, cluster.now)
            threads = cluster.threads
            total += cohort.size * (busy + min(waiting, self.waiting_share * threads)) / threads
        return replicas_by_total(total, self.target, current) if total else current

    def rates(self, cohort: Cohort, now: float) -> tuple[float, float]:
        points = [scrape for scrape in cohort.scrapes if scrape[0] > now - self.window]
        busy = rate([(when, value) for when, value, _ in points], now, self.window)
        return busy, rate([(when, value) for when, _, value in points], now, self.window)


@dataclass
class Processor(Signal):
    """metrics-server's processor time over what a pod requests, which is a processor for each worker."""

    target: float = 0.65
    name: str = "processor time"

    def replicas(self, cluster: "ClusterModel", current: int) -> int:
        pods: list[PodMetric] = []
        for cohort in cluster.cohorts:
            pods += [self.metric(cohort, cluster.now, cluster.figures.workers)] * cohort.size
        # Those on their way are pending: set aside.
        pods += [PodMetric(0.0, is_ready=False, age=0)] * (current - len(pods))
        return replicas_by_utilization(pods, self.target, current)

    def metric(self, cohort: Cohort, now: float, requested: float) -> PodMetric:
        if len(cohort.usages) < 2:
            return PodMetric(None)
        (before, first), (after, last) = cohort.usages[-2:]
        share = (last - first) / (after - before) / requested
        return PodMetric(share, True, now - cohort.begun, now - cohort.ready, now - before)


def rate(points: Sequence[tuple[float, float]], now: float, window: float) -> float:
    """Prometheus' `rate()` of a counter without resets: what was seen is stretched towards the window's bounds."""
    if len(points) < 2:
        return 0.0
    (first, least), (last, most) = points[0], points[-1]
    seen = last - first
    gap = seen / (len(points) - 1)
    before, after = (edge if edge < gap * 1.1 else gap / 2 for edge in (first - (now - window), now - last))
    if most > least:
        # A counter cannot have been below zero.
        before = min(before, seen * least / (most - least))
    return (most - least) / seen * (seen + before + after) / window


class ClusterModel:
    """Goes second by second: load, pods, scrapes, and the autoscaler each fifteenth."""

    def __init__(self, app: App, figures: Figures, signal: Signal, scaler: Autoscaler, first: int, seed: int) -> None:
        self.app, self.figures, self.signal, self.scaler, self.seed = app, figures, signal, scaler, seed
        self.threads = figures.workers * figures.threads
        self.now = 0.0
        self.serial = 0
        self.wanted = first
        # Pods on their way: (when ready, how many).
        self.coming: list[tuple[float, int]] = []
        self.created_until = 0.0
        self.cohorts = [self.cohort(first, FIRST_SAMPLE)]
        self.windows: list[Window] = []
        self.arrived: list[float] = []

    @property
    def ready(self) -> int:
        return sum(cohort.size for cohort in self.cohorts)

    def cohort(self, size: int, sample: int) -> Cohort:
        models = []
        for _ in range(min(size, sample)):
            self.serial += 1
            seed = self.seed * 1000 + self.serial
            models.append(PodModel(self.app, self.figures.workers, self.figures.threads, seed, self.now))
        return Cohort(size, self.now - self.figures.boot_seconds, self.now, models)

    def run(self, load: Callable[[float], float], seconds: int) -> list[Window]:
        for _ in range(seconds):
            self.step(load(self.now))
        return self.windows

    def step(self, arrivals: float) -> None:
        """One second, with so many arrivals in it."""
        self.now += 1
        self.arrived.append(arrivals)
        self.welcome()
        for cohort in self.cohorts:
            for model in cohort.models:
                model.advance(self.now, arrivals / self.ready)
        self.measure()
        if self.now % SYNC_SECONDS == 0:
            self.scale()
            self.note(arrivals)

    def note(self, arrivals: float) -> None:
        busy = sum(cohort.size * cohort.mean(lambda model: model.busy) for cohort in self.cohorts)
        share = busy / (self.ready * self.threads)
        self.windows.append(Window(self.now, arrivals, self.wanted, self.ready, self.p95(), share, self.refused()))

    def refused(self) -> float:
        """The share of the requests since the last window that found no room."""
        refused = sum(cohort.size * cohort.mean(lambda model: model.take_refused()) for cohort in self.cohorts)
        return refused / sum(self.arrived[-int(SYNC_SECONDS):])

    def welcome(self) -> None:
        """Pods that have become ready."""
        arrived = sum(size for when, size in self.coming if when <= self.now)
        self.coming = [(when, size) for when, size in self.coming if when > self.now]
        if arrived:
            self.cohorts.append(self.cohort(arrived, SAMPLE))

    def measure(self) -> None:
        """Scrapes, at a moment of each cohort's own, and metrics-server's turn."""
        for number, cohort in enumerate(self.cohorts):
            if (self.now + number * 7) % SCRAPE_SECONDS == 0:
                busy = cohort.mean(lambda model: model.busy_seconds)
                queued = cohort.mean(lambda model: model.queue_seconds)
                cohort.scrapes = [*cohort.scrapes[-20:], (self.now, busy, queued)]
            if self.now % RESOLUTION_SECONDS == 5:
                cohort.usages = [*cohort.usages[-1:], (self.now, cohort.mean(lambda model: model.cpu_seconds))]

    def scale(self) -> None:
        wanted = self.scaler.decide(self.now, self.wanted, self.signal.replicas(self, self.wanted))
        if wanted > self.wanted:
            self.create(wanted - self.wanted)
        elif wanted < self.wanted:
            self.remove(self.wanted - wanted)
        self.wanted = wanted

    def create(self, number: int) -> None:
        """They are made one after the other, and all that were made in a second become ready in one."""
        figures = self.figures
        self.created_until = max(self.created_until, self.now)
        takes = figures.start_seconds + figures.boot_seconds + figures.lag_seconds
        for _ in range(number):
            self.created_until += 1 / figures.creations_per_second
            # Whole turns keep the number of cohorts small; up to ten seconds are what is lost by it.
            ready = math.ceil((self.created_until + takes) / ROUND_SECONDS) * ROUND_SECONDS
            self.coming.append((ready, 1))

    def remove(self, number: int) -> None:
        """Those that are not ready first, then the youngest; what they have, they finish."""
        while number and self.coming:
            self.coming.pop()
            number -= 1
        while number:
            youngest = self.cohorts[-1]
            taken = min(number, youngest.size)
            youngest.size -= taken
            number -= taken
            if not youngest.size:
                self.cohorts.pop()

    def p95(self) -> float:
        """Over all pods since the last window, each wait with the weight of the pods that it stands for."""
        weighed = []
        for cohort in self.cohorts:
            for model in cohort.models:
                weight = cohort.size / len(cohort.models)
                weighed += [(wait * self.figures.queue_factor, weight) for wait in model.waits]
                model.waits.clear()
        weighed.sort()
        rest = 0.95 * sum(weight for _, weight in weighed)
        for wait, weight in weighed:
            rest -= weight
            if rest <= 0:
                return wait
        return 0.0
