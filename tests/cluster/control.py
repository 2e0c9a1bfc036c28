"""What decides in the laboratory: a Deployment's rolling update, the endpoints of its pods, and the proxies that hear
of them late.

As in Kubernetes: a proxy sends to endpoints that are ready; while there is none at all, to those that are ending and
still pass their readiness probe. A node hears of each change `lag` seconds after it happened, in order.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from networks import Network, Proxy
from pods import Endpoint, Pod, Template

# For what must happen on a busy machine, too.
PATIENCE = 60.0


class Failure(AssertionError):
    """Something was not as it must be."""


class Node:
    """A proxy with its lag, in seconds."""

    def __init__(self, proxy: Proxy, lag: float) -> None:
        self.proxy, self.lag = proxy, lag
        self.news: queue.SimpleQueue[tuple[float, list[Endpoint]] | None] = queue.SimpleQueue()
        # Seconds by which the slowest change came later than its lag: what the machine adds.
        self.late = 0.0
        self.addresses: list[str] = []
        self.thread = threading.Thread(target=self.follow, daemon=True)
        self.thread.start()

    def tell(self, endpoints: list[Endpoint]) -> None:
        self.news.put((time.monotonic() + self.lag, endpoints))

    def follow(self) -> None:
        while (news := self.news.get()) is not None:
            due, endpoints = news
            time.sleep(max(0.0, due - time.monotonic()))
            addresses = choose(endpoints)
            if addresses != self.addresses:
                self.proxy.route(addresses)
                self.addresses = addresses
                self.late = max(self.late, time.monotonic() - due)

    def end(self) -> None:
        self.news.put(None)
        self.thread.join(PATIENCE)
        self.proxy.leave()


def choose(endpoints: Sequence[Endpoint]) -> list[str]:
    """The endpoints that a proxy sends to."""
    ready = [endpoint.address for endpoint in endpoints if endpoint.ready]
    return ready or [endpoint.address for endpoint in endpoints if endpoint.serving]


class Cluster:
    """One Deployment, one Service, and nodes with clients."""

    def __init__(self, network: Network, lags: Sequence[float]) -> None:
        self.network = network
        self.nodes = [Node(network.add_node(), lag) for lag in lags]
        # Those of the Deployment, and all that there ever were.
        self.pods: list[Pod] = []
        self.history: list[Pod] = []
        self.telling = threading.Lock()
        self.told: list[Endpoint] = []

    @property
    def proxies(self) -> list[Proxy]:
        return [node.proxy for node in self.nodes]

    def changed(self) -> None:
        """Something is other with a pod: the EndpointSlice, and what the nodes hear."""
        with self.telling:
            endpoints = [pod.endpoint for pod in self.history if not pod.gone.is_set()]
            if endpoints != self.told:
                self.told = endpoints
                for node in self.nodes:
                    node.tell(endpoints)

    def add(self, template: Template) -> Pod:
        pod = Pod(self.network, template, self.changed)
        with self.telling:
            self.history.append(pod)
        self.pods.append(pod)
        return pod

    def remove(self, pod: Pod) -> None:
        self.pods.remove(pod)
        pod.delete()

    def scale(self, template: Template, replicas: int) -> None:
        """Up or down to so many; what is new is ready when this returns."""
        while len(self.pods) > replicas:
            self.remove(self.pods[0])
        added = [self.add(template) for _ in range(replicas - len(self.pods))]
        for pod in added:
            wait_until_ready(pod)

    def roll(self, template: Template, is_given_up: Callable[[Pod], object] = lambda _: False) -> bool:
        """A rolling update, maxSurge 1 and maxUnavailable 0; false if a new pod was given up, and taken back."""
        for old in list(self.pods):
            new = self.add(template)
            wait_until_ready(new, is_given_up)
            if not new.is_ready:
                self.remove(new)
                return False
            self.remove(old)
        return True

    def drain(self, pod: Pod, template: Template) -> None:
        """An eviction: the pod goes at once, and its ReplicaSet makes another because it goes."""
        self.remove(pod)
        new = self.add(template)
        wait_until_ready(new)

    def wait_until_settled(self) -> None:
        """Until every deleted pod is gone, and every node has heard of all."""
        leaving = [pod for pod in self.history if pod.deleted.is_set()]
        for pod in leaving:
            grace = pod.template.grace
            wait_for(f"the end of {pod.name}", pod.gone.is_set, grace + PATIENCE)
        for node in self.nodes:
            wait_for("a node to hear of it", partial(self.is_known_to, node), node.lag + PATIENCE)

    def is_known_to(self, node: Node) -> bool:
        return node.addresses == choose(self.told)

    @contextlib.contextmanager
    def living(self) -> Iterator["Cluster"]:
        """Ends everything at the end, whatever happened."""
        try:
            yield self
        finally:
            for pod in self.history:
                pod.kill()
            for pod in self.history:
                pod.gone.wait(PATIENCE)
            for node in self.nodes:
                node.end()


def wait_until_ready(pod: Pod, is_given_up: Callable[[Pod], object] = lambda _: False) -> None:
    wait_for(f"{pod.name} to be ready", lambda: pod.is_ready or is_given_up(pod))


def expect(condition: object, what: str, seen: object = "") -> None:
    if not condition:
        raise Failure(f"not so: {what}\n{seen}")


def wait_for(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failure(f"waited {seconds:g} s in vain for {what}")
        time.sleep(0.01)
