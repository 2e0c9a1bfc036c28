"""Tests the facade by itself, without the server: `python tests/facade/test_facade.py`.

`_monoceros` beside this file stands in for the native module. Where GUNICORN_SITE names a directory in which the real
gunicorn is installed, settings are compared with it as well.
"""

import importlib.util
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import types
import unittest
from datetime import timedelta
from unittest import mock

HERE = pathlib.Path(__file__).resolve().parent
PYTHON = HERE.parent.parent / "src" / "python"
sys.path[:0] = [str(HERE), str(PYTHON / "facade")]

import _monoceros  # noqa: E402
import gunicorn  # noqa: E402

# The server serves its own loader under this name.
_spec = importlib.util.spec_from_file_location("gunicorn._loader", PYTHON / "loader.py")
sys.modules["gunicorn._loader"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(sys.modules["gunicorn._loader"])

from gunicorn import _bridge, config, errors, glogging, util  # noqa: E402
from gunicorn.app.base import Application, BaseApplication  # noqa: E402
from gunicorn.app.wsgiapp import WSGIApplication  # noqa: E402
from gunicorn.arbiter import Arbiter  # noqa: E402
from gunicorn.instrument.statsd import Statsd  # noqa: E402
from gunicorn.workers.base import Worker  # noqa: E402


def fresh(code, *arguments, environment=None):
    """Runs `code` in a new interpreter that knows the standard library and the facade, and returns what it printed."""
    setup = f"import sys; sys.path[:0] = [{str(HERE)!r}, {str(PYTHON / 'facade')!r}]\n"
    command = [sys.executable, "-S", "-W", "error", "-c", setup + code, *arguments]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=60, env={**os.environ, **(environment or {})}
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout


def configured(**settings):
    cfg = config.Config()
    for name, value in settings.items():
        cfg.set(name, value)
    return cfg


class FacadeTest(unittest.TestCase):
    def setUp(self):
        _monoceros.forget()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.addCleanup(self.forget_handlers)

    def forget_handlers(self):
        for log in glogging.loggers():
            for handler in list(log.handlers):
                log.removeHandler(handler)
                handler.close()

    def bridge(self, values=None, objects=None):
        bridge = _bridge.Bridge(values or {}, objects or {})
        bridge.make_log()
        bridge.server({"pid": os.getpid(), "num_workers": 2, "listeners": ["http://127.0.0.1:8000"],
                       "addresses": [("127.0.0.1", 8000)], "master_name": "Master", "proc_name": "shop"})
        return bridge


class Imports(FacadeTest):
    def test_the_package_alone_is_tiny(self):
        code = "import _monoceros; before = set(sys.modules); import gunicorn; print(*sorted(set(sys.modules) - before))"
        self.assertEqual(fresh(code).split(), ["gunicorn"])

    def test_settings_need_neither_logging_nor_sockets(self):
        code = "import gunicorn.config; gunicorn.config.Config(); print(*sys.modules)"
        loaded = set(fresh(code).split())
        costly = {"argparse", "email", "importlib.metadata", "inspect", "ipaddress", "logging", "socket", "ssl"}
        self.assertEqual(loaded & costly, set())

    def test_hooks_need_no_sockets(self):
        loaded = set(fresh("import gunicorn._bridge; print(*sys.modules)").split())
        self.assertEqual(loaded & {"argparse", "email", "inspect", "logging.config", "logging.handlers", "socket"}, set())

    def test_versions(self):
        self.assertEqual(gunicorn.version_info, (27, 0, 1))
        self.assertEqual(gunicorn.__version__, "27.0.1")
        self.assertEqual(gunicorn.SERVER, "monoceros")
        self.assertEqual(gunicorn.SERVER_SOFTWARE, _monoceros.SERVER_SOFTWARE)

    def test_parts_load_when_they_are_touched(self):
        code = "import gunicorn; print(gunicorn.http.wsgi.Response.__name__, gunicorn.glogging.Logger.__name__)"
        self.assertEqual(fresh(code).split(), ["Response", "Logger"])

    def test_what_is_missing_says_why(self):
        with self.assertRaisesRegex(AttributeError, "dirty arbiters are not supported"):
            gunicorn.dirty
        with self.assertRaisesRegex(AttributeError, "its worker classes are sync and gthread"):
            gunicorn.workers.ggevent

    def test_each_module_says_why_it_exists(self):
        for path in (PYTHON / "facade").rglob("*.py"):
            with self.subTest(path=path.name):
                compiled = compile(path.read_text(), str(path), "exec")
                self.assertIsInstance(compiled.co_consts[0], str)


class Settings(FacadeTest):
    def test_attributes_and_set(self):
        cfg = configured(workers="0x10", bind="a:1", raw_env=["A=b", "C=d=e"], umask="022")
        self.assertEqual((cfg.workers, cfg.bind, cfg.umask), (16, ["a:1"], 0o22))
        self.assertEqual(cfg.env, {"A": "b", "C": "d=e"})
        self.assertEqual(cfg.address, [("a", 1)])
        self.assertEqual(cfg.settings["workers"].get(), 16)

    def test_unknown_names_and_direct_assignment_are_refused(self):
        cfg = config.Config()
        for act in (lambda: cfg.set("nope", 1), lambda: cfg.nope, lambda: setattr(cfg, "workers", 3)):
            self.assertRaises(AttributeError, act)

    def test_values_are_judged(self):
        cases = [
            ("workers", "-1", ValueError), ("workers", "x", ValueError), ("workers", None, TypeError),
            ("daemon", "yes", ValueError), ("daemon", 1, TypeError), ("pidfile", 3, TypeError),
            ("bind", [1], TypeError), ("secure_scheme_headers", 3, TypeError), ("header_map", "x", ValueError),
            ("forwarded_allow_ips", "nope", ValueError), ("statsd_host", "a:b", TypeError),
            ("user", "nobody-here", errors.ConfigError), ("chdir", "/not/here", errors.ConfigError),
            ("pre_fork", lambda server: None, TypeError), ("pre_fork", 3, TypeError),
            ("reload_extra_files", "/not/here", ValueError), ("proxy_protocol", "v3", ValueError),
        ]
        for name, value, error in cases:
            with self.subTest(name=name, value=value):
                self.assertRaises(error, configured, **{name: value})

    def test_no_value_leaks_into_the_next_config(self):
        config.Config().settings["raw_env"].value.append("A=b")
        self.assertEqual(config.Config().raw_env, [])

    def test_computed_values(self):
        cfg = configured(threads=2, proc_name="shop", certfile="c.pem", raw_paste_global_conf=["a\\=b=c"])
        self.assertEqual(cfg.worker_class_str, "gthread")
        self.assertEqual(cfg.worker_class.__name__, "ThreadWorker")
        self.assertEqual(cfg.proc_name, "shop")
        self.assertEqual((cfg.uid, cfg.gid), (os.geteuid(), os.getegid()))
        self.assertTrue(cfg.is_ssl)
        self.assertEqual(cfg.ssl_options["certfile"], "c.pem")
        self.assertEqual(cfg.paste_global_conf, {"a=b": "c"})
        self.assertEqual(cfg.forwarded_allow_ips, ["127.0.0.1", "::1"])
        self.assertIs(config.Config().logger_class, glogging.Logger)
        self.assertIs(configured(logger_class="simple", statsd_host="h").logger_class, Statsd)
        self.assertIs(configured(logger_class="logging.Logger", statsd_host="h").logger_class, logging.Logger)

    def test_classes_carry_the_defaults(self):
        self.assertIn('"%(r)s"', config.AccessLogFormat.default)
        self.assertEqual(config.WorkerThreads.name, "threads")
        self.assertIs(config.make_settings()["bind"].__class__, config.Bind)
        self.assertNotIn("bind", config.make_settings(ignore=[config.Bind]))

    def test_a_setting_of_ones_own(self):
        self.addCleanup(lambda known=list(config.KNOWN_SETTINGS): config.KNOWN_SETTINGS.__setitem__(slice(None), known))

        class Colour(config.Setting):
            name = "colour"
            section = "Paint"
            cli = ["--colour"]
            validator = config.validate_string
            default = "red"
            desc = "The colour."

        cfg = config.Config()
        self.assertEqual(cfg.colour, "red")
        self.assertEqual(cfg.parser().parse_args(["--colour", "blue"]).colour, "blue")
        self.assertRaises(TypeError, cfg.set, "colour", 3)

    def test_parser(self):
        with mock.patch.dict(os.environ, GUNICORN_CMD_ARGS='--workers 3 --name "a b"'):
            cfg = config.Config(usage="%(prog)s APP", prog="serve")
        self.assertEqual(cfg.get_cmd_args_from_env(), ["--workers", "3", "--name", "a b"])
        options = cfg.parser().parse_args(["-w4", "--no-sendfile", "-b", "a", "-b", "b", "--proxy-protocol", "--graceful", "9", "m:a"])
        self.assertEqual((options.workers, options.sendfile, options.bind), ("4", False, ["a", "b"]))
        self.assertEqual((options.proxy_protocol, options.graceful_timeout, options.timeout), ("auto", 9, None))
        self.assertIn("usage: serve APP", cfg.parser().format_help())

    def test_text_is_sorted(self):
        names = [line.split(" ")[0] for line in str(configured(on_exit=lambda server: None)).splitlines()]
        self.assertEqual(names, sorted(names))
        self.assertIn("<when_ready()>", str(config.Config()))


class Helpers(FacadeTest):
    def test_addresses(self):
        cases = {"[::1]:80": ("::1", 80), ":80": ("", 80), "A": ("a", 8000), "unix:/x": "/x", "unix://y": "y",
                 "fd://3": 3, "tcp://a:9": ("a", 9)}
        for text, address in cases.items():
            self.assertEqual(util.parse_address(text), address)
        self.assertRaises(RuntimeError, util.parse_address, "h:x")

    def test_import_app(self):
        self.assertIs(util.import_app("os:getcwd"), os.getcwd)
        for spec in ("os:nope", "os:path.join", "os:name"):
            self.assertRaises(errors.AppImportError, util.import_app, spec)
        self.assertRaises(ModuleNotFoundError, util.import_app, "not_there:app")

    def test_load_class(self):
        self.assertIs(util.load_class("gunicorn.arbiter.Arbiter"), Arbiter)
        self.assertIs(util.load_class(dict), dict)
        with self.assertRaisesRegex(RuntimeError, "class uri 'not.There' invalid or not found"):
            util.load_class("not.There")

    def test_http(self):
        self.assertEqual(util.http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT")
        self.assertTrue(util.is_hoppish(" Server "))
        self.assertEqual(util.split_request_uri("//a/b?c").path, "//a/b")
        self.assertEqual(util.unquote_to_wsgi_str("/%E9"), "/\xe9")
        self.assertEqual(util.to_bytestring("\xe9"), b"\xc3\xa9")

    def test_parser_errors_keep_their_text(self):
        from gunicorn.http import errors as http_errors

        self.assertEqual(str(http_errors.LimitRequestLine(3, 2)), "Request Line is too large (3 > 2)")
        self.assertEqual(str(http_errors.ChunkMissingTerminator(b"x")), r"Invalid chunk terminator is not '\r\n': b'x'")
        self.assertEqual(http_errors.InvalidHeader("h", req=1).req, 1)


class Hooks(FacadeTest):
    def refusal(self, name, value):
        with self.assertRaises(errors.ConfigError) as caught:
            _bridge.Bridge({}, {name: value})
        return str(caught.exception)

    def test_arity(self):
        class Both:
            def method(self, server, worker):
                pass

            def __call__(self, server, worker):
                pass

        for hook in (lambda a, b: 0, lambda a, b, *, c=1: 0, Both().method, Both()):
            self.assertEqual(_bridge.Bridge({}, {"pre_fork": hook}).hooks, {"pre_fork"})
        for hook in (lambda a: 0, lambda *a: 0, lambda a, b, c=1: 0, Both.method):
            self.assertIn("must take 2 arguments (server, worker)", self.refusal("pre_fork", hook))
        self.assertIn("invalid value for 'on_exit': 3 is not callable", self.refusal("on_exit", 3))
        self.assertIn("must take 1 argument (server)", self.refusal("on_exit", lambda: 0))
        self.assertIn("must take 2 to 4 arguments", self.refusal("post_request", lambda a: 0))
        self.assertIn("cannot be told", self.refusal("on_exit", max))

    def test_dotted_names(self):
        (self.folder / "own_hooks.py").write_text("seen = []\ndef ready(server): seen.append(server)\n")
        self.enterContextOf(mock.patch.object(sys, "path", [str(self.folder), *sys.path]))
        self.addCleanup(sys.modules.pop, "own_hooks", None)
        bridge = self.bridge({"when_ready": "own_hooks.ready", "pre_fork": None, "workers": 3})
        self.assertEqual(bridge.hooks, {"when_ready"})
        bridge.call_server("when_ready")
        self.assertEqual(sys.modules["own_hooks"].seen, [bridge.arbiter])
        self.assertEqual(bridge.cfg.workers, 3)
        for path, sentence in (("nope", "not an import path"), ("nope.x", "No module named"), ("os.nope", "no 'nope'")):
            with self.assertRaisesRegex(errors.ConfigError, sentence):
                _bridge.Bridge({"when_ready": path}, {})

    def enterContextOf(self, manager):
        manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)

    def test_master_hooks(self):
        seen = []
        bridge = self.bridge(objects={
            "nworkers_changed": lambda server, new, old: seen.append((server.num_workers, new, old)),
            "pre_fork": lambda server, worker: seen.append((server, str(worker), worker.ppid)),
            "child_exit": lambda server, worker: seen.append((worker.pid, worker.age, dict(server.WORKERS))),
        })
        bridge.call_server("nworkers_changed", 2, None)
        bridge.call_server("on_exit")
        bridge.pre_fork(1)
        bridge.forked(4711)
        self.assertEqual(list(bridge.arbiter.WORKERS), [4711])
        bridge.child_exit(1)
        bridge.child_exit(4711)
        server = bridge.arbiter
        self.assertEqual(seen, [(2, 2, None), (server, "<Worker [booting]>", os.getpid()), (4711, 1, {})])

    def test_worker_hooks(self):
        seen = []
        bridge = self.bridge({"timeout": 30}, {
            "post_fork": lambda server, worker: seen.append(("post_fork", worker.pid, worker.timeout)),
            "post_worker_init": lambda worker: setattr(worker, "wsgi", ("wrapped", worker.wsgi)),
            "worker_int": lambda worker: seen.append(("int", worker.alive)),
            "worker_abort": lambda worker: seen.append(("abort", worker.aborted)),
            "worker_exit": lambda server, worker: 1 / 0,
        })
        bridge.pre_fork(3)
        pending = bridge._pending
        bridge.enter_worker({"pid": 5, "ppid": 4, "age": 3, "max_requests": 10})
        self.assertIs(bridge.worker, pending)
        self.assertEqual((pending.pid, pending.ppid, pending.age, pending.max_requests), (5, 4, 3, 10))
        bridge.post_fork()
        app = object()
        self.assertEqual(bridge.post_worker_init(app), ("wrapped", app))
        self.assertIs(bridge.worker.app.callable, app)
        bridge.worker_int()
        bridge.worker_abort()
        bridge.worker_exit()
        self.assertEqual(seen, [("post_fork", 5, 15), ("int", False), ("abort", True)])
        level, text = _monoceros.records[-1]
        self.assertEqual(level, logging.WARNING)
        self.assertTrue(text.startswith("Exception during worker exit:\nTraceback"))
        self.assertIn("ZeroDivisionError", text)

    def test_a_tracer_wraps_the_app(self):
        bridge = self.bridge()
        bridge.enter_worker({"pid": 5, "ppid": 4, "age": 1})
        original = Application.wsgi
        with mock.patch.object(Application, "wsgi", lambda self: ("traced", original(self)), create=True):
            self.assertEqual(bridge.post_worker_init(len), ("traced", len))

    def test_request_hooks(self):
        seen = []

        def pre_request(worker, req):
            if req.path == "/bad":
                raise ValueError("no")
            req.begun = worker.nr
            seen.append((req.method, req.uri, req.headers, req.version, req.should_close()))

        for hook in (
            lambda worker, req: seen.append(req.begun),
            lambda worker, req, environ: seen.append((req.begun, environ)),
            lambda worker, req, environ, resp: seen.append((req.begun, environ, resp.status, resp.sent)),
        ):
            bridge = self.bridge(objects={"pre_request": pre_request, "post_request": hook})
            bridge.enter_worker({"pid": 5, "ppid": 4, "age": 1})
            req = bridge.request(method="GET", uri="/a?b", path="/a", query="b", fragment="", version=(1, 0),
                                 headers=[("HOST", "x")], scheme="http", peer_addr=("127.0.0.1", 5),
                                 remote_addr=("127.0.0.1", 5), body=None, proxy_protocol_info=None, keep_alive=False)
            resp = bridge.response(status="200 OK", status_code=200, headers=[], sent=5, response_length=5,
                                   headers_sent=True, chunked=False)
            self.assertTrue(bridge.pre_request(req))
            self.assertTrue(bridge.post_request(req, {}, resp))
            self.assertEqual(bridge.worker.nr, 1)
        told = ("GET", "/a?b", [("HOST", "x")], (1, 0), True)
        self.assertEqual(seen, [told, 0, told, (0, {}), told, (0, {}, "200 OK", 5)])
        with self.assertRaises(ValueError):
            bridge.pre_request(bridge.request(path="/bad"))

    def test_a_post_request_that_fails_is_logged(self):
        bridge = self.bridge(objects={"post_request": lambda worker, req: 1 / 0})
        bridge.enter_worker({"pid": 5, "ppid": 4, "age": 1})
        self.assertTrue(bridge.post_request(bridge.request(), {}, None))
        level, text = _monoceros.records[-1]
        self.assertEqual(level, logging.ERROR)
        self.assertTrue(text.startswith("Exception in post_request hook\nTraceback"))

    def test_a_hook_can_ask_for_another_worker(self):
        bridge = self.bridge(objects={"post_request": lambda worker, req: setattr(worker, "alive", False)})
        bridge.enter_worker({"pid": 5, "ppid": 4, "age": 1})
        self.assertFalse(bridge.post_request(bridge.request(), {}, None))

    def test_a_reload_keeps_server_and_workers(self):
        old = self.bridge()
        old.pre_fork(1)
        old.forked(7)
        old.arbiter.connection = "kept"
        new = _bridge.Bridge({"proc_name": "other"}, {})
        new.take_over(old)
        new.make_log()
        new.server({})
        self.assertEqual((new.arbiter.connection, list(new.arbiter.WORKERS)), ("kept", [7]))
        self.assertEqual((new.arbiter.cfg.proc_name, new.arbiter.log), ("other", new.log))

    def test_server_object(self):
        server = self.bridge({"timeout": 9}).arbiter
        self.assertEqual([str(listener) for listener in server.LISTENERS], ["http://127.0.0.1:8000"])
        self.assertEqual(server.LISTENERS[0].getsockname(), ("127.0.0.1", 8000))
        self.assertEqual((server.pid, server.timeout, server.proc_name), (os.getpid(), 9, "shop"))
        self.assertEqual(server.worker_class.__name__, "SyncWorker")
        with self.assertRaisesRegex(AttributeError, "SIGTTIN"):
            server.num_workers = 3
        with self.assertRaisesRegex(RuntimeError, "the master of monoceros is not written in Python"):
            server.spawn_worker()
        received = []
        before = signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        server.reload()
        self.assertEqual(received, [signal.SIGHUP])

    def test_worker_classes_say_that_they_do_not_run(self):
        class Own(Worker):
            def run(self):
                super().run()

        worker = Own(1, 2, [], None, 15, config.Config(), None)
        with self.assertRaisesRegex(RuntimeError, "Own.run cannot run: monoceros does not run worker classes"):
            worker.run()

    def test_server_header(self):
        from gunicorn.http.wsgi import Response

        self.assertEqual(self.bridge().server_header(), "monoceros")
        with mock.patch.object(gunicorn, "SERVER", "shop"):
            self.assertEqual(self.bridge().server_header(), "shop")
        original = Response.default_headers
        without = lambda self: [line for line in original(self) if not line.startswith("Server: ")]  # noqa: E731
        with mock.patch.object(Response, "default_headers", without):
            self.assertIsNone(self.bridge().server_header())


RESPONSE = types.SimpleNamespace(status="200 OK", sent=5, headers=[("X-A", "1")], response_length=5)
REQUEST = types.SimpleNamespace(headers=[("USER-AGENT", 'u"a')])
ENVIRON = {
    "REMOTE_ADDR": "1.2.3.4", "REQUEST_METHOD": "GET", "RAW_URI": "/a?b", "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/a", "QUERY_STRING": "b", "HTTP_USER_AGENT": 'u"a', "HTTP_AUTHORIZATION": "Basic dTpw",
}
DURATION = timedelta(days=1, seconds=1, microseconds=2345)


class Logs(FacadeTest):
    def files(self, **settings):
        paths = {"errorlog": str(self.folder / "error"), "accesslog": str(self.folder / "access")}
        return configured(**{**paths, **settings})

    def text(self, name):
        return (self.folder / name).read_text()

    def test_native(self):
        bridge = self.bridge({"loglevel": "warning"})
        self.assertFalse(bridge.python_logging)
        bridge.log.info("not %s", "this")
        bridge.log.log("error", "100%% %s", "sure")
        try:
            raise ValueError("why")
        except ValueError:
            bridge.log.exception("It failed")
        self.assertEqual(_monoceros.records[0], (40, "100% sure"))
        self.assertEqual(_monoceros.records[1][0], 40)
        self.assertRegex(_monoceros.records[1][1], r"(?s)\AIt failed\nTraceback .*\nValueError: why\Z")
        bridge.access(RESPONSE, REQUEST, ENVIRON, 1.5)
        bridge.reopen()
        self.assertEqual(len(_monoceros.records), 2)
        self.assertEqual(_monoceros.reopened, [])
        bridge.log.reopen_files()
        self.assertEqual(_monoceros.reopened, [True])

    def test_native_with_a_formatter(self):
        bridge = self.bridge()
        handler, = bridge.log.error_log.handlers
        handler.setFormatter(logging.Formatter("<%(levelname)s %(message)s>"))
        logging.getLogger("gunicorn.error").info("hi")
        self.assertEqual((_monoceros.raw, _monoceros.records), (["<INFO hi>\n"], []))
        # A reload begins with the handler that the config file has not touched yet.
        self.bridge().log.info("again")
        self.assertEqual(_monoceros.records, [(20, "again")])

    def test_who_writes_the_logs(self):
        class Own(glogging.Logger):
            pass

        for name, value in (("logconfig", "a.ini"), ("logconfig_dict", {"root": {}}), ("logconfig_json", "a.json"),
                            ("syslog", True), ("statsd_host", "a:1"), ("logger_class", Own),
                            ("logger_class", "own.Logger")):
            self.assertTrue(_bridge.Bridge({}, {name: value}).python_logging, name)
        for name, value in (("logconfig_dict", {}), ("logger_class", "simple"), ("logger_class", glogging.Logger),
                            ("syslog", False), ("accesslog", "-"), ("statsd_host", None)):
            self.assertFalse(_bridge.Bridge({}, {name: value}).python_logging, name)

    def test_files(self):
        log = glogging.Logger(self.files())
        log.info("hi %s", 1)
        log.access(RESPONSE, REQUEST, ENVIRON, DURATION)
        self.assertRegex(self.text("error"), r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[INFO\] hi 1\n$")
        self.assertRegex(
            self.text("access"), r'^1\.2\.3\.4 - u \[[^]]+\] "GET /a\?b HTTP/1\.1" 200 5 "-" "u\\"a"\n$'
        )
        self.assertFalse(log.error_log.propagate or log.access_log.propagate)

    def test_atoms(self):
        log = glogging.Logger(self.files())
        atoms = log.atoms_wrapper_class(log.atoms(RESPONSE, REQUEST, ENVIRON, DURATION))
        expected = {"m": "GET", "U": "/a", "q": "b", "H": "HTTP/1.1", "b": "5", "B": 5, "s": "200", "T": 1, "D": 1002345,
                    "M": 1002, "L": "1.002345", "p": f"<{os.getpid()}>", "{User-Agent}i": 'u\\"a', "{X-a}o": "1",
                    "{remote_addr}e": "1.2.3.4", "nope": "-", "{nope}i": "-"}
        self.assertEqual({name: atoms[name] for name in expected}, expected)

    def test_users(self):
        log = glogging.Logger(self.files())
        for header, user in (("Basic dTpw", "u"), ("basic dTpw", "u"), ("Bearer x", None), ("Basic dQ", None),
                             ("Basic /w==", None), ("", None)):
            self.assertEqual(log._get_user({"HTTP_AUTHORIZATION": header}), user, header)

    def test_a_subclass(self):
        class Own(glogging.Logger):
            error_fmt = "%(levelname)s|%(message)s"

            def setup(self, cfg):
                super().setup(cfg)
                self.error_log.addFilter(lambda record: "secret" not in record.getMessage())

            def atoms(self, resp, req, environ, request_time):
                return {**super().atoms(resp, req, environ, request_time), "x": "own"}

        self.addCleanup(logging.getLogger("gunicorn.error").filters.clear)
        cfg = self.files(logger_class=Own, access_log_format="%(x)s %(s)s")
        bridge = self.bridge(objects={name: cfg.settings[name].get() for name in (
            "logger_class", "errorlog", "accesslog", "access_log_format")})
        self.assertTrue(bridge.python_logging)
        bridge.record(30, "100% mine")
        bridge.record(20, "a secret")
        bridge.access(RESPONSE, REQUEST, ENVIRON, 0.25)
        bridge.access_line('1.2.3.4 - - "GET /%41" 400')
        self.assertEqual(self.text("error"), "WARNING|100% mine\n")
        self.assertEqual(self.text("access"), 'own 200\n1.2.3.4 - - "GET /%41" 400\n')

    def test_a_logger_that_fails_stops_nothing(self):
        class Own(glogging.Logger):
            def access(self, resp, req, environ, request_time):
                raise KeyError("x")

            def error(self, msg, *args, **kwargs):
                raise KeyError("y")

        bridge = self.bridge(objects={"logger_class": Own, "errorlog": str(self.folder / "error")})
        bridge.access(RESPONSE, REQUEST, ENVIRON, 1.0)
        self.assertIn("Exception in the logger's access()", _monoceros.raw[0])
        self.assertIn("KeyError: 'x'", _monoceros.raw[0])

    def test_reopen(self):
        log = glogging.Logger(self.files())
        log.info("one")
        (self.folder / "error").rename(self.folder / "error.1")
        log.reopen_files()
        log.info("two")
        self.assertIn("one", self.text("error.1"))
        self.assertIn("two", self.text("error"))
        self.assertNotIn("two", self.text("error.1"))

    def test_logconfig_dict(self):
        path = str(self.folder / "own")
        chosen = {
            "handlers": {"own": {"class": "logging.FileHandler", "filename": path, "formatter": "short"}},
            "formatters": {"short": {"format": "%(name)s %(message)s"}},
            "root": {"level": "INFO", "handlers": ["own"]},
            "loggers": {"gunicorn.error": {"level": "INFO", "handlers": ["own"], "propagate": False}},
        }
        bridge = self.bridge(objects={"logconfig_dict": chosen})
        bridge.record(20, "hi")
        self.assertEqual(self.text("own"), "gunicorn.error hi\n")
        self.assertTrue(bridge.log.access_log_enabled)

    def test_logconfig_json(self):
        path = self.folder / "log.json"
        path.write_text(json.dumps({"root": {"level": "DEBUG", "handlers": ["console"]}}))
        glogging.Logger(configured(logconfig_json=str(path)))
        self.assertEqual(logging.getLogger().level, logging.DEBUG)
        glogging.Logger(configured(logconfig_json="/not/here"))

    def test_logconfig(self):
        path = self.folder / "log 100%.ini"
        path.write_text(
            "[loggers]\nkeys=root,error\n[handlers]\nkeys=own\n[formatters]\nkeys=own\n[logger_root]\nhandlers=own\n"
            "[logger_error]\nqualname=gunicorn.error\nhandlers=own\npropagate=0\n[handler_own]\nclass=FileHandler\n"
            "formatter=own\nargs=('%(here)s/own', 'a')\n[formatter_own]\nformat=own %(message)s\n"
        )
        glogging.Logger(configured(logconfig=str(path))).error("hi")
        self.assertEqual(self.text("own"), "own hi\n")

    def test_log_settings_that_cannot_be_used(self):
        bad_json = self.folder / "bad.json"
        bad_json.write_text("[")
        bad_ini = self.folder / "bad.ini"
        bad_ini.write_text("nothing\n")
        for settings in (
            {"logconfig": "/not/here"}, {"logconfig": str(bad_ini)}, {"logconfig_json": str(bad_json)},
            {"logconfig_dict": {"handlers": 3}}, {"logconfig_dict": {"handlers": {"a": {"class": "no.Such"}}}},
            {"errorlog": "/not/here/log"}, {"syslog": True, "syslog_addr": "x"},
            {"syslog": True, "syslog_facility": "x"},
        ):
            with self.subTest(settings=settings):
                self.assertRaises(RuntimeError, glogging.Logger, configured(**settings))
        with self.assertRaisesRegex(RuntimeError, "no"):
            self.bridge(objects={"logconfig_dict": {"handlers": {"a": {"class": "no.Such"}}}})

    def test_syslog(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
            server.bind(("127.0.0.1", 0))
            server.settimeout(10)
            address = "udp://127.0.0.1:%d" % server.getsockname()[1]
            cfg = self.files(syslog=True, syslog_addr=address, proc_name="shop:app", syslog_facility="local1")
            log = glogging.Logger(cfg)
            log.error("hi")
            error = server.recv(999)
            log.access(RESPONSE, REQUEST, ENVIRON, DURATION)
            access = server.recv(999)
            self.assertEqual(error, b"<139>gunicorn.shop.app.error: [%d] hi\0" % os.getpid())
            self.assertTrue(access.startswith(b"<142>gunicorn.shop.app.access: [%d] 1.2.3.4" % os.getpid()), access)
            # A second logger, as after a reload, does not say everything twice.
            cfg.set("disable_redirect_access_to_syslog", True)
            log = glogging.Logger(cfg)
            self.assertEqual((len(log.error_log.handlers), len(log.access_log.handlers)), (2, 1))

    def test_syslog_addresses(self):
        stream, dgram = socket.SOCK_STREAM, socket.SOCK_DGRAM
        cases = {"unix:///x": (None, "/x"), "unix://x#stream": (stream, "x"), "unix://x#dgram": (dgram, "x"),
                 "udp://h": (dgram, ("h", 514)), "tcp://[::1]:5": (stream, ("::1", 5))}
        for text, parsed in cases.items():
            self.assertEqual(glogging.parse_syslog_address(text), parsed)


class Metrics(FacadeTest):
    def setUp(self):
        super().setUp()
        self.agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.addCleanup(self.agent.close)
        self.agent.bind(("127.0.0.1", 0))
        self.agent.settimeout(10)

    def statsd(self, **settings):
        address = "127.0.0.1:%d" % self.agent.getsockname()[1]
        statsd = Statsd(configured(statsd_host=address, errorlog=str(self.folder / "error"), **settings))
        self.addCleanup(statsd.sock.close)
        return statsd

    def sent(self, statsd):
        """What has been sent since it was last asked for."""
        statsd.gauge("end", 0)
        metrics = []
        while not (metric := self.agent.recv(999).decode()).split(":")[0].endswith("end"):
            metrics.append(metric)
        return metrics

    def test_requests(self):
        statsd = self.statsd()
        statsd.access(RESPONSE, REQUEST, ENVIRON, DURATION)
        self.assertEqual(self.sent(statsd), [
            "gunicorn.request.duration:1002.345|ms", "gunicorn.requests:1|c|@1.0", "gunicorn.request.status.200:1|c|@1.0",
        ])

    def test_records(self):
        statsd = self.statsd()
        for name in ("critical", "error", "warning", "exception", "info", "debug"):
            getattr(statsd, name)("x")
        self.assertEqual(self.sent(statsd), [
            f"gunicorn.log.{name}:1|c|@1.0" for name in ("critical", "error", "warning", "exception")
        ])

    def test_extra(self):
        statsd = self.statsd()
        for kind in ("gauge", "counter", "histogram", "timer", "nope"):
            statsd.info("m", extra={"metric": "a.b", "value": 3, "mtype": kind})
        statsd.debug("", extra={"metric": "c", "value": 0, "mtype": "gauge"})
        self.assertEqual(self.sent(statsd), ["a.b:3|g", "a.b:3|c|@1.0", "a.b:3|h", "a.b:3|ms", "c:0|g"])
        self.assertEqual((self.folder / "error").read_text().count("[INFO] m"), 5)

    def test_prefix_and_tags(self):
        for prefix, dotted in (("shop", "shop."), ("shop.", "shop."), ("shop..", "shop."), ("s", "s"), ("", "")):
            statsd = self.statsd(statsd_prefix=prefix, dogstatsd_tags="a:b,c")
            statsd.increment("n", 2, 0.5)
            self.assertEqual(self.sent(statsd), [f"{dotted}n:2|c|@0.5|#a:b,c"])

    def test_unix_sockets(self):
        path = str(self.folder / "agent")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as agent:
            agent.bind(path)
            agent.settimeout(10)
            statsd = Statsd(configured(statsd_host=f"unix://{path}", errorlog=str(self.folder / "error")))
            self.addCleanup(statsd.sock.close)
            statsd.gauge("g", 1)
            self.assertEqual(agent.recv(99), b"g:1|g")
            # A full queue holds nothing up.
            for _ in range(10_000):
                statsd.gauge("g", 1)

    def test_no_agent(self):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
            closed.bind(("127.0.0.1", 0))
            refusing = "127.0.0.1:%d" % closed.getsockname()[1]
        for number, (address, complaints) in enumerate({"unix:///not/here": 0, refusing: 1}.items()):
            errorlog = self.folder / str(number)
            statsd = Statsd(configured(statsd_host=address, errorlog=str(errorlog)))
            for _ in range(20):
                statsd.info("", extra={"metric": "m", "value": 1, "mtype": "gauge"})
            self.assertEqual(errorlog.read_text().count("Error sending message to statsd"), complaints)
            if statsd.sock:
                statsd.sock.close()

    def test_the_servers_own_metrics(self):
        address = "127.0.0.1:%d" % self.agent.getsockname()[1]
        bridge = self.bridge({"statsd_host": address, "errorlog": str(self.folder / "error")})
        self.addCleanup(bridge.log.sock.close)
        bridge.metric("2 workers", "gunicorn.workers", 2, "gauge")
        bridge.record(40, "down")
        self.assertEqual(self.sent(bridge.log), ["gunicorn.workers:2|g", "gunicorn.log.error:1|c|@1.0"])


class Embedding(FacadeTest):
    def test_the_recipe(self):
        class Standalone(BaseApplication):
            def __init__(self, app, options):
                self.options = options
                self.application = app
                super().__init__()

            def load_config(self):
                for name, value in self.options.items():
                    if name in self.cfg.settings and value is not None:
                        self.cfg.set(name.lower(), value)

            def load(self):
                return self.application

        app = Standalone(len, {"bind": "127.0.0.1:0", "workers": 2, "other": 1})
        self.assertEqual((app.cfg.workers, app.wsgi()), (2, len))
        with self.assertRaisesRegex(RuntimeError, r"Standalone\.run\(\) cannot start a server inside the server"):
            app.run()
        ran = []
        with mock.patch.object(_monoceros, "run_application", ran.append, create=True):
            app.run()
            Arbiter(app).run()
        self.assertEqual(ran, [app, app])

    def test_an_arbiter_with_methods_of_its_own(self):
        class Own(Arbiter):
            def manage_workers(self):
                pass

        app = types.SimpleNamespace(cfg=config.Config())
        with self.assertRaisesRegex(RuntimeError, r"Own\.manage_workers cannot run"):
            Own(app).run()

    def test_bad_settings_end_the_program(self):
        class Bad(BaseApplication):
            def load_config(self):
                self.cfg.set("nope", 1)

        with mock.patch("sys.stderr") as stderr, self.assertRaises(SystemExit) as caught:
            Bad()
        self.assertEqual(caught.exception.code, 1)
        said = "".join(call.args[0] for call in stderr.write.call_args_list)
        self.assertEqual(said, "\nError: No configuration setting for: nope\n")

    def test_the_command_line(self):
        (self.folder / "gunicorn.conf.py").write_text(
            "import os\nworkers = 2\nthreads = 3\nproc_name = 'file'\nunknown = 5\ndef on_exit(server): pass\n"
        )
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(self.folder)
        arguments = ["prog", "os:getcwd", "-w", "4"]
        with mock.patch.dict(os.environ, GUNICORN_CMD_ARGS="--threads 5 --workers 6"), \
                mock.patch.object(sys, "argv", arguments), mock.patch.object(sys, "path", list(sys.path)):
            app = WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]")
        self.addCleanup(sys.modules.pop, "__config__", None)
        cfg = app.cfg
        self.assertEqual((cfg.workers, cfg.threads, cfg.proc_name, cfg.on_exit.__name__), (4, 5, "file", "on_exit"))
        self.assertEqual((cfg.default_proc_name, app.wsgi()), ("os:getcwd", os.getcwd))

    def test_no_app(self):
        with mock.patch.object(sys, "argv", ["prog"]), mock.patch("sys.stderr"), \
                mock.patch.object(sys, "path", list(sys.path)), self.assertRaises(SystemExit):
            WSGIApplication()

    def test_paste_section(self):
        from gunicorn.app import pasterapp

        ran = []
        with mock.patch.object(_monoceros, "run_application", ran.append, create=True):
            pasterapp.serve(len, {"__file__": ""}, host="127.0.0.1", port="8080", workers="3", daemon="false")
        app, = ran
        self.assertEqual((app.cfg.bind, app.cfg.workers, app.wsgi()), (["127.0.0.1:8080"], 3, len))


# Each is set in gunicorn and here; what comes of it is compared. The texts of errors may differ.
COMPARED = r"""
import json, sys
import gunicorn.config as config, gunicorn.util as util
from gunicorn.http import errors
def outcome(act):
    try:
        return repr(act())
    except Exception as error:
        return type(error).__name__
def value(name, given):
    cfg = config.Config()
    cfg.set(name, given)
    return getattr(cfg, name)
values = [
    ("workers", "0x10"), ("workers", "-1"), ("workers", True), ("workers", "x"), ("workers", None), ("workers", 2.5),
    ("workers", "1 "), ("backlog", b"1"), ("daemon", "True"), ("daemon", " yes"), ("daemon", 1), ("daemon", None),
    ("bind", "a:1"), ("bind", ["a ", 1]), ("bind", None), ("bind", ""), ("pidfile", 3), ("pidfile", " x "),
    ("secure_scheme_headers", 3), ("logconfig_dict", None), ("forwarded_allow_ips", "a,b"),
    ("forwarded_allow_ips", "*"), ("forwarded_allow_ips", "10.0.0.0/8, ::1"), ("forwarded_allow_ips", "10.0.0.1/8"),
    ("forwarded_allow_ips", ""), ("forwarded_allow_ips", None), ("forwarder_headers", "a, b"), ("header_map", "x"),
    ("header_map", "DROP"), ("statsd_host", "a"), ("statsd_host", "a:1"), ("statsd_host", "unix:///x"),
    ("statsd_host", "unix:123"), ("statsd_host", ""), ("statsd_host", None), ("statsd_host", "a:b"), ("user", "root"),
    ("user", "no-such-user"), ("user", None), ("user", "12"), ("group", "root"), ("group", "no-such-group"),
    ("chdir", "/not/here"), ("chdir", "/tmp"), ("pre_fork", 3), ("pre_fork", "os.path.join"), ("pre_fork", "nope"),
    ("pre_fork", "nope.x"), ("pre_fork", "os.nope"), ("pre_fork", None), ("proxy_protocol", True),
    ("proxy_protocol", "x"), ("proxy_protocol", None), ("proxy_protocol", "V1"), ("raw_env", "A=b"),
    ("reload_extra_files", "/not/here"), ("certfile", ""), ("loglevel", "X"), ("logger_class", 3),
    ("worker_class", "nope"), ("logger_class", "not.There"), ("worker_class", dict), ("timeout", 5.9), ("keepalive", []),
]
found = {f"{name}={given!r}": outcome(lambda: value(name, given)) for name, given in values}
for arity in range(6):
    hook = eval("lambda %s: 0" % ", ".join("abcdef"[:arity]))
    for name in ("on_exit", "pre_fork", "post_request", "nworkers_changed", "pre_request", "worker_int"):
        taken = outcome(lambda: callable(config.Config().set(name, hook)))
        found[f"{name} arity {arity}"] = taken
for text in ("127.0.0.1", "[::1]:80", "unix:/x", "unix://x", "fd://3", "tcp://a:9", "h:", ":80", "h:x", "A", "::1", "[::1]", ""):
    found[f"address {text}"] = outcome(lambda: util.parse_address(text))
for name in sorted(name for name in vars(errors) if isinstance(getattr(errors, name), type) and name[0] != "_"):
    if name in ("ParseException", "InvalidSchemeHeaders"):
        continue
    found[f"error {name}"] = outcome(lambda: str(getattr(errors, name)("x")))
for act in ("cfg.nope", "cfg.set('nope', 1)", "setattr(cfg, 'workers', 1)", "cfg.address", "cfg.uid", "cfg.is_ssl or None",
            "cfg.env", "cfg.sendfile", "cfg.paste_global_conf", "cfg.worker_class_str", "cfg.forwarded_allow_ips",
            "cfg.logger_class.__name__", "cfg.worker_class.__name__", "cfg.usage", "cfg.get_cmd_args_from_env()"):
    found[act] = outcome(lambda: eval(act, {"cfg": config.Config()}))
print(json.dumps(found))
"""


class BesideGunicorn(unittest.TestCase):
    maxDiff = None

    @unittest.skipUnless(os.environ.get("GUNICORN_SITE"), "GUNICORN_SITE names no gunicorn")
    def test_settings(self):
        ours = json.loads(fresh(COMPARED))
        site = os.environ["GUNICORN_SITE"]
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {site!r})\n" + COMPARED]
        theirs = json.loads(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout)
        self.assertEqual(ours, theirs)


if __name__ == "__main__":
    unittest.main()
