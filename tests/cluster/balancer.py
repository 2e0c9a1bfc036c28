"""A small TCP balancer in the place of a node's rules: it picks a pod for each connection, and carries bytes.

What a pod does to a connection is done to the client's: an end for an end, a reset for a reset.
"""

import contextlib
import random
import select
import socket
import struct
import threading

CONNECT_LIMIT = 3.0
# A connection that neither side uses for so long is given up: the laboratory's clients pause for milliseconds.
IDLE_LIMIT = 60.0
CHUNK_BYTES = 65536


class Balancer:
    """Listens on an address of its own; `addresses` are the pods that get new connections."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.addresses: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.address: tuple[str, int] = self.listener.getsockname()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.listener.accept()
                threading.Thread(target=self.serve, args=[client], daemon=True).start()

    def serve(self, client: socket.socket) -> None:
        addresses = self.addresses
        if not addresses:
            return abort(client)
        try:
            pod = socket.create_connection((random.choice(addresses), self.port), timeout=CONNECT_LIMIT)
        except OSError:
            return abort(client)
        try:
            carry(client, pod)
        except OSError:
            abort(client)
            abort(pod)
        finally:
            client.close()
            pod.close()

    def end(self) -> None:
        # shutdown() wakes the thread that accepts; close() alone does not.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


def carry(client: socket.socket, pod: socket.socket) -> None:
    """Until both have said their end; OSError when one resets, or nothing comes for too long."""
    other = {client: pod, pod: client}
    open_sides = [client, pod]
    while open_sides:
        readable, _, _ = select.select(open_sides, [], [], IDLE_LIMIT)
        if not readable:
            raise TimeoutError
        for side in readable:
            if data := side.recv(CHUNK_BYTES):
                other[side].sendall(data)
            else:
                open_sides.remove(side)
                other[side].shutdown(socket.SHUT_WR)


def abort(connection: socket.socket) -> None:
    """Closes with a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
