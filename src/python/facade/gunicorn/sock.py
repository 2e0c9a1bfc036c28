"""Listeners as worker classes get them: sockets of Python, with gunicorn's names. They are opened by the server."""

import socket


class BaseSocket(socket.socket):
    """An open listener. `cfg_addr` is what it is bound to, and its text what the log shows."""

    FAMILY = None
    _text = ""
    cfg_addr = None

    @classmethod
    def of(cls, descriptor, text, address):
        """The listener behind `descriptor`, which now belongs to the object."""
        made = cls(fileno=descriptor)
        made._text = text
        made.cfg_addr = address
        return made

    @property
    def sock(self):
        """The socket: the object itself. In gunicorn it is another one."""
        return self

    def __str__(self):
        return self._text


class TCPSocket(BaseSocket):
    FAMILY = socket.AF_INET


class TCP6Socket(TCPSocket):
    FAMILY = socket.AF_INET6


class UnixSocket(BaseSocket):
    FAMILY = socket.AF_UNIX


def listener(descriptor, text, address):
    """The listener behind `descriptor`, as an object of the class for its family."""
    with socket.socket(fileno=descriptor) as looked_at:
        family = looked_at.family
        looked_at.detach()
    kinds = {kind.FAMILY: kind for kind in (TCPSocket, TCP6Socket, UnixSocket)}
    return kinds.get(family, BaseSocket).of(descriptor, text, address)


def ssl_context(conf):
    """The context of a server with these settings, for worker classes that serve TLS by themselves."""
    from gunicorn import _ssl_context

    return _ssl_context.make(conf)


def ssl_wrap_socket(sock, conf):
    """A connection that was accepted, under TLS."""
    return ssl_context(conf).wrap_socket(
        sock,
        server_side=True,
        suppress_ragged_eofs=conf.suppress_ragged_eofs,
        do_handshake_on_connect=conf.do_handshake_on_connect,
    )
