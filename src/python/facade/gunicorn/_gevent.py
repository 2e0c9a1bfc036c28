"""The hub's side of a worker of class gevent: watchers of the event loop, and the greenlets that call the application.

The server does input and output, reads requests and frames responses. It gives out a request at a time; the
application is called here, so that no frame of the server lies on the stack when greenlets switch in it. Nothing else
may import this module, and it imports gevent only once the standard library is patched, or to look at its version.
"""

import sys

# The oldest that gunicorn takes.
_OLDEST = (24, 10, 1)

# An idle greenlet that was not needed for this many seconds ends, but for a few.
_IDLE_SECONDS = 60
_KEPT_IDLE = 16

# How long late greenlets may take to unwind when the worker ends, in seconds: the master kills it a moment later.
_UNWINDING_SECONDS = 0.2

# Most stacks that are logged at an abort, each with how many greenlets stand there.
_MOST_STACKS = 50


def what_is_missing():
    """A sentence that says why there can be no worker of class gevent; None if there can."""
    need = "worker_class gevent needs the package gevent, 24.10.1 or later"
    try:
        import gevent
    except ImportError as error:
        return f"{need}, which cannot be imported ({error}): pip install gevent"
    if _numbers(gevent.__version__) < _OLDEST:
        return f"{need}, and finds {gevent.__version__}: pip install --upgrade gevent"
    return None


def _numbers(version):
    numbers = []
    for part in version.split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits or 0))
    return tuple(numbers)


def patch():
    """What gunicorn's worker does before all else; in a forked process the hub begins anew."""
    import gevent
    from gevent import monkey

    monkey.patch_all()
    gevent.reinit()


def tools():
    """What the server calls where a greenlet has to wait: see `Hub` in hub.rs."""
    import gevent
    from gevent.socket import wait_read, wait_write

    def wait(descriptor, writes, seconds):
        try:
            (wait_write if writes else wait_read)(descriptor, timeout=seconds)
        except TimeoutError:
            # It is the server that knows how long a client may take.
            pass

    return gevent.get_hub(), gevent.getcurrent, wait, gevent.sleep, stacks


def stacks():
    """The stacks of all greenlets, those that stand at one place once."""
    import gc

    import gevent
    from greenlet import greenlet

    current, hub = gevent.getcurrent(), gevent.get_hub()
    places = {}
    for found in gc.get_objects():
        if isinstance(found, greenlet) and found is not hub and found is not current and found.gr_frame is not None:
            text = _stack(found.gr_frame)
            places[text] = places.get(text, 0) + 1
    lines = []
    running = "" if current is hub else _stack(sys._getframe().f_back)
    if running:
        lines += ["The greenlet that runs:\n", running]
    # Those that wait for a request stand nowhere in the application.
    places.pop("", None)
    shown = sorted(places.items(), key=lambda place: -place[1])
    for text, count in shown[:_MOST_STACKS]:
        lines += [f"{count} greenlet{'s wait' if count > 1 else ' waits'} here:\n", text]
    if len(shown) > _MOST_STACKS:
        lines.append(f"{len(shown) - _MOST_STACKS} more places are not shown.\n")
    if not lines:
        lines.append("No greenlet of the application runs or waits.")
    return "".join(lines).rstrip()


def stack_of(greenlet):
    """Where in the app a greenlet waits; None if it runs or has ended. Called from another thread."""
    return _stack(greenlet.gr_frame) or None


def _stack(frame):
    """As a traceback shows it, without the server's own frames; empty where there are no others."""
    import traceback

    entries = traceback.extract_stack(frame) if frame is not None else []
    return "".join(traceback.format_list([entry for entry in entries if not entry.filename.startswith("<monoceros>")]))


def serve(worker, app, request_timeout):
    """Serves in the hub of this thread until the worker is over. `worker` is the server's, see greenlets.rs."""
    import gevent
    from gevent.event import Event

    pool = _Pool(worker, app, request_timeout)
    over = Event()
    watchers = _Watchers(worker, pool, over)
    while not over.is_set():
        try:
            over.wait()
        except BaseException as error:
            # A handler of a signal has raised it, while the hub ran or this greenlet.
            worker.settle(error)
    watchers.stop()
    if not worker.is_sudden_end():
        late = pool.running()
        if late:
            worker.note_late()
            # One that does not end in that time ends with the process.
            with gevent.Timeout(_UNWINDING_SECONDS, False):
                gevent.killall(late, block=True)
    watchers.finish_logs()


class _Watchers:
    """What the hub watches for the server, and what it does then. All of it runs in the hub, where nothing may wait."""

    def __init__(self, worker, pool, over):
        import gevent

        self._worker = worker
        self._pool = pool
        self._over = over
        self._spawn = gevent.spawn
        self._news = ((4, worker.code_changed), (8, worker.aborted), (16, worker.handle_exit), (32, worker.handle_usr1))
        self._log_writer = None
        self._loop = loop = gevent.get_hub().loop
        events, calls = worker.descriptors()
        self._events = loop.io(events, 1)
        self._calls = loop.io(calls, 1)
        self._timer = loop.timer(0)
        # The heartbeat: only a greenlet that does not let go of the thread stops it.
        self._beat = loop.timer(1, 1)
        # Behind all else that runs before the loop waits, and before all else afterwards.
        self._prepare = loop.prepare(priority=loop.MINPRI)
        self._check = loop.check(priority=loop.MAXPRI)
        self._last_sweep = 0
        self._events.start(self._turn)
        self._calls.start(self._called)
        self._beat.start(self._beaten)
        self._prepare.start(self._before_wait)
        self._check.start(worker.after_wait)
        loop.run_callback(self._turn)

    def stop(self):
        for watcher in (self._events, self._calls, self._timer, self._beat, self._prepare, self._check):
            watcher.stop()
            watcher.close()

    def _turn(self):
        # Bits: requests are ready, over, code has changed, aborted, told to exit, to reopen logs.
        found = self._worker.turn()
        if found & 1:
            self._pool.serve_ready()
        if found & ~1:
            for bit, tell in self._news:
                if found & bit:
                    self._spawn(tell)
            if found & 2:
                self._over.set()

    def _before_wait(self):
        seconds = self._worker.before_wait()
        if seconds is None:
            return
        if seconds == 0:
            self._loop.run_callback(self._turn)
            return
        self._timer.stop()
        self._timer.close()
        self._timer = self._loop.timer(seconds)
        # The loop's own time may be that of its last poll: the timer would fire before anything is due.
        self._timer.start(self._turn, update=True)

    def _beaten(self):
        self._last_sweep += 1
        if self._last_sweep >= _IDLE_SECONDS:
            self._last_sweep = 0
            self._pool.end_idle()
        self._turn()

    def _called(self):
        # Bits: records wait for Python's logging, its files are to be opened anew, its level has changed.
        wanted = self._worker.take_calls()
        if wanted & 1 and not self._log_writer:
            self._log_writer = self._spawn(self._worker.write_logs)
        if wanted & 2:
            self._spawn(self._worker.reopen_logs)
        if wanted & 4:
            self._spawn(self._worker.set_log_level)
        self._turn()

    def finish_logs(self):
        if self._log_writer:
            self._log_writer.join(2)


# Switched into a greenlet of the pool with its first request, and to have it end.
_SERVE = object()
_END = object()


class _Pool:
    """Greenlets that serve. One that has served waits for the next request: a new one costs more than most requests."""

    def __init__(self, worker, app, request_timeout):
        import types

        import gevent
        from greenlet import GreenletExit, greenlet

        self._worker = worker
        self._app = app
        self._seconds = request_timeout
        self._start_limit = gevent.Timeout.start_new
        self._greenlet = gevent.Greenlet
        self._exit = GreenletExit
        # Not the hub's own, which asks for a waiter: nobody else is to wake a greenlet of the pool.
        self._leave = types.MethodType(greenlet.switch, gevent.get_hub())
        self._idle = []
        self._all = set()
        # The fewest that were idle since idle ones were ended.
        self._fewest_idle = 0

    def serve_ready(self):
        """Has a greenlet for each request that is ready. In the hub; each comes back when it first has to wait."""
        has_ready, idle = self._worker.has_ready, self._idle
        while has_ready():
            if idle:
                greenlet = idle.pop()
                if len(idle) < self._fewest_idle:
                    self._fewest_idle = len(idle)
                greenlet.switch(_SERVE)
            else:
                greenlet = self._greenlet(self._serve)
                self._all.add(greenlet)
                greenlet.switch()

    def running(self):
        """The greenlets that are at a request."""
        return list(self._all.difference(self._idle))

    def end_idle(self):
        """Ends greenlets that were idle since the last call."""
        surplus = max(self._fewest_idle - _KEPT_IDLE, 0)
        # Those that were used last are behind.
        leaving, self._idle[:surplus] = self._idle[:surplus], []
        for greenlet in leaving:
            greenlet.switch(_END)
        self._fewest_idle = len(self._idle)

    def _serve(self):
        from gevent import getcurrent

        own = getcurrent()
        task = self._worker.task(own)
        try:
            self._serve_on(own, task)
        finally:
            self._all.discard(own)
            task.leave()

    def _serve_on(self, own, task):
        leave = self._leave
        while True:
            try:
                self._serve_all(task)
            except BaseException as error:
                # A handler of a signal has raised it between two requests, or somebody has killed the greenlet.
                task.fail(error, False)
                task.finish()
                if isinstance(error, self._exit):
                    return
            self._idle.append(own)
            wanted = None
            while wanted is not _SERVE:
                try:
                    wanted = leave()
                except BaseException as error:
                    if isinstance(error, self._exit):
                        if own in self._idle:
                            self._idle.remove(own)
                        return
                if wanted is _END:
                    return

    def _serve_all(self, task):
        """Serves until no request is ready that this greenlet may take."""
        app, seconds = self._app, self._seconds
        begin, answer = task.begin, task.answer
        limit = None
        while (call := begin()) is not None:
            if seconds is not None:
                limit = self._start_limit(seconds)
            try:
                result = app(*call)
            except BaseException as error:
                call = None
                self._fail(task, error, limit)
                continue
            # The environ is the application's alone, if it keeps it.
            call = failure = None
            try:
                over = answer(result)
                if over:
                    if limit is not None:
                        limit.close()
                    result = None
                    continue
                if over is None:
                    self._iterate(task, result)
            except BaseException as error:
                failure = error
            exits = self._settle(task, result, failure, limit)
            result = failure = None
            task.finish()
            if exits:
                raise self._exit

    def _fail(self, task, error, limit):
        if limit is not None:
            limit.close()
        # The frame that has called the application is not the application's.
        error = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
        if limit is not None and error is limit:
            task.time_out(error)
        else:
            task.fail(error, True)
        task.finish()
        if isinstance(error, self._exit):
            raise error

    def _iterate(self, task, result):
        stream = task.stream
        for block in result:
            if not stream(block):
                break
        task.iterated()

    def _settle(self, task, result, failure, limit):
        """Closes the result, whatever has happened before (PEP 3333). Whether the greenlet was killed meanwhile.

        `close()` belongs to the request, and so to its time; after a timeout it has as much again.
        """
        if limit is not None and failure is limit:
            limit.close()
        try:
            close = None if type(result) in (list, tuple) else getattr(result, "close", None)
        except BaseException as error:
            task.close_failed(error)
            close = None
        if close is not None and failure is None:
            try:
                task.complete()
            except BaseException as error:
                failure = error
        if limit is not None and failure is limit:
            task.time_out(failure)
            limit = self._start_limit(self._seconds) if close is not None else None
        elif failure is not None:
            task.fail(failure, False)
        exits = isinstance(failure, self._exit)
        try:
            if close is not None:
                close()
        except BaseException as error:
            task.close_failed(error)
            exits = exits or isinstance(error, self._exit)
        finally:
            if limit is not None:
                limit.close()
        return exits
