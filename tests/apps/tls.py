"""What tests of TLS ask an app."""

import json
import os
import pathlib
import select


def application(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/socket":
        return socket(environ)
    if path == "/half":
        return half(environ)
    body = ACTIONS[path](environ) if path in ACTIONS else b"ok"
    if path == "/broken":
        start_response("200 OK", [("Content-Length", "100")])
        return [b"less"]
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def environ(environ):
    return json.dumps({key: value for key, value in environ.items() if isinstance(value, str)}).encode()


def peer(environ):
    socket = environ["gunicorn.socket"]
    shown = socket.getpeercert()
    return json.dumps({
        "subject": shown and shown["subject"],
        "serial": shown and shown["serialNumber"],
        "der": len(socket.getpeercert(True) or b""),
        "cipher": socket.cipher(),
        "version": socket.version(),
    }).encode()


def plain(environ):
    return json.dumps(hasattr(environ["gunicorn.socket"], "getpeercert")).encode()


def read(environ):
    return str(sum(len(block) for block in iter(lambda: environ["wsgi.input"].read(65536), b""))).encode()


def lent(environ):
    """A response in the ordinary way, by an app that has the socket as well."""
    environ["gunicorn.socket"].fileno()
    return big(environ)


def big(environ):
    return b"x" * int(environ["QUERY_STRING"])


def socket(environ):
    """Says hello and then all that it hears, by way of select and a duplicate, until the client ends."""
    socket = environ["gunicorn.socket"].dup()
    socket.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
    socket.setblocking(False)
    while True:
        select.select([socket], [], [])
        try:
            heard = socket.recv(65536)
        except ConnectionResetError:
            heard = b""
        if not heard:
            break
        socket.setblocking(True)
        socket.sendall(heard)
        socket.setblocking(False)
    socket.close()
    raise StopIteration


def half(environ):
    """Ends its own side, and counts what the client sends until it ends."""
    socket = environ["gunicorn.socket"].dup()
    socket.shutdown(1)
    count = sum(len(block) for block in iter(lambda: socket.recv(65536), b""))
    pathlib.Path(os.environ["GATE"], f"counted-{count}").touch()
    raise StopIteration


ACTIONS = {
    "/environ": environ,
    "/peer": peer,
    "/plain": plain,
    "/read": read,
    "/pid": lambda environ: str(os.getpid()).encode(),
    "/lent": lent,
    "/big": big,
}
