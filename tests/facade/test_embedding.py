"""Tests the classes that programs subclass in order to run the server."""

import os
import sys
import types
from unittest import mock

import _monoceros
from support import FacadeTest

from gunicorn import config
from gunicorn.app.base import BaseApplication
from gunicorn.app.wsgiapp import WSGIApplication
from gunicorn.arbiter import Arbiter


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
        self.assertEqual(app.cfg.given(), {"bind": "127.0.0.1:0", "workers": 2})
        with self.assertRaisesRegex(RuntimeError, r"Standalone\.run\(\) cannot start a server inside the server"):
            app.run()
        ran = []
        with mock.patch.object(_monoceros, "run_application", ran.append, create=True):
            app.run()
            Arbiter(app).run()
        self.assertEqual(ran, [app, app])

    def test_an_application_that_makes_its_arbiter_itself(self):
        class Own(BaseApplication):
            def load_config(self):
                pass

            def run(self, queue):
                self.arbiter = Arbiter(self)
                queue.append(self.arbiter.log)
                self.arbiter.run()

        app, ran, queue = Own(), [], []
        with mock.patch.object(_monoceros, "run_application", ran.append, create=True):
            app.run(queue)
        self.assertEqual((ran, len(queue)), ([app], 1))
        self.assertIsNotNone(queue[0])

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

    def test_an_empty_name_of_a_config_file_is_none(self):
        (self.folder / "gunicorn.conf.py").write_text("workers = 2\n")
        (self.folder / "other.py").write_text("workers = 3\n")
        self.addCleanup(os.chdir, os.getcwd())
        self.addCleanup(sys.modules.pop, "__config__", None)
        os.chdir(self.folder)
        for environment, workers in (("", 2), ("-c ''", 2), ("-c other.py", 3)):
            with self.subTest(environment=environment), mock.patch.dict(os.environ, GUNICORN_CMD_ARGS=environment), \
                    mock.patch.object(sys, "argv", ["prog", "os:getcwd", "-c", ""]), \
                    mock.patch.object(sys, "path", list(sys.path)):
                self.assertEqual(WSGIApplication().cfg.workers, workers)

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
