"""What the autoscaling simulation takes from the real server: how long it boots, what its metrics say, how long
requests wait for a thread.

    measure.py [--write]

Starts the server with the documented settings, sends it a Poisson stream that fills two thirds of its threads, and
holds its metrics against what the same requests do in a queue that is nothing but arithmetic. --write keeps the figures
in figures.json; without it they must be like those that are kept there, as far as a busy machine lets that be said.
"""

import argparse
import json
import random
import re
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from heapq import heappop, heappush
from pathlib import Path

import networks
from clients import ask
from control import Cluster, expect
from networks import METRICS_PORT, PORT
from pods import Pod
from scenarios import Lab

KEPT = Path(__file__).with_name("figures.json")
BOOTS = 5
WORKERS, THREADS = 2, 4
# Seconds of load, and a request's on average.
SECONDS, SERVICE = 60, 0.1
SHARE = 0.65
# More requests at once than a pod of eight threads ever has at that load.
MOST_AT_ONCE = 100
# Between a measurement and the next, on machines with other things to do.
LIKENESS = 3.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    with Lab(networks.choose("any")).opened() as lab:
        figures = measure(lab)
    print(json.dumps(figures, indent=2), flush=True)
    if options.write:
        KEPT.write_text(json.dumps(figures, indent=2) + "\n")
    expect(abs(figures["busy_share"] / figures["busy_share_true"] - 1) < 0.1, "the busy share is true", figures)
    kept = json.loads(KEPT.read_text())
    for name in ("boot_seconds", "queue_p95"):
        expect(1 / LIKENESS < figures[name] / kept[name] < LIKENESS, f"{name} is like {kept[name]}", figures)
    print("measure: held")


def measure(lab: Lab) -> dict[str, float]:
    with Cluster(lab.network, [0]).living() as cluster:
        boots = []
        for _ in range(BOOTS):
            cluster.scale(lab.template(), 1)
            boots.append(cluster.pods[0].boot_seconds)
            cluster.pods.pop().kill()
        cluster.scale(lab.template(), 1)
        # A startup probe that comes a moment too early asks again a period later: chance, which is taken to be bad.
        figures = {"boot_seconds": round(max(*boots, lab.template().startup.period), 2)}
        return figures | serve(cluster.pods[0])


def serve(pod: Pod) -> dict[str, float]:
    """A Poisson stream of requests that wait, and what the metrics have of it."""
    before, begun = metrics(pod), time.monotonic()
    sent = stream(pod)
    seconds = time.monotonic() - begun
    after = metrics(pod)
    gained = {name: after[name] - before.get(name, 0) for name in after}
    threads = WORKERS * THREADS
    busy = sum(value for name, value in gained.items() if name.startswith("monoceros_busy_seconds_total"))
    measured = quantile(gained, 0.95)
    modelled = sorted(waits(sent, threads))[int(0.95 * len(sent))]
    return {
        "requests": len(sent),
        "busy_share": round(busy / seconds / threads, 3),
        "busy_share_true": round(sum(service for _, service in sent) / seconds / threads, 3),
        "queue_p95": round(measured, 4),
        "queue_p95_model": round(modelled, 4),
        # Never to the model's favour.
        "queue_factor": round(max(1.0, measured / modelled), 2),
    }


def stream(pod: Pod) -> list[tuple[float, float]]:
    """Sends requests at random moments, whether earlier ones are answered or not; when, and how long each works."""
    chance = random.Random(1)
    sent: list[tuple[float, float]] = []
    rate = SHARE * WORKERS * THREADS / SERVICE
    lost = threading.Event()

    def one(service: float) -> None:
        with pod.place.entered:
            if ask((pod.address, PORT), f"/sleep?{service:.4f}", 20) is None:
                lost.set()

    with ThreadPoolExecutor(MOST_AT_ONCE) as executor:
        due = time.monotonic()
        end = due + SECONDS
        while due < end:
            time.sleep(max(0.0, due - time.monotonic()))
            service = chance.expovariate(1 / SERVICE)
            sent.append((time.monotonic(), service))
            executor.submit(one, service)
            due += chance.expovariate(rate)
    expect(not lost.is_set(), "every request is answered")
    return sent


def waits(sent: Sequence[tuple[float, float]], threads: int) -> list[float]:
    """How long the same requests wait in order for one of so many threads, if nothing else takes time."""
    free = [0.0] * threads
    found = []
    for arrival, service in sent:
        begun = max(arrival, heappop(free))
        found.append(begun - arrival)
        heappush(free, begun + service)
    return found


def metrics(pod: Pod) -> dict[str, float]:
    with pod.place.entered:
        answer = ask((pod.address, METRICS_PORT), "/metrics", 10)
    assert answer is not None, "metrics_bind is set"
    lines = (line.rpartition(" ") for line in answer.body.decode().splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


def quantile(gained: dict[str, float], share: float) -> float:
    """Of `monoceros_queue_seconds`, as Prometheus' histogram_quantile has it: linear within a bucket."""
    return histogram_quantile(share, [
        (float(found[1]), count) for name, count in gained.items()
        if (found := re.fullmatch(r'monoceros_queue_seconds_bucket\{le="(.+)"\}', name))
    ])  # fmt: skip


def histogram_quantile(share: float, buckets: Sequence[tuple[float, float]]) -> float:
    rank = share * max(count for _, count in buckets)
    below, fewer = 0.0, 0.0
    for bound, count in sorted(buckets):
        if count >= rank:
            return below if bound == float("inf") else below + (bound - below) * (rank - fewer) / (count - fewer)
        below, fewer = bound, count
    return below


if __name__ == "__main__":
    sys.setswitchinterval(0.001)
    main()
