"""The response as hooks and loggers see it, and the names that config files patch.

A record of what was sent, plus `default_headers`, because wrapping that method is how config files take the Server
header away. It must not send anything.
"""

import gunicorn

# gunicorn has copies of the two names here, and config files change either.
SERVER = gunicorn.SERVER
SERVER_SOFTWARE = gunicorn.SERVER_SOFTWARE
_OWN_SERVER, _OWN_SOFTWARE = SERVER, SERVER_SOFTWARE


def server_name():
    """The name in the Server header, as the config file may have changed it."""
    return gunicorn.SERVER if SERVER is _OWN_SERVER else SERVER


def server_software():
    """`SERVER_SOFTWARE` of environs, as the config file may have changed it."""
    return gunicorn.SERVER_SOFTWARE if SERVER_SOFTWARE is _OWN_SOFTWARE else SERVER_SOFTWARE


class FileWrapper:
    """An iterable over a file, in blocks, as gevent's server has it. Elsewhere `wsgi.file_wrapper` is a faster one."""

    def __init__(self, filelike, blksize=8192):
        self.filelike = filelike
        self.blksize = blksize
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self):
        return self

    def __next__(self):
        if block := self.filelike.read(self.blksize):
            return block
        raise StopIteration

    def __getitem__(self, key):
        # The iteration of old Python: indexes rise until IndexError, and their values do not matter.
        if block := self.filelike.read(self.blksize):
            return block
        raise IndexError(key)


class Response:
    """What was answered. `status` is the text after the version, `sent` the bytes of the body."""

    def __init__(self, req, sock, cfg):
        self.req = req
        self.sock = sock
        self.cfg = cfg
        self.version = server_name()
        self.status = None
        self.status_code = None
        self.chunked = False
        self.must_close = False
        self.headers = []
        self.headers_sent = False
        self.response_length = None
        self.sent = 0
        self.upgrade = False

    def should_close(self):
        """Whether the connection ends with this response."""
        return self.must_close or (self.req is not None and self.req.should_close())

    def is_chunked(self):
        """Whether the body went out in chunks."""
        return self.chunked

    def default_headers(self):
        """The lines of a response before the app's own. Of a config's own version only the Server line is used."""
        from gunicorn import util

        major, minor = self.req.version
        connection = "upgrade" if self.upgrade else "close" if self.should_close() else "keep-alive"
        lines = [
            f"HTTP/{major}.{minor} {self.status}\r\n",
            f"Server: {self.version}\r\n",
            f"Date: {util.http_date()}\r\n",
            f"Connection: {connection}\r\n",
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        return lines


_UNPATCHED = Response.default_headers


def server_header(cfg):
    """The value of the Server header that the config file has asked for, or None where it wants no such header."""
    if Response.default_headers is _UNPATCHED:
        return server_name()
    from gunicorn.http.message import Request

    probe = Response(Request(), None, cfg)
    probe.status, probe.status_code = "200 OK", 200
    for line in probe.default_headers():
        name, _, value = line.partition(":")
        if name.strip().lower() == "server":
            return value.strip()
    return None
