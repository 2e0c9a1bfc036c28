"""Tests what hooks are called with, and what comes of it."""

import logging
import os
import signal
import sys
import types
from unittest import mock

import _monoceros
from support import FacadeTest

import gunicorn
from gunicorn import _bridge, config, errors
from gunicorn.app.base import Application
from gunicorn.workers.base import Worker
from gunicorn.workers.sync import SyncWorker


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
        forked = (server, "<Worker [booting]>", os.getpid())
        self.assertEqual(seen, [(2, 2, None), forked, (1, 0, {4711: mock.ANY}), (4711, 1, {})])

    def test_the_class_that_hooks_see(self):
        for values, name in (
            ({}, "SyncWorker"), ({"threads": 2}, "ThreadWorker"), ({"worker_class": "gthread"}, "ThreadWorker"),
            ({"worker_class": "gevent"}, "GeventWorker"), ({"worker_class": "tornado"}, "Worker"),
            ({"worker_class": "some.SyncWorker", "threads": 2}, "Worker"),
        ):
            bridge = self.bridge(values)
            bridge.pre_fork(1)
            self.assertEqual(type(bridge._pending).__name__, name, values)
        bridge.enter_worker({"pid": 5, "ppid": 4, "age": 1})
        with mock.patch.object(SyncWorker, "__init__", lambda self, *arguments: self.fail()):
            bridge = self.bridge()
            bridge.pre_fork(1)
            self.assertIs(type(bridge._pending), Worker)

    def test_numbers_of_the_scoreboard(self):
        bridge = self.bridge({"worker_class": "gthread", "threads": 3})
        bridge.pre_fork(1)
        worker = bridge._pending
        self.assertEqual((worker.nr, worker.nr_conns, worker.tpool._max_workers), (0, 0, 3))
        numbers = types.SimpleNamespace(served=4, connections=2, running=1)
        bridge.enter_worker({"pid": 5, "ppid": 4, "age": 1, "numbers": numbers})
        self.assertEqual((worker.nr, worker.nr_conns, len(worker.futures)), (4, 2, 1))
        # Requests of which no Python code is told are counted by the scoreboard alone.
        bridge.request(path="/")
        self.assertEqual(worker.nr, 5)

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
        woken = []
        before = signal.signal(signal.SIGCHLD, lambda number, frame: woken.append(number))
        self.addCleanup(signal.signal, signal.SIGCHLD, before)
        server.num_workers = 3
        self.assertEqual((server.num_workers, _monoceros.wanted, len(woken)), (3, [3], 1))
        # In a worker it stays there.
        server.pid += 1
        server.num_workers = 4
        server.pid -= 1
        self.assertEqual((_monoceros.wanted, len(woken)), ([3], 1))
        for count in (-1, "2", None):
            with self.assertRaisesRegex(TypeError, "num_workers is a number of workers"):
                server.num_workers = count
        with self.assertRaisesRegex(RuntimeError, "the master of monoceros is not written in Python"):
            server.spawn_worker()
        received = []
        before = signal.signal(signal.SIGHUP, lambda number, frame: received.append(number))
        self.addCleanup(signal.signal, signal.SIGHUP, before)
        server.reload()
        self.assertEqual(received, [signal.SIGHUP])

    def test_worker_classes_say_what_they_cannot_do(self):
        class Own(Worker):
            def handle(self, *arguments):
                super().handle(*arguments)

        worker = Own(1, 2, [], None, 15, config.Config(), None)
        with self.assertRaisesRegex(RuntimeError, "Own.handle cannot run: monoceros does not read requests"):
            worker.handle()
        with self.assertRaisesRegex(NotImplementedError, "Own.run.. is for the class to write"):
            worker.run()

    def test_server_header(self):
        from gunicorn.http.wsgi import Response, server_header

        self.assertEqual(server_header(None), "monoceros")
        with mock.patch.object(gunicorn, "SERVER", "shop"):
            self.assertEqual(server_header(None), "shop")
        original = Response.default_headers
        without = lambda self: [line for line in original(self) if not line.startswith("Server: ")]  # noqa: E731
        with mock.patch.object(Response, "default_headers", without):
            self.assertIsNone(server_header(None))
