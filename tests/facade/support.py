"""What the tests of the facade share: it finds the facade, stands in for the server, and cleans up after each test.

`_monoceros` beside this file stands in for the native module.
"""

import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import types
import unittest
from datetime import timedelta

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = HERE.parent.parent / "src" / "python"
sys.path[:0] = [str(HERE), str(PYTHON / "facade")]

import _monoceros  # noqa: E402
import gunicorn  # noqa: E402, F401

# The server serves its own loader under this name.
_spec = importlib.util.spec_from_file_location("gunicorn._loader", PYTHON / "loader.py")
sys.modules["gunicorn._loader"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["gunicorn._loader"])

from gunicorn import _bridge, _native, config, glogging  # noqa: E402

# One request, for loggers.
RESPONSE = types.SimpleNamespace(status="200 OK", sent=5, headers=[("X-A", "1")], response_length=5)
REQUEST = types.SimpleNamespace(headers=[("USER-AGENT", 'u"a')])
ENVIRON = {
    "REMOTE_ADDR": "1.2.3.4", "REQUEST_METHOD": "GET", "RAW_URI": "/a?b", "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/a", "QUERY_STRING": "b", "HTTP_USER_AGENT": 'u"a', "HTTP_AUTHORIZATION": "Basic dTpw",
}
DURATION = timedelta(days=1, seconds=1, microseconds=2345)


def fresh(code, *arguments, environment=None):
    """Runs `code` in a new interpreter that knows the standard library and the facade, and returns what it printed."""
    setup = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(PYTHON / 'facade')!r}]\n"
    command = [sys.executable, "-S", "-W", "error", "-c", setup + code, *arguments]
    env = {**os.environ, **(environment or {})}
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60, env=env)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def configured(**settings):
    cfg = config.Config()
    for name, value in settings.items():
        cfg.set(name, value)
    return cfg


class FacadeTest(unittest.TestCase):
    """A folder, a server that was told nothing yet, and no handlers left behind."""

    def setUp(self):
        _monoceros.forget()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.addCleanup(self.forget_handlers)

    def forget_handlers(self):
        _native._take_of_class()
        for log in glogging.loggers():
            for handler in list(log.handlers):
                log.removeHandler(handler)
                handler.close()

    def bridge(self, values=None, objects=None):
        bridge = _bridge.Bridge(values or {}, objects or {})
        bridge.make_log()
        bridge.server({"pid": os.getpid(), "num_workers": 2, "listeners": [("http://127.0.0.1:8000", 0)],
                       "addresses": [("127.0.0.1", 8000)], "master_name": "Master", "proc_name": "shop"})
        return bridge
