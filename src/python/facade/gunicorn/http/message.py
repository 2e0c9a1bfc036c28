"""The request as hooks and loggers see it.

A record of what the server has parsed. It must not parse, and must not know where the bytes came from.
"""


class Message:
    """What a request consists of once it has been read. Hooks put attributes of their own on it."""

    def __init__(self, *, version=(1, 1), headers=(), trailers=(), body=None, scheme="http", peer_addr=None,
                 remote_addr=None, keep_alive=True, cfg=None):
        self.cfg = cfg
        self.version = version
        self.headers = list(headers)
        self.trailers = list(trailers)
        self.body = body
        self.scheme = scheme
        self.peer_addr = peer_addr
        self.remote_addr = remote_addr
        self.must_close = not keep_alive

    def should_close(self):
        """Whether the connection ends with this request."""
        return self.must_close

    def force_close(self):
        """Refused, because the server has already decided it."""
        raise RuntimeError("a request cannot close its connection from Python: send the header Connection: close")


class Request(Message):
    """A request whose head is complete. `headers` are pairs with upper-case names, in the order they came."""

    def __init__(self, *, method="GET", uri="/", path="/", query="", fragment="", proxy_protocol_info=None,
                 req_number=1, **message):
        super().__init__(**message)
        self.method = method
        self.uri = uri
        self.path = path
        self.query = query
        self.fragment = fragment
        self.proxy_protocol_info = proxy_protocol_info
        self.req_number = req_number
