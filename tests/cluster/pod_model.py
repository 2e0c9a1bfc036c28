"""One pod as a queue: requests wait in order for a thread of any worker, and threads of a worker share its interpreter.

A request waits for others (a timer) and then computes. Those of a worker that compute at once go the slower for it, by
as many as they are: one of them holds the interpreter. A client that leaves takes no work away: a server cannot tell a
closed connection from one whose client has only finished sending, and runs its request. What finds the server's
connections and its backlog full is refused. That is the whole model; tests/cluster/measure.py holds it against the real
server.
"""

import random
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count

FOREVER = float("inf")
# worker_connections of each worker, and the backlog of the listener: the server's defaults.
WORKER_CONNECTIONS, BACKLOG = 1000, 2048


@dataclass(frozen=True)
class App:
    """A request on average, in seconds; both parts are exponential, the worst of what is common."""

    name: str
    waits: float
    computes: float


@dataclass
class Worker:
    """`virtual` is the processor time that each computing request has had since the worker began."""

    threads: int
    free: int = 0
    virtual: float = 0.0
    seen: float = 0.0
    # Virtual times at which requests that compute are done.
    computing: list[float] = field(default_factory=list)

    def advance(self, now: float) -> float:
        """Lets the computing ones go on until now; the processor time that was used."""
        used = now - self.seen if self.computing else 0.0
        if self.computing:
            self.virtual += used / len(self.computing)
        self.seen = now
        return used

    def next_end(self) -> float:
        """When the first of those that compute is done, if nothing else happens."""
        if not self.computing:
            return FOREVER
        return self.seen + (self.computing[0] - self.virtual) * len(self.computing)


class PodModel:
    """Advanced by the second with a rate of arrivals; counters are what the real pod's metrics would be."""

    def __init__(self, app: App, workers: int, threads: int, seed: int, now: float = 0.0) -> None:
        self.app = app
        self.random = random.Random(seed)
        self.workers = [Worker(threads, threads, seen=now) for _ in range(workers)]
        self.threads = workers * threads
        self.queue: deque[float] = deque()
        # Timers of requests that wait for others: (when, a tie-breaker, the worker).
        self.timers: list[tuple[float, int, Worker]] = []
        self.order = count()
        # The worker whose next request is done first, and when.
        self.ending, self.next_end = self.workers[0], FOREVER
        self.now = now
        self.busy = 0
        self.busy_seconds = self.queue_seconds = self.cpu_seconds = 0.0
        self.begun = self.refused = 0
        self.most_waiting = workers * WORKER_CONNECTIONS + BACKLOG
        # The time in the queue of each request that has begun since these were taken.
        self.waits: list[float] = []

    def advance(self, until: float, rate: float) -> None:
        """Goes on with so many arrivals a second; exponential gaps forget, so each stretch has a rate of its own."""
        arrival = self.now + self.gap(rate)
        while True:
            timer = self.timers[0][0] if self.timers else FOREVER
            event = min(arrival, timer, self.next_end)
            if event > until:
                break
            self.pass_time(event)
            if event == arrival:
                self.arrive()
                arrival = event + self.gap(rate)
            elif event == timer:
                self.compute(heappop(self.timers)[2])
            else:
                self.end()
        self.pass_time(until)

    def gap(self, rate: float) -> float:
        return self.random.expovariate(rate) if rate > 0 else FOREVER

    def pass_time(self, now: float) -> None:
        self.busy_seconds += self.busy * (now - self.now)
        self.now = now

    def arrive(self) -> None:
        if len(self.queue) < self.most_waiting:
            self.queue.append(self.now)
            self.dispatch()
        else:
            self.refused += 1

    def take_refused(self) -> int:
        """Since it was last taken."""
        taken, self.refused = self.refused, 0
        return taken

    def dispatch(self) -> None:
        """Requests go to the worker with the most free threads, as they do where workers hand them on to idle ones."""
        while self.queue:
            worker = max(self.workers, key=lambda worker: worker.free)
            if not worker.free:
                return
            waited = self.now - self.queue.popleft()
            self.begun += 1
            self.queue_seconds += waited
            self.waits.append(waited)
            worker.free -= 1
            self.busy += 1
            pause = self.random.expovariate(1 / self.app.waits) if self.app.waits else 0.0
            heappush(self.timers, (self.now + pause, next(self.order), worker))

    def compute(self, worker: Worker) -> None:
        self.cpu_seconds += worker.advance(self.now)
        need = self.random.expovariate(1 / self.app.computes) if self.app.computes else 0.0
        heappush(worker.computing, worker.virtual + need)
        self.look_ahead()

    def end(self) -> None:
        """Of the request that is done next."""
        worker = self.ending
        self.cpu_seconds += worker.advance(self.now)
        heappop(worker.computing)
        self.look_ahead()
        worker.free += 1
        self.busy -= 1
        self.dispatch()

    def look_ahead(self) -> None:
        self.ending = min(self.workers, key=Worker.next_end)
        self.next_end = self.ending.next_end()
