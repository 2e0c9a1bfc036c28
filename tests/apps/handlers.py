"""What applications, agents and config files do with signals. MODE says what this one does when it is imported.

The path of a request says what to do, as in process.py, whose gate it shares.
"""

import atexit
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
import weakref

from process import gate, serial

SERVERS = ["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH"]


def tell(name, number=None, frame=None):
    (gate / f"{name}-{os.getpid()}-{next(serial)}").touch()


def chain(number):
    """As tracing agents do: work of their own first, then whatever was there before."""
    old = signal.getsignal(number)

    def handle(number, frame):
        tell("handler")
        if callable(old):
            old(number, frame)
        else:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    signal.signal(number, handle)


def restore_and_repeat(number):
    """As coverage does: the handler that was there before comes back, and gets the signal."""
    old = signal.getsignal(number)

    def handle(number, frame):
        tell("handler")
        signal.signal(number, old)
        os.kill(os.getpid(), number)

    signal.signal(number, handle)


def clean_up(number, frame):
    tell("handler")
    sys.exit(0)


def take_all():
    for name in SERVERS:
        signal.signal(getattr(signal, name), lambda number, frame: tell("stolen"))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def fail(number, frame):
    tell("handler")
    raise ValueError("from a handler")


def dump(number, frame):
    tell("handler")


def hang(*_):
    tell("importing")
    go_on()


def go_on():
    # One long sleep is not interrupted by a signal that comes just before it begins.
    for _ in range(6000):
        time.sleep(0.01)


class Hangs:
    __del__ = hang


MODES = {
    "chain": lambda: chain(signal.SIGTERM),
    "restore_and_repeat": lambda: restore_and_repeat(signal.SIGTERM),
    "clean_up": lambda: signal.signal(signal.SIGTERM, clean_up),
    "take_all": take_all,
    "fail": lambda: [signal.signal(number, fail) for number in (signal.SIGALRM, signal.SIGUSR2)],
    "dump": lambda: [signal.signal(number, dump) for number in (signal.SIGALRM, signal.SIGUSR2)],
    "hang": hang,
    # No bytecode runs here, and so no handler in Python.
    "hang_in_c": lambda: (tell("importing"), sum(range(10**12))),
    # Python drops what is raised in these two, and goes on.
    "hang_in_destructor": lambda: (Hangs() is None, go_on()),
    "hang_in_callback": lambda: (weakref.ref(type("Thing", (), {})(), hang), go_on()),
    "": lambda: None,
}

atexit.register(tell, "goodbye")
MODES[os.environ.get("MODE", "")]()


def application(environ, start_response):
    status, body = ACTIONS[environ["PATH_INFO"].strip("/")](environ)
    data = str(body).encode()
    start_response(status, [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
    return [data]


def pid(environ):
    return "200 OK", os.getpid()


def wait(environ):
    tell("entered")
    while not (gate / "release").exists():
        time.sleep(0.005)
    return "200 OK", os.getpid()


def endless(environ):
    """Until a hook's exception ends it."""
    tell("entered")
    try:
        while True:
            time.sleep(0.01)
    except TimeoutError:
        return "504 Too Late", "too late"


def killed_child(environ):
    """How a child ends that the application has forked and that gets the signal named in the query string."""
    number = getattr(signal, environ["QUERY_STRING"])
    child = os.fork()
    if child == 0:
        os.kill(os.getpid(), number)
        time.sleep(10)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "200 OK", os.WTERMSIG(status) if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def own_handler_in_child(environ):
    """A child's own handler is its own affair."""
    signal_seen = 7
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(signal_seen))
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "200 OK", os.WEXITSTATUS(status)


def pool(environ):
    """Leaving the block sends TERM to the processes of the pool."""
    with multiprocessing.get_context("fork").Pool(2) as processes:
        return "200 OK", sum(processes.map(abs, [-1, -2, -3]))


def save_and_restore(environ):
    for name in SERVERS:
        number = getattr(signal, name)
        old = signal.signal(number, lambda number, frame: None)
        signal.signal(number, old)
    return "200 OK", "restored"


def callables(environ):
    """Which of the server's signals have no callable for a handler."""
    return "200 OK", [name for name in [*SERVERS, "SIGABRT"] if not callable(signal.getsignal(getattr(signal, name)))]


def call_handler(environ):
    signal.getsignal(signal.SIGTERM)(signal.SIGTERM, None)
    return "200 OK", os.getpid()


def alarm(environ):
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    return "200 OK", os.getpid()


def write_too_much(environ):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with open(gate / "large", "wb", buffering=0) as file:
            file.write(b"x" * 100)
            file.write(b"x")
    except OSError as error:
        return "200 OK", os.strerror(error.errno)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    return "200 OK", "written"


def thread_name(environ):
    return "200 OK", threading.current_thread().name


ACTIONS = {
    "": pid,
    "wait": wait,
    "endless": endless,
    "killed_child": killed_child,
    "own_handler_in_child": own_handler_in_child,
    "pool": pool,
    "save_and_restore": save_and_restore,
    "callables": callables,
    "call_handler": call_handler,
    "alarm": alarm,
    "write_too_much": write_too_much,
    "thread_name": thread_name,
}
