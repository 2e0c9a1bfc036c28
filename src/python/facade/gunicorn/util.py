"""Helpers of gunicorn that code outside it uses.

Only those that make sense without gunicorn's sockets and processes. It must not import another part of this package but
the errors, and nothing costly at the top: `config` stands on it.
"""

import os
import sys

from gunicorn.errors import AppImportError

REDIRECT_TO = getattr(os, "devnull", "/dev/null")
# RFC 9110 section 7.6.1, and the two that the server itself writes.
hop_headers = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers", "transfer-encoding",
    "upgrade", "server", "date",
}
_GLOB_CHARACTERS = frozenset("*?[")


# Finding what a name stands for

def load_class(uri, default="gunicorn.workers.sync.SyncWorker", section="gunicorn.workers"):
    """The class that `uri` names: a class, `egg:DISTRIBUTION#NAME`, an alias, an entry point or a dotted path.

    Raises RuntimeError with what went wrong; a traceback of the class's own module is its cause.
    """
    if isinstance(uri, type):
        return uri
    try:
        if uri.startswith("egg:"):
            distribution, _, name = uri.removeprefix("egg:").partition("#")
            return load_entry_point(distribution, section, name or default)
        if "." in uri:
            return _load_dotted(uri)
        from gunicorn.workers import SUPPORTED_WORKERS

        if uri in SUPPORTED_WORKERS and section == "gunicorn.workers":
            return _load_dotted(SUPPORTED_WORKERS[uri])
        return _load_named(section, uri)
    except Exception as error:
        message = f"class uri {uri!r} invalid or not found: {type(error).__name__}: {error}"
        raise RuntimeError(message) from error


# Classes that a config file has given as objects, by the names that stand for them in the settings.
_given_classes = {}


def remember_class(given):
    """The name that from now on stands for the class `given`, also one that no import finds."""
    name = f"{given.__module__}.{given.__qualname__}"
    _given_classes[name] = given
    return name


def load_worker_class(name):
    """As `load_class`, also for a class that a config file has given as an object."""
    return _given_classes.get(name) or load_class(name.removeprefix("#"))


def load_entry_point(distribution, group, name):
    """What the installed `distribution` offers as `name` in `group`; ImportError if nothing."""
    from importlib import metadata

    for entry in metadata.distribution(distribution).entry_points:
        if entry.group == group and entry.name == name:
            return entry.load()
    raise ImportError(f"Entry point {(group, name)!r} not found")


def _load_named(group, name):
    """What any distribution offers as `name` in `group`."""
    from importlib import metadata

    for entry in metadata.entry_points(group=group, name=name):
        return entry.load()
    raise ImportError(f"{name!r} is neither a dotted path nor an entry point in {group!r}")


def _load_dotted(path):
    import importlib

    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)


def import_app(module):
    """The application that `MODULE`, `MODULE:NAME` or `MODULE:factory("x", k=1)` names."""
    # The server's own loader, so that there is one grammar.
    from gunicorn import _loader

    try:
        return _loader.load(module)
    except _loader.AppError as error:
        raise AppImportError(str(error)) from None


def get_arity(f):
    """How many positional parameters `f` has; `*args` counts as none."""
    import inspect

    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(parameter.kind in positional for parameter in inspect.signature(f).parameters.values())


# Addresses

def is_ipv6(addr):
    """Whether `addr` is an IPv6 address."""
    import socket

    try:
        socket.inet_pton(socket.AF_INET6, addr)
    except (OSError, ValueError):
        return False
    return True


def parse_address(netloc, default_port="8000"):
    """A `bind` value as (host, port), as the path of a unix socket, or as the number of an open descriptor."""
    if netloc.startswith("unix:"):
        return netloc.removeprefix("unix:").removeprefix("//")
    if netloc.startswith("fd://"):
        return int(netloc.removeprefix("fd://"))
    netloc = netloc.removeprefix("tcp://")
    if netloc.startswith("[") and "]" in netloc:
        host, _, rest = netloc[1:].partition("]")
        port = rest.removeprefix(":") or default_port
    elif ":" in netloc:
        host, _, port = netloc.partition(":")
    else:
        host, port = netloc or "0.0.0.0", default_port
    try:
        return host.lower(), int(port)
    except ValueError:
        raise RuntimeError(f"{port!r} is not a valid port number.") from None


# Files and processes

def getcwd():
    """The working directory, by the name that the shell gave it when that is the same directory."""
    current = os.getcwd()
    try:
        named = os.environ["PWD"]
        same = os.path.samestat(os.stat(named), os.stat(current))
    except (KeyError, OSError):
        return current
    return named if same else current


def check_is_writable(path):
    """Opens `path` for appending; RuntimeError if that cannot be done."""
    try:
        with open(path, "a"):
            pass
    except OSError as error:
        raise RuntimeError(f"Error: '{path}' isn't writable [{error!r}]") from None


def get_username(uid):
    """The name of the user `uid`; KeyError if there is none."""
    import pwd

    return pwd.getpwuid(uid).pw_name


def set_owner_process(uid, gid, initgroups=False):
    """Changes group and user of this process, unless it has them; with `initgroups` to all groups of the user."""
    if (uid, gid) == (os.geteuid(), os.getegid()):
        return
    if initgroups and uid:
        os.initgroups(get_username(uid), gid)
    if gid:
        os.setgid(gid)
    if uid:
        os.setuid(uid)


def _setproctitle(title):
    """Shows `title`, behind the server's name, as the title of this process."""
    import _monoceros

    _monoceros.set_title(f"monoceros: {title}")


def chown(path, uid, gid):
    """Gives `path` to a user and a group."""
    os.chown(path, uid, gid)


def unlink(filename):
    """Removes a file that may already be gone."""
    try:
        os.unlink(filename)
    except (FileNotFoundError, NotADirectoryError):
        pass


def close_on_exec(fd):
    """Keeps a descriptor from the programs that this process runs."""
    os.set_inheritable(fd if isinstance(fd, int) else fd.fileno(), False)


def set_non_blocking(fd):
    """Makes a descriptor non-blocking."""
    os.set_blocking(fd if isinstance(fd, int) else fd.fileno(), False)


def close(sock):
    """Closes a socket, whatever state it is in."""
    try:
        sock.close()
    except OSError:
        pass


def has_fileno(obj):
    """Whether `obj` is a file with a descriptor behind it."""
    import io

    try:
        obj.fileno()
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False
    return True


def seed():
    """Seeds `random` afresh; called in a process that was forked."""
    import random

    random.seed()


def is_glob_pattern(value):
    """Whether `value` is a pattern for file names rather than one."""
    return not _GLOB_CHARACTERS.isdisjoint(value)


# HTTP

def http_date(timestamp=None):
    """The time in the form of RFC 9110 section 5.6.7; now, without a timestamp in seconds since the epoch."""
    from email.utils import formatdate

    return formatdate(timestamp, usegmt=True)


def is_hoppish(header):
    """Whether a header belongs to the server, not to the app (RFC 9110 section 7.6.1)."""
    return header.strip().lower() in hop_headers


def split_request_uri(uri):
    """The parts of a request-target. Two slashes at its start belong to the path, not to a host."""
    from urllib.parse import urlsplit

    if uri.startswith("//"):
        # A leading dot makes it a path for urlsplit; it is cut off again.
        parts = urlsplit("." + uri)
        return parts._replace(path=parts.path[1:])
    return urlsplit(uri)


def to_bytestring(value, encoding="utf8"):
    """Text encoded; bytes as they are; TypeError for the rest."""
    if isinstance(value, bytes):
        return value
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a string")
    return value.encode(encoding)


def bytes_to_str(b):
    """Bytes as PEP 3333 keeps them in a str."""
    return b if isinstance(b, str) else str(b, "latin1")


def unquote_to_wsgi_str(string):
    """A percent-encoded path as PEP 3333 wants it in PATH_INFO."""
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(string).decode("latin-1")


# Telling the operator

def warn(msg):
    """A warning in a frame, on stderr."""
    print("!!!", file=sys.stderr)
    for number, line in enumerate(msg.splitlines()):
        print(f"!!! {'WARNING: ' if number == 0 else ''}{line}", file=sys.stderr)
    print("!!!\n", file=sys.stderr, flush=True)


def make_fail_app(msg):
    """An application that answers every request with 500 and `msg`."""
    body = to_bytestring(msg)

    def app(environ, start_response):
        headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
        start_response("500 Internal Server Error", headers)
        return [body]

    return app


def reraise(tp, value, tb=None):
    """Raises an exception that was caught elsewhere, with its traceback."""
    raise (tp() if value is None else value).with_traceback(tb)


# Answering by hand, in a worker class of one's own

def write(sock, data, chunked=False):
    """Sends `data`."""
    if chunked:
        write_chunk(sock, data)
    else:
        sock.sendall(data)


def write_chunk(sock, data):
    """Sends `data` as a chunk (RFC 9112 section 7.1)."""
    sock.sendall(b"%X\r\n%b\r\n" % (len(data), data))


def write_nonblock(sock, data, chunked=False):
    """Sends `data`. It waits for the client all the same: the server has read the request before."""
    write(sock, data, chunked)


def _error_page(reason, mesg):
    import html

    return (
        f"<html>\n  <head>\n    <title>{reason}</title>\n  </head>\n"
        f"  <body>\n    <h1><p>{reason}</p></h1>\n    {html.escape(mesg)}\n  </body>\n</html>\n"
    ).encode("latin-1", "replace")


def write_error(sock, status_int, reason, mesg):
    """Sends a whole response that says `reason` and `mesg`; the connection ends with it."""
    page = _error_page(reason, mesg)
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: text/html\r\n"
        f"Content-Length: {len(page)}\r\n\r\n"
    )
    sock.sendall(head.encode("latin-1") + page)


def close_graceful(sock):
    """Closes a client's socket."""
    close(sock)
