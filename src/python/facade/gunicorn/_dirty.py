"""Runs gunicorn's own dirty arbiter and its workers. Nothing but the server may import it.

The arbiter, the workers, and what they say to each other and to clients are an installed gunicorn's (`gunicorn.dirty`),
over this package's settings, logger and hooks. Here is what the server changes: where the sockets lie, how processes
end, and how workers are replaced, so that nothing a client has asked for is lost. The server forks the arbiter, and
starts another when it dies.
"""

import asyncio
import os
import shutil
import signal
import socket
import sys
import time
from contextlib import suppress

from gunicorn import util
from gunicorn._dirty_worker import LOOK, Ends, Worker, limit_of
from gunicorn.dirty import arbiter as arbiters
from gunicorn.dirty.errors import DirtyWorkerError
from gunicorn.dirty.protocol import MANAGE_OP_ADD, MANAGE_OP_REMOVE, DirtyProtocol, make_response

_SOCKET = "arbiter.sock"
# As the master has asked for.
_BACKLOG = 1024
# gunicorn's -1.
_FAILED = 255
# gunicorn's code takes 0, which is no limit, for one of no time at all, and its heartbeat would not rest. Years.
_NO_TIMEOUT = 10**9
# Between two workers that do not boot.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
# What an operator can ask for by `dirty add`: more would only be a mistake.
_MOST_WORKERS = 1024
# Those that a worker handles, or that end it.
_SIGNALS = tuple(
    getattr(signal, f"SIG{name}") for name in "HUP QUIT INT TERM TTIN TTOU USR1 USR2 ABRT CHLD".split()
)


def run(bridge, folder, pid_file, ppid, listener):
    """Lives the life of the arbiter, whose sockets lie in `folder`. Returns its exit status.

    `listener` is the descriptor of the one at which it listens. The master has it too, so that nobody who connects
    between two arbiters is refused.
    """
    settings = bridge.cfg.settings
    if bridge.cfg.dirty_timeout == 0:
        settings["dirty_timeout"].value = _NO_TIMEOUT
    for name in ("dirty_post_fork", "dirty_worker_exit"):
        settings[name].value = _harmless(name, settings[name].value, bridge)
    arbiter = None
    try:
        arbiter = Arbiter(bridge.cfg, bridge.log, folder, pid_file, ppid, listener)
        arbiter.run()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        bridge.exception("Exception in dirty arbiter process")
        status = _FAILED
    else:
        return 0
    if arbiter is not None:
        # Once more, where it has not come as far as its own.
        arbiter._cleanup_sync()
    return status


def _harmless(name, hook, bridge):
    """The hook, of which an exception is logged: it would end the arbiter, and the workers with it."""

    def call(arbiter, worker):
        try:
            hook(arbiter, worker)
        except Exception:
            bridge.exception(f"Exception in {name} hook")

    return call


class Arbiter(Ends, arbiters.DirtyArbiter):
    """The dirty arbiter, in `folder`."""

    def __init__(self, cfg, log, folder, pid_file, ppid, listener):
        arbiters.DirtyWorker = Worker
        arbiters.get_app_workers_attribute = limit_of
        Worker.arbiter = self
        super().__init__(cfg, log, os.path.join(folder, _SOCKET), pid_file)
        self.ppid = ppid
        os.rmdir(self.tmpdir)
        _empty(folder)
        # In a folder of its own: workers of a killed arbiter remove their files when they end.
        self.tmpdir = os.path.join(folder, str(os.getpid()))
        os.mkdir(self.tmpdir, 0o700)
        # The server in this process closes its own.
        self._lent = listener
        self._listener = socket.socket(fileno=os.dup(listener))
        self._prepare_to_end()
        # Workers that get no more requests, and the tasks that see them off.
        self._leaving = {}
        self._reload_lock = None
        # A worker more than there should be, while it takes another's place.
        self._surge = 0
        self._pause, self._not_before = 0, 0
        self._tasks = set()

    # Signals

    def _signal_handler(self, sig, frame):
        if sig == signal.SIGUSR1:
            for pid in list(self.workers):
                self.kill_worker(pid, sig)
        super()._signal_handler(sig, frame)

    async def _run_async(self):
        """gunicorn's, but for the socket, which is open already."""
        if not self.alive:
            return
        self._loop = asyncio.get_running_loop()
        util._setproctitle(f"dirty-arbiter [{self.cfg.proc_name}]")
        # The path is the master's to remove.
        stays = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}
        # asyncio listens once more, with a backlog of its own.
        self._server = await asyncio.start_unix_server(
            self.handle_client, sock=self._listener, backlog=_BACKLOG, **stays
        )
        self.log.info("Dirty arbiter listening on %s", self.socket_path)
        await self.manage_workers()
        monitor = asyncio.create_task(self._worker_monitor())
        try:
            async with self._server:
                await self._server.serve_forever()
        except (asyncio.CancelledError, RuntimeError):
            # Python's words for a server that was closed, before it has begun to serve or after.
            pass
        monitor.cancel()
        await self.stop()

    def _cleanup_sync(self):
        """gunicorn's, but for the socket."""
        with suppress(OSError, TypeError):
            # Another arbiter may have written its own there. It is read as bytes: the module of a codec may lie where
            # only root reads.
            # Nor does it wait for a FIFO that somebody has put there.
            descriptor = os.open(self.pidfile, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            with open(descriptor, "rb") as file:
                is_ours = file.read(32).strip() == b"%d" % self.pid
            if is_ours:
                os.unlink(self.pidfile)
        # The whole folder, if the master is gone, which would have removed it.
        folder = self.tmpdir if os.getppid() == self.ppid else os.path.dirname(self.socket_path)
        shutil.rmtree(folder, ignore_errors=True)
        self.log.info("Dirty arbiter exiting (pid: %s)", self.pid)

    async def stop(self, graceful=True):
        await self._connections.over()
        await super().stop(graceful and self._grace > 0)

    def leave_to_worker(self):
        """In a new worker: gives up the arbiter's sockets, so that they close when the arbiter closes them."""
        sockets = [*self._server.sockets, *self._connections.sockets()]
        sockets += [writer.get_extra_info("socket") for _, writer in self.worker_connections.values()]
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in [self._lent, *(sock.fileno() for sock in sockets if sock is not None)]:
            if descriptor >= 0:
                # Their objects are still there, and may close their numbers later.
                os.dup2(nowhere, descriptor, inheritable=False)
        os.close(nowhere)
        # Python complains of tasks that vanish.
        self._tasks = asyncio.all_tasks(self._loop)

    # Requests

    async def handle_client(self, reader, writer):
        with self._connections.open(writer):
            await super().handle_client(reader, writer)

    async def route_request(self, request, client_writer):
        with self._connections.answering():
            await super().route_request(request, client_writer)

    async def _get_available_worker(self, app_path=None):
        """The pid of a worker that has the app, by turns; of one that still boots only if there is no other."""
        having = sorted(self.app_worker_map.get(app_path, ()) if app_path and self.app_specs else self.workers)
        staying = [pid for pid in having if pid in self.workers and pid not in self._leaving]
        eligible = [pid for pid in staying if self.workers[pid].booted] or staying
        if not eligible:
            return None
        turn = self._app_rr_indices.get(app_path, 0)
        self._app_rr_indices[app_path] = turn + 1
        return eligible[turn % len(eligible)]

    async def _get_worker_connection(self, worker_pid):
        until = time.monotonic() + self.cfg.dirty_timeout
        while (worker := self.workers.get(worker_pid)) and not worker.booted and time.monotonic() < until:
            await asyncio.sleep(LOOK)
        return await super()._get_worker_connection(worker_pid)

    async def _start_worker_consumer(self, worker_pid):
        queue = self.worker_queues[worker_pid] = asyncio.Queue()
        self.worker_consumers[worker_pid] = asyncio.create_task(self._consume(worker_pid, queue))

    async def _consume(self, pid, queue):
        """Passes the requests of a queue to its worker, one after the other, until that has ended."""
        # Python 3.11's wait_for() may swallow the end of this task.
        while self.worker_queues.get(pid) is queue:
            request, client_writer, future = await queue.get()
            try:
                await self._execute_on_worker(pid, request, client_writer)
            except asyncio.CancelledError:
                _settle(future, DirtyWorkerError("the dirty worker has ended", worker_id=pid))
                raise
            except Exception as error:
                _settle(future, error)
            else:
                _settle(future)
            finally:
                queue.task_done()
            if pid not in self.worker_connections:
                # If that was because the worker has ended, another gets what waits.
                await asyncio.sleep(LOOK)

    async def _route_again(self, request, client_writer, future):
        try:
            await self.route_request(request, client_writer)
        finally:
            _settle(future)

    # Workers

    def spawn_worker(self, force_all_apps=False):
        if time.monotonic() < self._not_before or len(self.workers) >= _MOST_WORKERS:
            return None
        # The child has this process's handlers until it has its own.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        waiting = list(self._pending_respawns)
        try:
            return super().spawn_worker(force_all_apps)
        except Exception as error:
            # Of the arbiter: a child does not get here. gunicorn has taken its app off the list.
            self._pending_respawns = waiting
            self._wait_longer()
            self.log.error("Cannot fork a dirty worker: %s", error)
            return None
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def _cleanup_worker(self, pid):
        queue, is_told = self.worker_queues.get(pid), pid in self._leaving
        worker, expected = self.workers.get(pid), len(self._pending_respawns)
        if worker is not None and not is_told and self.alive:
            self._note_end(worker)
        super()._cleanup_worker(pid)
        self._leaving.pop(pid, None)
        if is_told:
            # Nobody is to come after it.
            del self._pending_respawns[expected:]
        while queue is not None and not queue.empty():
            self._begin(self._route_again(*queue.get_nowait()))
            # Whoever waits until the queue is done need not wait for another worker.
            queue.task_done()

    def _note_end(self, worker):
        """A worker that ends before it has booted is followed by another later, and later each time."""
        if worker.booted:
            self._pause = 0
            return
        self._wait_longer()

    def _wait_longer(self):
        self._pause = min(max(self._pause * 2, _FIRST_PAUSE), _LONGEST_PAUSE)
        self._not_before = time.monotonic() + self._pause

    async def manage_workers(self):
        """Brings the number of workers to what it should be."""
        while self.alive and len(self._staying()) < self.num_workers and self.spawn_worker() is not None:
            await asyncio.sleep(0)
        while self.alive and len(self._staying()) > self.num_workers + self._surge:
            self._dismiss(self._least_needed())

    def _staying(self):
        return [pid for pid in self.workers if pid not in self._leaving]

    def _least_needed(self):
        """The oldest worker all of whose apps others have as well; the oldest of all if there is none."""
        staying = sorted(self._staying(), key=lambda pid: self.workers[pid].age)

        def is_needed(pid):
            others = [self.worker_app_map.get(other, ()) for other in staying if other != pid]
            return any(not any(app in apps for apps in others) for app in self.worker_app_map.get(pid, ()))

        return next((pid for pid in staying if not is_needed(pid)), staying[0])

    def _dismiss(self, pid):
        """Has a worker end when it has answered what it has taken. Returns the task that sees to it."""
        self._leaving[pid] = self._begin(self._see_off(pid))
        return self._leaving[pid]

    async def _see_off(self, pid):
        queue = self.worker_queues.get(pid)
        if queue is not None:
            await queue.join()
        until = time.monotonic() + self.cfg.dirty_graceful_timeout
        self.kill_worker(pid, signal.SIGTERM)
        while pid in self.workers:
            if time.monotonic() > until:
                self.kill_worker(pid, signal.SIGKILL)
            await asyncio.sleep(LOOK)

    def _begin(self, work):
        """Runs it beside everything else."""
        task = asyncio.create_task(work)
        # The loop itself only remembers tasks weakly.
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def reload(self):
        """Replaces every worker, one after the other: each ends when another with the same apps has booted."""
        self._reload_lock = self._reload_lock or asyncio.Lock()
        async with self._reload_lock:
            self.log.info("Reloading dirty workers")
            self._surge = 1
            try:
                for pid in self._staying():
                    if not await self._replace(pid):
                        self.log.error("Reload of dirty workers failed: a new one has not booted. The old ones go on.")
                        break
            finally:
                self._surge = 0
            await self.manage_workers()

    async def _replace(self, pid):
        """Whether another worker has taken the place of this one."""
        if pid not in self.workers or pid in self._leaving:
            return True
        self._pending_respawns.insert(0, list(self.worker_app_map[pid]))
        successor = self.spawn_worker()
        if successor is None:
            self._pending_respawns.pop(0)
            return False
        while successor in self.workers and not self.workers[successor].booted:
            await asyncio.sleep(LOOK)
        if successor not in self.workers:
            if self._pending_respawns:
                # What the end of that one has left.
                self._pending_respawns.pop()
            return False
        if pid in self.workers and pid not in self._leaving:
            await self._dismiss(pid)
        return True

    # The master's questions

    async def handle_status_request(self, message, client_writer):
        now = time.monotonic()
        workers = [
            {
                "pid": pid, "age": worker.age, "apps": list(worker.app_paths), "booted": worker.booted,
                "last_heartbeat": round(now - worker.tmp.last_update(), 2),
            }
            for pid, worker in sorted(self.workers.items(), key=lambda item: item[1].age)
        ]
        apps = [
            {
                "import_path": path, "worker_count": spec["worker_count"],
                "current_workers": len(self.app_worker_map[path]), "worker_pids": sorted(self.app_worker_map[path]),
            }
            for path, spec in self.app_specs.items()
        ]
        result = {
            "arbiter_pid": self.pid, "workers": workers, "worker_count": len(workers), "apps": list(self.app_specs),
            "app_workers": apps,
        }
        await DirtyProtocol.write_message_async(client_writer, make_response(message.get("id"), result))

    async def handle_manage_request(self, message, client_writer):
        operation, count = message.get("op"), max(1, int(message.get("count", 1)))
        if operation == MANAGE_OP_ADD:
            changed = await self._add(count)
        elif operation == MANAGE_OP_REMOVE:
            changed = await self._remove(count)
        else:
            await super().handle_manage_request(message, client_writer)
            return
        totals = {"total_workers": len(self._staying()), "target_workers": self.num_workers}
        result = {"success": True, **changed, "requested": count, **totals}
        await DirtyProtocol.write_message_async(client_writer, make_response(message.get("id"), result))

    async def _add(self, count):
        spawned = 0
        while spawned < count and self.spawn_worker() is not None:
            spawned += 1
            self.num_workers += 1
            await asyncio.sleep(0)
        said = {"operation": "add", "spawned": spawned}
        return said if spawned else {**said, "reason": "All apps have reached their worker limits"}

    async def _remove(self, count):
        before = self.num_workers
        self.num_workers = min(before, max(self._get_minimum_workers(), before - count))
        await self.manage_workers()
        return {"operation": "remove", "removed": before - self.num_workers}


def _settle(future, error=None):
    """Ends the wait of a client's task, unless it waits no longer."""
    if future.done():
        return
    if error is None:
        future.set_result(None)
    else:
        future.set_exception(error)


def _empty(folder):
    """Removes what an arbiter that was killed has left."""
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            shutil.rmtree(entry.path, ignore_errors=True)
