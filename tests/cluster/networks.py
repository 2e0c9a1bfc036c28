"""The networks of the laboratory: nodes and pods with addresses, and a service's address that each node sends on.

`Namespaces` is the real thing: a network namespace for each node and each pod, a bridge between them, and in each node
the rules that kube-proxy makes in its nftables mode. An established connection stays with its pod, as conntrack has it.
`Loopback` is for where namespaces are not to be had: pods on addresses of 127.1.0.0/16, and a balancer of our own.

No namespace has a name. Each is held by a descriptor of this process, and the kernel takes it away, with its rules and
its interfaces, when this process ends, however it ends. Debian: apt-get install iproute2 nftables
"""

import contextlib
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from balancer import Balancer

PORT, METRICS_PORT = 8000, 9000
SERVICE_PORT = 80
SERVICE = "10.96.0.1"
CLONE_NEWNET, CLONE_NEWUSER = 0x40000000, 0x10000000
# More pods than the longest form makes, and as many as two bytes of an address hold.
MOST_PLACES = 60_000
# For a command that takes milliseconds, on a busy machine.
COMMAND_LIMIT = 20
LIBC = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """This network is not to be had here; the text says why."""


class Place(Protocol):
    """Where a pod is."""

    address: str

    @property
    def entered(self) -> contextlib.AbstractContextManager[None]: ...

    def leave(self) -> None: ...


class Proxy(Protocol):
    """A node, as far as clients see it: an address that leads to one of the pods that it has been told of."""

    @property
    def service(self) -> tuple[str, int]: ...

    @property
    def entered(self) -> contextlib.AbstractContextManager[None]: ...

    def route(self, addresses: Sequence[str]) -> None: ...

    def leave(self) -> None: ...


class Network(Protocol):
    name: str

    def add_pod(self) -> Place: ...

    def add_node(self) -> Proxy: ...

    def binding(self, place: Place) -> list[str]: ...


def choose(name: str) -> Network:
    """The network of that name; `any` is namespaces, and loopback where there are none."""
    if name == "loopback":
        return Loopback()
    # Another process tries it first: what has left its network cannot come back.
    tried = subprocess.run([sys.executable, __file__], capture_output=True, text=True, check=False)
    if tried.returncode == 0:
        return Namespaces()
    reason = tried.stderr.strip().rpartition("\n")[2]
    if name == "namespaces":
        raise Unavailable(reason)
    print(f"loopback addresses and a balancer stand in for namespaces: {reason}", flush=True)
    return Loopback()


class Namespace:
    """A network namespace. Threads enter and leave it one by one, and a child begins in that of the thread it has."""

    def __init__(self, address: str = "") -> None:
        self.address = address
        home = here()
        if LIBC.unshare(CLONE_NEWNET):
            raise Unavailable(f"unshare: {os.strerror(ctypes.get_errno())}")
        self.descriptor = here()
        enter(home)
        os.close(home)

    @property
    def path(self) -> str:
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    @property
    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        home = here()
        enter(self.descriptor)
        try:
            yield
        finally:
            enter(home)
            os.close(home)

    def leave(self) -> None:
        os.close(self.descriptor)


def here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def enter(descriptor: int) -> None:
    if LIBC.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def isolate() -> None:
    """Puts this process, which has one thread yet, into a network of its own, as root of its own if it is not root."""
    user, group = os.geteuid(), os.getegid()
    if LIBC.unshare(CLONE_NEWNET | (CLONE_NEWUSER if user else 0)):
        raise Unavailable(f"unshare: {os.strerror(ctypes.get_errno())}")
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")


class Namespaces:
    """This process's own namespace is the cable between nodes and pods: a bridge."""

    name = "network namespaces and nftables"

    def __init__(self) -> None:
        isolate()
        self.count = 0
        self.changing = threading.Lock()
        command(["ip", "-batch", "-"], "link set lo up\nlink add br0 type bridge\nlink set br0 up\n")
        node = self.add_node()
        # Only the kernel knows whether it has NAT for nftables.
        node.route(["10.99.0.1"])
        node.route([])
        node.leave()

    def add_pod(self) -> Namespace:
        with self.changing:
            self.count += 1
            if self.count > MOST_PLACES:
                raise Unavailable("no address is left")
            place = Namespace(f"10.99.{self.count >> 8}.{self.count & 255}")
            cable = f"v{self.count}"
            command(
                ["ip", "-batch", "-"],
                f"link add {cable} type veth peer name eth0 netns {place.path}\nlink set {cable} master br0 up\n",
            )
        with place.entered:
            inside = f"link set lo up\naddr add {place.address}/16 dev eth0\nlink set eth0 up\n"
            command(["ip", "-batch", "-"], inside)
        return place

    def add_node(self) -> "Node":
        return Node(self.add_pod())

    def binding(self, place: Place) -> list[str]:
        """Arguments that make a server listen where the pod is: a pod has a network of its own, and needs none."""
        return []


class Node:
    """A node: its clients connect to the service's address, and its rules choose a pod for each connection."""

    service = (SERVICE, SERVICE_PORT)

    def __init__(self, place: Namespace) -> None:
        self.place = place
        with place.entered:
            command(["ip", "-batch", "-"], f"route add {SERVICE}/32 dev eth0\n")
        self.route([])

    @property
    def entered(self) -> contextlib.AbstractContextManager[None]:
        return self.place.entered

    def route(self, addresses: Sequence[str]) -> None:
        """In one transaction, as kube-proxy does it; a service without endpoints is refused, also as there."""
        with self.place.entered:
            command(["nft", "-f", "-"], rules(addresses))

    def leave(self) -> None:
        self.place.leave()


def rules(addresses: Sequence[str]) -> str:
    """The service's table, made anew."""
    match = f"ip daddr {SERVICE} tcp dport {SERVICE_PORT}"
    targets = ", ".join(f"{number} : {address}" for number, address in enumerate(addresses))
    send = f"{match} dnat to numgen random mod {len(addresses)} map {{ {targets} }} : {PORT}"
    refuse = f"{match} reject with tcp reset"
    return f"""
        table ip monoceros_cluster {{}}
        delete table ip monoceros_cluster
        table ip monoceros_cluster {{
            chain filter_output {{
                type filter hook output priority -110
                {"" if addresses else refuse}
            }}
            chain nat_output {{
                type nat hook output priority -100
                {send if addresses else ""}
            }}
        }}
    """


def command(words: list[str], text: str) -> None:
    try:
        done = subprocess.run(words, input=text, capture_output=True, text=True, check=False, timeout=COMMAND_LIMIT)
    except FileNotFoundError:
        package = {"ip": "iproute2", "nft": "nftables"}[words[0]]
        raise Unavailable(f"no {words[0]}; Debian, Ubuntu: apt-get install {package}") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(words)}: {done.stderr.strip()}")


class LoopbackPlace:
    """An address is all that there is of it."""

    def __init__(self, address: str) -> None:
        self.address = address

    @property
    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        yield

    def leave(self) -> None:
        pass


class Loopback:
    """Pods on 127.1.X.Y, where X is this process's own: whoever listens on 127.1.X.254 has it."""

    name = "loopback addresses and a balancer"

    def __init__(self) -> None:
        self.count = 0
        self.owned = socket.socket()
        for number in range(1, 255):
            self.net = f"127.1.{number}"
            with contextlib.suppress(OSError):
                self.owned.bind((f"{self.net}.254", PORT))
                self.owned.listen(1)
                return
        raise Unavailable("every 127.1.x.254 is in use")

    def add_pod(self) -> LoopbackPlace:
        self.count = self.count % 200 + 1
        return LoopbackPlace(f"{self.net}.{self.count}")

    def add_node(self) -> "LoopbackNode":
        return LoopbackNode()

    def binding(self, place: Place) -> list[str]:
        return ["--bind", f"{place.address}:{PORT}", "--metrics-bind", f"{place.address}:{METRICS_PORT}"]


class LoopbackNode:
    """A node's proxy as a balancer."""

    def __init__(self) -> None:
        self.balancer = Balancer(PORT)

    @property
    def service(self) -> tuple[str, int]:
        return self.balancer.address

    @property
    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        yield

    def route(self, addresses: Sequence[str]) -> None:
        self.balancer.addresses = list(addresses)

    def leave(self) -> None:
        self.balancer.end()


if __name__ == "__main__":
    Namespaces()
