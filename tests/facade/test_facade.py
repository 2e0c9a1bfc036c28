"""Tests the facade by itself, without the server: `python tests/facade/test_facade.py` runs all that is in this folder.

Where GUNICORN_SITE names a directory that the real gunicorn is installed in, it is asked too.
"""

import unittest

import _monoceros
from support import HERE, PYTHON, FacadeTest, fresh

import gunicorn


class Imports(FacadeTest):
    def test_the_package_alone_is_tiny(self):
        code = "import _monoceros; before = set(sys.modules); import gunicorn; print(*set(sys.modules) - before)"
        self.assertEqual(fresh(code).split(), ["gunicorn"])

    def test_settings_need_neither_logging_nor_sockets(self):
        code = "import gunicorn.config; gunicorn.config.Config(); print(*sys.modules)"
        loaded = set(fresh(code).split())
        costly = {"argparse", "email", "importlib.metadata", "inspect", "ipaddress", "logging", "socket", "ssl"}
        self.assertEqual(loaded & costly, set())

    def test_hooks_need_no_sockets(self):
        loaded = set(fresh("import gunicorn._bridge; print(*sys.modules)").split())
        # Since CPython 3.14 it imports inspect.
        loaded -= set(fresh("import traceback; print(*sys.modules)").split())
        costly = {"argparse", "email", "inspect", "logging.config", "logging.handlers", "socket"}
        self.assertEqual(loaded & costly, set())

    def test_versions(self):
        self.assertEqual(gunicorn.version_info, (27, 0, 1))
        self.assertEqual(gunicorn.__version__, "27.0.1")
        self.assertEqual(gunicorn.SERVER, "monoceros")
        self.assertEqual(gunicorn.SERVER_SOFTWARE, _monoceros.SERVER_SOFTWARE)

    def test_parts_load_when_they_are_touched(self):
        code = "import gunicorn; print(gunicorn.http.wsgi.Response.__name__, gunicorn.glogging.Logger.__name__)"
        self.assertEqual(fresh(code).split(), ["Response", "Logger"])

    def test_what_is_missing_says_why(self):
        with self.assertRaisesRegex(AttributeError, "part of an installed gunicorn"):
            _ = gunicorn.dirty
        with self.assertRaisesRegex(AttributeError, "it is not one of base, ggevent, gthread"):
            _ = gunicorn.workers.gasgi

    def test_each_module_says_why_it_exists(self):
        for path in (PYTHON / "facade").rglob("*.py"):
            with self.subTest(path=path.name):
                compiled = compile(path.read_text(), str(path), "exec")
                self.assertIsInstance(compiled.co_consts[0], str)


if __name__ == "__main__":
    unittest.main(module=None, argv=["test_facade", "discover", "-s", str(HERE)])
