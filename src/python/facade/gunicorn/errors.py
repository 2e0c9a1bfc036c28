"""What gunicorn's own code raises and outside code catches. It must not import anything."""


class HaltServer(BaseException):
    """Ends the server. Not an `Exception`, so that no handler of an app swallows it."""

    def __init__(self, reason, exit_status=1):
        self.reason = reason
        self.exit_status = exit_status

    def __str__(self):
        return f"<HaltServer {self.reason!r} {self.exit_status}>"


class ConfigError(Exception):
    """A setting, or something it names, cannot be used."""


class AppImportError(Exception):
    """The module was imported, but it holds no usable application."""
