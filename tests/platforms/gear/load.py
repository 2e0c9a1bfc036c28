"""Clients that ask all the time, and count what they were not answered."""

import http.client
import re
import threading
import time
from collections.abc import Callable

# Between two requests of a client: the load is there to be lost, not to take the processor from
# what is tested.
PAUSE_SECONDS = 0.002
# A kept connection may be closed by the server just as the client writes to it. Only a first
# request counts as failed then.
CLOSED = (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected)


class Load:
    """Half of the clients open a connection for each request, half keep theirs. Every answer is 200
    and `v` with a number, which never falls below what a finished deploy has brought."""

    def __init__(self, address: tuple[str, int], clients: int = 2) -> None:
        self.address = address
        self.answers = 0
        self.failures: list[str] = []
        self.least = 0
        self.is_over = threading.Event()
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.ask, args=(number % 2 == 1,)) for number in range(clients)]

    def __enter__(self) -> "Load":  # noqa: PYI034 (Self is not in 3.10)
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.is_over.set()
        for thread in self.threads:
            thread.join()

    def expect_from_now_on(self, version: int) -> None:
        self.least = version

    def ask(self, keeps: bool) -> None:
        connection, served = http.client.HTTPConnection(*self.address, timeout=20), 0
        while not self.is_over.wait(PAUSE_SECONDS):
            least = self.least
            try:
                connection.request("GET", "/")
                answer = connection.getresponse()
                body = answer.read().decode(errors="replace")
            except CLOSED as error:
                if served == 0:
                    self.fail(f"{error!r} on a new connection")
                connection.close()
                served = 0
                continue
            except OSError as error:
                self.fail(repr(error))
                connection.close()
                served = 0
                continue
            number = re.match(r"v(\d+)", body)
            if answer.status != 200 or not number or int(number[1]) < least:
                self.fail(f"{answer.status} {body[:80]!r} where at least v{least} was expected")
            with self.lock:
                self.answers += 1
            served += 1
            if not keeps:
                connection.close()
                served = 0
        connection.close()

    def fail(self, sentence: str) -> None:
        with self.lock:
            self.failures.append(sentence)


def wait_until(what: str, condition: Callable[[], bool], seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds} s in vain for {what}")
        time.sleep(0.02)
