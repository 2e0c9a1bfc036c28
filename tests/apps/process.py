"""What tests of processes, signals and time need from an app. The path says what to do, the query string with what.

GATE, an environment variable, names a folder where the app says how far it has come (`entered-...` files) and waits
to be let go on (`release`), so that no test has to sleep and hope.
"""

import atexit
import ctypes
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

gate = pathlib.Path(os.environ.get("GATE", "."))
serial = itertools.count()
ticks = 0


def tick():
    global ticks
    while True:
        time.sleep(0.01)
        ticks += 1


@atexit.register
def say_goodbye():
    (gate / f"atexit-{os.getpid()}").touch()


def application(environ, start_response):
    path = environ["PATH_INFO"].strip("/")
    value = ACTIONS[path](environ) if path in ACTIONS else os.getpid()
    data = json.dumps(value).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(data)))])
    return [data]


def sleep(environ):
    time.sleep(float(environ["QUERY_STRING"]))
    return os.getpid()


def wait(environ):
    """Say that a request is inside the app, and stay until the test says `release`."""
    (gate / f"entered-{os.getpid()}-{next(serial)}").touch()
    while not (gate / "release").exists():
        time.sleep(0.005)
    return os.getpid()


def hang(environ):
    """As wait(), but deaf to everything but SIGKILL."""
    signal.signal(signal.SIGABRT, signal.SIG_IGN)
    (gate / f"entered-{os.getpid()}-{next(serial)}").touch()
    while True:
        time.sleep(1)


def thread(environ):
    """How far a background thread of the worker comes between two requests."""
    if "ticker" not in {one.name for one in threading.enumerate()}:
        threading.Thread(target=tick, name="ticker", daemon=True).start()
    return ticks


def python(environ):
    return {
        "prefix": sys.prefix,
        "executable": sys.executable,
        "argv": sys.argv,
        "path": sys.path,
        "cwd": os.getcwd(),
        "version": list(sys.version_info[:2]),
        "main_thread": threading.current_thread() is threading.main_thread(),
        "main_module": sys.modules["__main__"].__name__,
        "server_software": os.environ.get("SERVER_SOFTWARE"),
        "flask": __import__("flask").__file__,
    }


def of_environ(environ):
    return environ.get(environ["QUERY_STRING"])


def identity(environ):
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": sorted(os.getgroups()), "umask": umask()}


def umask():
    old = os.umask(0)
    os.umask(old)
    return old


def children(environ):
    """The server must leave the app's own children to the app."""
    command = [sys.executable, "-S", "-c", "raise SystemExit(7)"]
    return [subprocess.run(command, check=False).returncode for _ in range(3)]


def own_handler(environ):
    """signal.signal works, as it does only in the main thread."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    return "set"


kept = []


def grow(environ):
    """Keep that many megabytes for good."""
    kept.append(b"x" * (int(environ["QUERY_STRING"]) << 20))
    return os.getpid()


def peak(environ):
    """Use that many megabytes for a moment."""
    b"x" * (int(environ["QUERY_STRING"]) << 20)
    return os.getpid()


def exhaust(environ):
    """More memory than there is."""
    return len(b"x" * 2**45)


def recurse(environ):
    return recurse(environ)


def backtrack(environ):
    """Hours in C with the interpreter's lock held."""
    (gate / f"entered-{os.getpid()}-{next(serial)}").touch()
    re.match("(a+)+$", "a" * 60 + "b")


def sleep_in_c(environ):
    """Hours in C without the interpreter's lock, deaf to Python's signal handlers."""
    (gate / f"entered-{os.getpid()}-{next(serial)}").touch()
    while True:
        ctypes.CDLL(None).sleep(600)


def deadlock(environ):
    (gate / f"entered-{os.getpid()}-{next(serial)}").touch()
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()


def linger(environ):
    """Leave a thread behind that never ends, and an exit handler that does not either."""
    threading.Thread(target=lambda: [time.sleep(1) for _ in iter(int, 1)]).start()
    atexit.register(lambda: time.sleep(600))
    return os.getpid()


def inherited(environ):
    """What a child of the app would find open."""
    code = "import os; d = '/proc/self/fd/'; "
    code += "print([os.readlink(d + n) for n in os.listdir(d) if os.path.islink(d + n)])"
    command = [sys.executable, "-S", "-c", code]
    return subprocess.run(command, check=True, close_fds=False, capture_output=True, text=True).stdout.strip()


def orphan(environ):
    """Leave a grandchild to whoever adopts it, and say who it is."""
    code = "import os, sys; pid = os.fork(); print(pid, flush=True) if pid else os.execlp('sleep', 'sleep', '0.2')"
    return int(subprocess.run([sys.executable, "-S", "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout)


def fork(environ):
    """A child that comes back from the app as if it were the worker, by a return or by an exception."""
    child = os.fork()
    if child == 0:
        if environ["QUERY_STRING"] == "raise":
            sys.exit(5)
        return "child"
    (gate / f"forked-{child}").touch()
    return os.waitpid(child, 0)[1]


def fork_while_logging(environ):
    """How many of a hundred children that log a line do not end, while another thread logs all the time."""
    import logging

    log, over = logging.getLogger("gunicorn.error"), threading.Event()

    def chatter():
        while not over.is_set():
            log.info("chatter")

    thread = threading.Thread(target=chatter)
    thread.start()
    children = []
    for _ in range(100):
        child = os.fork()
        if child == 0:
            log.info("a line of a child")
            os._exit(0)
        children.append(child)
    over.set()
    thread.join()
    end = time.monotonic() + 10
    while children and time.monotonic() < end:
        children = [child for child in children if os.waitpid(child, os.WNOHANG) == (0, 0)]
        time.sleep(0.01)
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return len(children)


ACTIONS = {
    "environ": of_environ,
    "fork": fork,
    "fork_while_logging": fork_while_logging,
    "exhaust": exhaust,
    "recurse": recurse,
    "backtrack": backtrack,
    "sleep-in-c": sleep_in_c,
    "deadlock": deadlock,
    "linger": linger,
    "inherited": inherited,
    "orphan": orphan,
    "abort": lambda environ: os.abort(),
    "leave": lambda environ: sys.exit(3),
    "pid": lambda environ: os.getpid(),
    "sleep": sleep,
    "wait": wait,
    "hang": hang,
    "thread": thread,
    "loaded": lambda environ: environ["QUERY_STRING"] in sys.modules,
    "python": python,
    "identity": identity,
    "children": children,
    "own-handler": own_handler,
    "env": lambda environ: os.environ.get(environ["QUERY_STRING"]),
    "print": lambda environ: print(environ["QUERY_STRING"], flush=True),
    "grow": grow,
    "peak": peak,
    "exit": lambda environ: os._exit(int(environ["QUERY_STRING"])),
    "segfault": lambda environ: ctypes.string_at(0),
    "spin": lambda environ: [None for _ in iter(int, 1)],
    "raise": lambda environ: 1 / 0,
}
