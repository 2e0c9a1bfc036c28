"""What happens to a service in a cluster, one function each: it lives through it under load, and says what was lost."""

import contextlib
import dataclasses
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import documented
from clients import MIX, Kind, Load, Tally
from control import Cluster, Failure, expect, wait_for, wait_until_ready
from networks import Network
from pods import Pod, Probe, Template

# So many requests show that every client is at work; a condition, where a pause would be a guess.
WARM_REQUESTS = 60
# The startup probe of the short form: the documented one asks every two seconds, which is time and proves nothing.
QUICK = Probe("/healthz", 0.2, 5, 300)


@dataclass
class Outcome:
    """What a scenario leaves behind."""

    tally: Tally
    pods: list[Pod]
    # By how much the machine was late with a node's change, at worst.
    late: float
    seconds: float

    @property
    def lost(self) -> int:
        return self.tally.lost.total()

    @property
    def killed(self) -> int:
        return sum(pod.is_killed for pod in self.pods)

    def log(self) -> str:
        return "\n".join(pod.log.read_text(errors="replace")[-2000:] for pod in self.pods if pod.log.exists())


class Lab:
    """A network, and a folder that goes when the laboratory closes."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.folder = Path(tempfile.mkdtemp(prefix="monoceros-cluster-"))
        documented.lay_out(self.folder)

    @contextlib.contextmanager
    def opened(self) -> Iterator["Lab"]:
        try:
            yield self
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)

    def template(self, *arguments: str, **changes: object) -> Template:
        return documented.template(self.folder, *arguments, **changes)

    def live(
        self, template: Template, happens: Callable[[Cluster, Load], object], lags: Sequence[float] = (1,),
        replicas: int = 2, kinds: tuple[Kind, ...] = MIX,
    ) -> Outcome:  # fmt: skip
        """A Deployment under load, to which something happens."""
        begun = time.monotonic()
        with Cluster(self.network, lags).living() as cluster:
            cluster.scale(template, replicas)
            cluster.wait_until_settled()
            load = Load(cluster.proxies, kinds)
            with load.running():
                warm(load)
                happens(cluster, load)
                cluster.wait_until_settled()
                warm(load)
            late = max(node.late for node in cluster.nodes)
        outcome = Outcome(load.tally, cluster.history, late, time.monotonic() - begun)
        check_orders(outcome)
        return outcome


def warm(load: Load) -> None:
    enough = load.count + WARM_REQUESTS
    wait_for("requests", lambda: load.count >= enough)


def check_orders(outcome: Outcome) -> None:
    """No order was noted twice, none was answered without being noted, and none noted that no client sent."""
    noted = [order for pod in outcome.pods for order in pod.orders()]
    tally = outcome.tally
    expect(len(noted) == len(set(noted)), "every order is noted once")
    expect(tally.orders <= set(noted), "every order that was answered is noted", tally.orders - set(noted))
    expect(set(noted) <= tally.orders | tally.orders_lost, "every order that is noted was sent")


def rollout(lab: Lab, lags: Sequence[float], *arguments: str, rounds: int = 1, **changes: object) -> Outcome:
    """Rolling updates, one after the other; each is over when the last old pod is gone."""
    template = lab.template(*arguments, **changes)

    def roll(cluster: Cluster, _: Load) -> None:
        for _round in range(rounds):
            expect(cluster.roll(template), "the rollout gets through")
            cluster.wait_until_settled()

    return lab.live(template, roll, lags)


def long_requests(lab: Lab, seconds: float, *arguments: str, **changes: object) -> Outcome:
    """A rolling update while every client waits for a request that takes so long.

    They begin before the rollout does, a few seconds before the first TERM: so what is left of each is about the same.
    """
    template = lab.template(*arguments, **changes)
    kinds = tuple(Kind(f"GET, {seconds:g} s", target=f"/sleep?{seconds}", is_kept=kept) for kept in (True, False) * 3)

    def roll(cluster: Cluster, _: Load) -> None:
        expect(cluster.roll(template), "the rollout gets through")

    # They are counted when they end: quick ones beside them say that the clients are at work.
    return lab.live(template, roll, [1], kinds=(*kinds, Kind("one-shot GET")))


def drain(lab: Lab, boot_seconds: float, *arguments: str, lag: float = 1, **changes: object) -> Outcome:
    """The only pod of a service is evicted; its successor takes so long to load."""
    template = lab.template(*arguments, **changes)
    slow = dataclasses.replace(
        template, environment={**template.environment, "APP_BOOT_SECONDS": str(boot_seconds)}
    )
    return lab.live(template, lambda cluster, _: cluster.drain(cluster.pods[0], slow), [lag], replicas=1)


def scale_to_zero(lab: Lab) -> tuple[Outcome, int]:
    """Down to no pod and up again; also how many requests were lost while a pod's listener was open to them."""
    template = lab.template()
    delay = documented.setting("shutdown_delay")
    window = [0.0, 0.0]

    def down_and_up(cluster: Cluster, load: Load) -> None:
        window[0] = time.monotonic() + delay
        cluster.scale(template, 0)
        cluster.wait_until_settled()
        losses = load.lost
        # Whoever comes now is refused: so many show it.
        wait_for("refusals", lambda: load.lost >= losses + 20)
        cluster.scale(template, 1)
        cluster.wait_until_settled()
        window[1] = time.monotonic()

    outcome = lab.live(template, down_and_up)
    outside = [moment for moment in outcome.tally.moments if not window[0] <= moment <= window[1]]
    return outcome, len(outside)


def broken_release(lab: Lab, lags: Sequence[float], *arguments: str, **changes: object) -> Outcome:
    """A release that cannot be loaded is given up, as at its progress deadline; the next one is good."""
    template = lab.template(*arguments, **changes)
    broken = dataclasses.replace(template, environment={**template.environment, "APP_BROKEN": "1"})

    def roll(cluster: Cluster, _: Load) -> None:
        expect(not cluster.roll(broken, lambda pod: pod.ends), "a broken release gets nowhere")
        ends = cluster.history[-1].ends
        expect(ends[0] == 3, "the container ends with 3 for a worker that cannot boot", ends)
        expect(cluster.roll(template), "the next release gets through")

    return lab.live(template, roll, lags)


def killed_workers(lab: Lab, rounds: int, *arguments: str, **changes: object) -> Outcome:
    """The kernel ends a worker for want of memory, a few times: what it does is SIGKILL."""
    template = lab.template(*arguments, **changes)

    def kill(cluster: Cluster, load: Load) -> None:
        for number in range(rounds):
            pod = cluster.pods[number % len(cluster.pods)]
            wait_for("two workers", partial(has_two_workers, pod))
            os.kill(random.choice(pod.workers()), signal.SIGKILL)
            warm(load)

    return lab.live(template, kill)


def killed_containers(lab: Lab, rounds: int, *arguments: str, **changes: object) -> Outcome:
    """The kernel ends all of a container (cgroup v2, `memory.oom.group`, which the kubelet sets); it starts again."""
    template = lab.template(*arguments, **changes)

    def kill(cluster: Cluster, load: Load) -> None:
        for pod in list(cluster.pods)[:rounds]:
            process = pod.process
            assert process is not None, "it is ready"
            os.killpg(process.pid, signal.SIGKILL)
            wait_for("the container to end", partial(has_ended_once, pod))
            wait_until_ready(pod)
            warm(load)

    return lab.live(template, kill)


def has_two_workers(pod: Pod) -> bool:
    return len(pod.workers()) == 2


def has_ended_once(pod: Pod) -> bool:
    return pod.ends == [-signal.SIGKILL]


def growing_workers(lab: Lab, *arguments: str, **changes: object) -> Outcome:
    """An app that keeps memory; workers are replaced by `max_worker_memory`, before a limit is met."""
    template = lab.template(*arguments, **changes)
    growth = Kind("one-shot GET that keeps 2 MB", target="/grow?2")

    def grow(cluster: Cluster, load: Load) -> None:
        replaced = "max_worker_memory"
        wait_for("replaced workers", lambda: sum(pod.log.read_text().count(replaced) for pod in cluster.pods) >= 6)
        warm(load)

    return lab.live(template, grow, kinds=(*MIX, growth))


def must_lose_nothing(outcome: Outcome, margin: float) -> None:
    """`margin` is by how much a node may be late before the loss is the machine's, and not the server's."""
    if outcome.lost and outcome.late > margin:
        raise Failure(f"the machine stood still for {outcome.late:.1f} s: this says nothing of the server")
    expect(outcome.lost == 0, "nothing is lost", f"{outcome.tally.lost}\n{outcome.log()}")
    expect(outcome.killed == 0, "every pod ends by itself", outcome.log())
