"""The dirty workers of an installed gunicorn, and how they and their arbiter end. Nothing but `_dirty` may import it.

What a worker does with an action is gunicorn's code. Here is when it stops, and that it dies with its arbiter.
"""

import asyncio
import os
import select
import signal
import stat
import sys
from contextlib import contextmanager

import _monoceros
from gunicorn.dirty.app import get_app_workers_attribute
from gunicorn.dirty.errors import DirtyError
from gunicorn.dirty.worker import DirtyWorker

# How often something is looked for that no event tells of, in seconds.
LOOK = 0.05
# The mode of a socket at which gunicorn's code listens.
_MODE = 0o600


class Connections:
    """The connections that a process answers. When it ends, those that wait for an answer get it."""

    def __init__(self):
        self._tasks, self._busy = {}, set()

    @contextmanager
    def open(self, writer):
        """While the calling task answers a connection. That it is cancelled is no failure of it."""
        task = asyncio.current_task()
        self._tasks[task] = writer
        try:
            yield
        except asyncio.CancelledError:
            pass
        finally:
            del self._tasks[task]

    @contextmanager
    def answering(self):
        """While it makes an answer."""
        task = asyncio.current_task()
        self._busy.add(task)
        try:
            yield
        finally:
            self._busy.discard(task)

    def end(self, grace):
        """Ends those that wait for nothing now, and the others in `grace` seconds at the latest."""
        for task in self._tasks.keys() - self._busy:
            task.cancel()
        asyncio.get_running_loop().call_later(grace, self._break_off)

    def _break_off(self):
        for task in self._tasks:
            task.cancel()

    async def over(self):
        """Waits until there is none."""
        if self._tasks:
            await asyncio.wait(list(self._tasks))

    def sockets(self):
        """The sockets of all of them."""
        return [writer.get_extra_info("socket") for writer in self._tasks.values()]


class Ends:
    """How both kinds of process end: at TERM they finish what they are at, at QUIT and INT they do not."""

    def _prepare_to_end(self):
        self._connections = Connections()
        self._grace = self.cfg.dirty_graceful_timeout

    def _signal_handler(self, sig, frame):
        if self._loop is not None and self._loop.is_closed():
            # It has ended, but for its files.
            return
        if sig in (signal.SIGQUIT, signal.SIGINT, signal.SIGABRT):
            self._grace = 0
        super()._signal_handler(sig, frame)

    def _shutdown(self):
        if self._server is None:
            # The loop has only begun.
            self._loop.call_later(LOOK, self._shutdown)
            return
        super()._shutdown()
        self._connections.end(self._grace)


class Worker(Ends, DirtyWorker):
    """A dirty worker, in its own process and as its arbiter sees it."""

    # The one of this process.
    arbiter = None

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._prepare_to_end()
        self._loads = False

    @property
    def booted(self):
        # The arbiter has a copy from before the fork. Once the worker listens, it changes the mode of its socket.
        try:
            return stat.S_IMODE(os.lstat(self.socket_path).st_mode) == _MODE
        except OSError:
            return False

    @booted.setter
    def booted(self, value):
        pass

    def init_process(self):
        self.arbiter.leave_to_worker()
        super().init_process()

    def init_signals(self):
        super().init_signals()
        if not _monoceros.die_with_parent(self.ppid):
            os._exit(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())

    def load_apps(self):
        if not self.alive:
            sys.exit(0)
        self._loads = True
        super().load_apps()
        self._loads = False

    def _signal_handler(self, sig, frame):
        super()._signal_handler(sig, frame)
        if not self.alive and self._loads:
            # There is nothing to finish yet. An exception could be lost in a destructor.
            os._exit(0)

    async def _run_async(self):
        if not self.alive:
            return
        await super()._run_async()
        # Before Python 3.12 a server that closes does not wait for its connections.
        await self._connections.over()

    async def handle_connection(self, reader, writer):
        with self._connections.open(writer):
            await super().handle_connection(reader, writer)

    async def handle_request(self, message, writer):
        with self._connections.answering():
            await super().handle_request(message, writer)


def limit_of(import_path):
    """The attribute `workers` of an app's class, read in a child: what the arbiter imports, no reload brings anew."""
    reading, writing = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _say_limit_of(import_path, parent, writing)
    os.close(writing)
    os.waitpid(child, 0)
    # A process that the module has started may keep the pipe open, so nobody waits for its end.
    os.set_blocking(reading, False)
    with open(reading, "rb", buffering=0) as file:
        said = (file.read(select.PIPE_BUF) or b"").decode(errors="replace")
    kind, _, text = said.partition(" ")
    if kind != "limit":
        raise DirtyError(text or "its module has ended the process that imported it")
    return int(text) if text else None


def _say_limit_of(import_path, parent, writing):
    """In the child: says the limit or what was raised, and ends the process."""
    try:
        _monoceros.die_with_parent(parent)
        limit = get_app_workers_attribute(import_path)
        said = f"limit {'' if limit is None else int(limit)}"
    except BaseException as error:
        said = f"error {error}"
    try:
        # So much is written whole (pipe(7)), though nobody reads yet.
        os.write(writing, said.encode(errors="replace")[: select.PIPE_BUF])
    finally:
        os._exit(0)
