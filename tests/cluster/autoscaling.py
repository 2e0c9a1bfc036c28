"""The autoscaling simulation: ten times the load in a minute, and what becomes of the queue.

    autoscaling.py short | table

`short` is the documented case and the comparison; `table` prints the table of docs/internals/rollouts.md. The cluster
is a model (cluster_model.py), the server's figures in it are measured (figures.json). The same seed gives the same
table, on every machine.
"""

import itertools
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cluster_model import Busy, ClusterModel, Figures, Processor, Signal, Window
from hpa import DEFAULT_DOWN, DEFAULT_UP, SYNC_SECONDS, Autoscaler, Policy, Rules
from pod_model import App

# Seconds: of calm, of the rise and the fall, of the height, and of the calm after it.
CALM, RAMP, HEIGHT, AFTER = 60, 60, 840, 600
# The height of the short form: longer than it takes until the queue is short for good.
SHORT_HEIGHT = 540
FACTOR = 10
# What the queue's 95th percentile must stay below once there are enough pods.
QUEUE_LIMIT = 0.1
WAITS, COMPUTES = App("waits", waits=0.09, computes=0.01), App("computes", waits=0.01, computes=0.04)
# Of examples/kubernetes/overlays/production/autoscaler.yaml.
OVERLAY_UP = Rules(0, (Policy(100, 30), Policy(4, 30, is_percent=False)))
OVERLAY_DOWN = Rules(300, (Policy(25, 60),))
TARGET = 0.65


@dataclass(frozen=True)
class Case:
    what: str
    app: App
    signal: Signal
    # Pods before, and the most.
    first: int = 90
    most: int = 1200
    up: Rules = DEFAULT_UP
    down: Rules = DEFAULT_DOWN
    # Whether the queue is to be short in the end; None: it is there to compare with.
    scales: bool | None = True


DOCUMENTED = Case("busy share, as in the example", WAITS, Busy())
BY_PROCESSOR = Case(
    "processor time, as in the overlay", WAITS, Processor(), up=OVERLAY_UP, down=OVERLAY_DOWN, scales=False
)
CASES = (
    DOCUMENTED,
    Case("busy share, 2 pods at first", WAITS, Busy(), first=2, most=20),
    Case("busy share and who waits", WAITS, Busy(waiting_share=1.0)),
    BY_PROCESSOR,
    Case("busy share, as in the example", COMPUTES, Busy(), scales=None),
    Case("busy share and who waits", COMPUTES, Busy(waiting_share=1.0), scales=None),
    Case("processor time, as in the overlay", COMPUTES, Processor(), up=OVERLAY_UP, down=OVERLAY_DOWN),
)


@dataclass
class Result:
    """Times are seconds after the load begins to rise; None: it does not happen while the load is high."""

    case: Case
    enough_after: float | None
    short_after: float | None
    # The worst 95th percentile after that, through the fall of the load and the calm after it.
    worst_after: float
    most_pods: int
    # Changes of direction while the load is high: 1 is an excess that is taken back.
    reversals: int
    refused: float

    def row(self) -> str:
        case = self.case
        times = " | ".join("never" if time is None else f"{time:g} s" for time in (self.enough_after, self.short_after))
        worst = "-" if self.short_after is None else f"{self.worst_after * 1000:.0f} ms"
        return (
            f"| {case.app.name} | {case.what} | {case.first} | {times} | {worst} | {self.most_pods} | {self.reversals} "
            f"| {self.refused:.0%} |"
        )

    def faults(self) -> list[str]:
        """What is not as it must be."""
        if self.case.scales is None:
            return []
        if not self.case.scales:
            return [] if self.short_after is None else ["it scales, and should not"]
        faults = []
        if self.short_after is None or self.worst_after >= QUEUE_LIMIT:
            faults.append("the queue does not stay short")
        if self.reversals > 1:
            faults.append("the number of pods goes up and down")
        return faults


def figures() -> Figures:
    """The measured ones, with the base's two workers of four threads."""
    measured = json.loads(Path(__file__).with_name("figures.json").read_text())
    return Figures(measured["boot_seconds"], workers=2, threads=4, queue_factor=measured["queue_factor"])


def rate_of_full_pod(app: App, measured: Figures) -> float:
    """Requests a second that fill a pod: threads bound an app that waits, interpreters one that computes."""
    threads = measured.workers * measured.threads
    by_processor = measured.workers / app.computes if app.computes else math.inf
    return min(threads / (app.waits + app.computes), by_processor)


def play(case: Case, seed: int = 1, height: int = HEIGHT, after: int = AFTER) -> Result:
    measured = figures()
    full = rate_of_full_pod(case.app, measured)
    low = case.first * full * TARGET * 0.95

    def load(now: float) -> float:
        return low * (1 + (FACTOR - 1) * height_at(now, height))

    scaler = Autoscaler(min(2, case.first), case.most, case.up, case.down)
    cluster = ClusterModel(case.app, measured, case.signal, scaler, case.first, seed)
    windows = cluster.run(load, CALM + RAMP + height + after)
    # The least that serves it with a queue that drains.
    enough = math.ceil(low * FACTOR / full / 0.9)
    return judge(case, windows, enough, height)


def height_at(now: float, height: int) -> float:
    """From 0, the calm, to 1."""
    rising, falling = (now - CALM) / RAMP, (now - CALM - RAMP - height) / RAMP
    return min(max(0.0, rising), 1.0) - min(max(0.0, falling), 1.0)


def judge(case: Case, windows: Sequence[Window], enough: int, height: int = HEIGHT) -> Result:
    end = CALM + RAMP + height
    high = [window for window in windows if CALM < window.now <= end]
    enough_at = next((window.now for window in high if window.ready >= enough), None)
    long_queues = [window.now for window in high if window.p95 >= QUEUE_LIMIT]
    # The load begins to rise at CALM: a queue that was never long is short from then on.
    short_at: float | None = (long_queues[-1] if long_queues else CALM) + SYNC_SECONDS
    if short_at is not None and short_at > end:
        short_at = None
    worst = max((window.p95 for window in windows if short_at is not None and window.now >= short_at), default=0.0)
    counts = [window.wanted for window in high]
    steps = [after - before for before, after in itertools.pairwise(counts) if after != before]
    reversals = sum((one > 0) != (other > 0) for one, other in itertools.pairwise(steps))
    arrived = sum(window.rate for window in windows)
    refused = sum(window.refused * window.rate for window in windows) / arrived
    return Result(
        case, since_rise(enough_at), since_rise(short_at), worst, max(window.wanted for window in windows), reversals,
        refused,
    )  # fmt: skip


def since_rise(now: float | None) -> float | None:
    return None if now is None else now - CALM


def short() -> list[str]:
    """The documented case, and the comparison, for as long as the load is high."""
    results = [play(DOCUMENTED, height=SHORT_HEIGHT, after=0), play(BY_PROCESSOR, height=SHORT_HEIGHT // 2, after=0)]
    print("\n".join(result.row() for result in results))
    return [f"{result.case.what}: {fault}" for result in results for fault in result.faults()]


def table() -> list[str]:
    print("| app | scaled by | pods at first | enough pods after | queue short after | worst p95 then | most pods "
          "| reversals | refused |\n|---|---|---|---|---|---|---|---|---|")  # fmt: skip
    faults = []
    for case in CASES:
        result = play(case)
        print(result.row(), flush=True)
        faults += [f"{case.app.name}, {case.what}: {fault}" for fault in result.faults()]
    return faults


PROOFS: dict[str, Callable[[], list[str]]] = {"short": short, "table": table}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in PROOFS:
        sys.exit(__doc__)
    if found := PROOFS[sys.argv[1]]():
        sys.exit("\n".join(found))
    print(f"{sys.argv[1]}: held")
