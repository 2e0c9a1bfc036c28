"""The application of a program that embeds the server, where the server's own loader finds it."""

application = None


def load():
    """The WSGI app, loaded by the program's own `load`."""
    return application.wsgi()
