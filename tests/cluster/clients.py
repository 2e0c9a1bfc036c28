"""Clients of the service: each does one thing again and again, tries nothing twice, and counts what became of it.

A kept connection is looked at before it is used again, as every pool of connections does it: if the server has closed
it, a new one is made, and nothing is lost. What has been sent and is not answered is lost, whatever the method.
"""

import contextlib
import errno
import itertools
import select
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from networks import Proxy

# What takes longer is lost; the longest scenario has requests of 42 seconds.
ANSWER_LIMIT = 90.0
CONNECT_LIMIT = 3.0
# No answer of the laboratory's app comes near.
MOST_HEAD_BYTES = 65536


class Lost(Exception):
    """A request without its answer; the text is one of few, and a row of the tables."""


@dataclass(frozen=True)
class Kind:
    """What a client does: `pause` seconds lie between two requests."""

    name: str
    method: str = "GET"
    target: str = "/"
    is_kept: bool = False
    pause: float = 0.03


# A third of them each: new connections, kept connections, and orders, which must not be sent twice.
MIX = (
    Kind("one-shot GET"), Kind("one-shot GET, 50 ms", target="/sleep?0.05"), Kind("kept GET", is_kept=True),
    Kind("kept GET, 50 ms", target="/sleep?0.05", is_kept=True), Kind("one-shot POST", method="POST"),
    Kind("kept POST", method="POST", is_kept=True),
)  # fmt: skip


@dataclass
class Tally:
    """What became of the requests: every one is in `answered` or in `lost`."""

    answered: Counter[str] = field(default_factory=Counter)
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    # When each was lost, by this process's clock.
    moments: list[float] = field(default_factory=list)
    told_to_close: int = 0
    closed_while_idle: int = 0
    # The orders that were answered, and those that were not.
    orders: set[str] = field(default_factory=set)
    orders_lost: set[str] = field(default_factory=set)

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            self.answered + other.answered, self.lost + other.lost, self.moments + other.moments,
            self.told_to_close + other.told_to_close, self.closed_while_idle + other.closed_while_idle,
            self.orders | other.orders, self.orders_lost | other.orders_lost,
        )  # fmt: skip

    @property
    def count(self) -> int:
        return self.answered.total() + self.lost.total()

    def causes(self) -> str:
        """`3 refused, 1 reset`, or `0`."""
        causes: Counter[str] = Counter()
        for (_, cause), number in self.lost.items():
            causes[cause] += number
        return ", ".join(f"{number} {cause}" for cause, number in causes.most_common()) or "0"


class Client(threading.Thread):
    """One thread, one kind, one node."""

    numbers = itertools.count(1)

    def __init__(self, node: Proxy, kind: Kind, work: "Load") -> None:
        super().__init__(daemon=True)
        self.number = next(Client.numbers)
        self.node, self.kind, self.work = node, kind, work
        self.tally = Tally()
        self.connection: socket.socket | None = None

    def run(self) -> None:
        with self.node.entered:
            count = 0
            while not self.work.is_over.wait(self.kind.pause):
                count += 1
                self.turn(f"{self.number}-{count}")
            self.drop()

    def turn(self, order: str) -> None:
        try:
            self.exchange(order)
        except Lost as lost:
            self.note_loss(str(lost), order)
        except OSError as error:
            self.note_loss(cause_of(error), order)
        else:
            self.tally.answered[self.kind.name] += 1
            if self.kind.method == "POST":
                self.tally.orders.add(order)

    def note_loss(self, cause: str, order: str) -> None:
        self.drop()
        self.tally.lost[self.kind.name, cause] += 1
        self.tally.moments.append(time.monotonic())
        if self.kind.method == "POST":
            self.tally.orders_lost.add(order)

    def exchange(self, order: str) -> None:
        """One request and its answer; Lost or OSError if there is none."""
        if self.connection is not None and is_at_end(self.connection):
            self.tally.closed_while_idle += 1
            self.drop()
        if self.connection is None:
            self.connection = socket.create_connection(self.node.service, timeout=CONNECT_LIMIT)
            self.connection.settimeout(ANSWER_LIMIT)
        self.connection.sendall(request(self.kind, order))
        answer = read_answer(self.connection)
        if answer.status != 200:
            raise Lost(f"status {answer.status}")
        if self.kind.method == "POST" and answer.body != order.encode():
            raise Lost("another's answer")
        if self.kind.is_kept and answer.says_close:
            self.tally.told_to_close += 1
        if answer.says_close or not self.kind.is_kept:
            self.drop()

    def drop(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None


class Load:
    """All clients of all nodes, for as long as the context lasts; then `tally` has the sum."""

    def __init__(self, nodes: list[Proxy], kinds: tuple[Kind, ...] = MIX, each: int = 1) -> None:
        self.is_over = threading.Event()
        self.tally = Tally()
        self.clients = [Client(node, kind, self) for node in nodes for kind in kinds for _ in range(each)]

    @contextlib.contextmanager
    def running(self) -> Iterator["Load"]:
        for client in self.clients:
            client.start()
        try:
            yield self
        finally:
            self.is_over.set()
            for client in self.clients:
                client.join(ANSWER_LIMIT + CONNECT_LIMIT)
            self.tally = sum((client.tally for client in self.clients), Tally())

    @property
    def count(self) -> int:
        """Requests until now."""
        return sum(client.tally.count for client in self.clients)

    @property
    def lost(self) -> int:
        return sum(client.tally.lost.total() for client in self.clients)


@dataclass
class Answer:
    status: int
    says_close: bool
    body: bytes


def request(kind: Kind, order: str) -> bytes:
    lines = [f"{kind.method} {kind.target} HTTP/1.1", "Host: app.example.com"]
    body = b""
    if kind.method == "POST":
        body = order.encode()
        lines.append(f"Content-Length: {len(body)}")
    if not kind.is_kept:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode() + body


def read_answer(connection: socket.socket) -> Answer:
    """A response with a Content-Length, which all of the laboratory's have."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more or len(data) > MOST_HEAD_BYTES:
            raise Lost("closed without an answer" if not data else "cut short")
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").lower().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines if ": " in line)
    length = int(fields.get("content-length", "0"))
    while len(body) < length:
        more = connection.recv(65536)
        if not more:
            raise Lost("cut short")
        body += more
    return Answer(int(first.split(" ")[1]), fields.get("connection") == "close", body)


def ask(address: tuple[str, int], target: str, limit: float) -> Answer | None:
    """A GET on a connection of its own; None if no answer comes in so many seconds."""
    try:
        with socket.create_connection(address, timeout=limit) as connection:
            connection.sendall(request(Kind("", target=target), ""))
            return read_answer(connection)
    except (OSError, Lost):
        return None


def is_at_end(connection: socket.socket) -> bool:
    """Whether a connection that waits for nothing has something to say, which can only be its end."""
    return bool(select.select([connection], [], [], 0)[0])


def cause_of(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    names = {errno.ECONNREFUSED: "refused", errno.ECONNRESET: "reset", errno.EPIPE: "reset"}
    return names.get(error.errno or 0, "unreachable")
