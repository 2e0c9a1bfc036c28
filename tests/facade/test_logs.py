"""Tests the loggers: whose files they write, in what form, and what cannot be used."""

import json
import logging
import os
import socket
from unittest import mock

import _monoceros
from support import DURATION, ENVIRON, REQUEST, RESPONSE, FacadeTest, configured

from gunicorn import _bridge, _native, glogging


class Logs(FacadeTest):
    def files(self, **settings):
        paths = {"errorlog": str(self.folder / "error"), "accesslog": str(self.folder / "access")}
        return configured(**{**paths, **settings})

    def text(self, name):
        return (self.folder / name).read_text()

    def test_native(self):
        with mock.patch.object(_monoceros, "level", logging.WARNING):
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

    def test_making_a_logger_changes_nothing(self):
        self.bridge()
        _monoceros.seen.clear()
        # As at a reload.
        self.bridge()
        self.assertEqual(set(_monoceros.seen), {(True, 20)})

    def test_native_with_a_formatter(self):
        bridge = self.bridge()
        handler, = bridge.log.error_log.handlers
        handler.setFormatter(logging.Formatter("<%(levelname)s %(message)s>"))
        logging.getLogger("gunicorn.error").info("hi")
        self.assertEqual((_monoceros.raw, _monoceros.records), (["<INFO hi>\n"], []))
        # A reload begins with the handler that the config file has not touched yet.
        self.bridge().log.info("again")
        self.assertEqual(_monoceros.records, [(20, "again")])

    def test_native_handlers_have_a_formatter_to_be_copied(self):
        with mock.patch.object(_monoceros, "access_log", lambda: ("-", False, None)):
            self.make_loggers()
        error, access = map(logging.getLogger, ("gunicorn.error", "gunicorn.access"))
        # It gives handlers without a formatter its own.
        logging.basicConfig(handlers=[*error.handlers, *access.handlers])
        error.info("hi")
        self.assertEqual((_monoceros.raw, _monoceros.records, _monoceros.seen[-1]), ([], [(20, "hi")], (True, 20)))
        record = logging.makeLogRecord({"msg": "hi", "levelname": "INFO"})
        line = error.handlers[0].formatter.format(record)
        self.assertRegex(line, r"^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}\] \[\d+\] \[INFO\] hi$")
        self.assertEqual(access.handlers[0].formatter.format(record), "hi")
        self.unmake_loggers()

    def test_what_a_class_has_added_goes_with_its_logger(self):
        shared = logging.FileHandler(self.folder / "shared")

        class Own(glogging.Logger):
            def __init__(self, cfg):
                super().__init__(cfg)
                self.error_log.addHandler(shared)
                self.fresh = logging.FileHandler(self.cfg.accesslog)
                self.access_log.addHandler(self.fresh)
                if self.cfg.proc_name == "bad":
                    raise RuntimeError("bad")

        files = {name: str(self.folder / name) for name in ("errorlog", "accesslog")}
        objects = {"logger_class": Own, **files}
        first = self.bridge(objects=objects)
        with self.assertRaises(RuntimeError):
            self.bridge(objects={**objects, "proc_name": "bad"})
        log = self.bridge(objects=objects).log
        self.assertEqual((log.error_log.handlers.count(shared), len(log.error_log.handlers)), (1, 2))
        self.assertEqual((log.access_log.handlers[1:], len(log.access_log.handlers)), ([log.fresh], 2))
        # A stream of None is that of a closed file.
        self.assertIsNone(first.log.fresh.stream)
        self.assertIsNotNone(shared.stream)
        self.assertEqual(len(self.bridge().log.error_log.handlers), 1)
        self.assertIsNone(shared.stream)

    def test_what_a_class_adds_the_first_time_only_stays(self):
        added = []

        class Once(glogging.Logger):
            def __init__(self, cfg):
                super().__init__(cfg)
                if not added:
                    added.append(logging.NullHandler())
                    self.error_log.addHandler(added[0])

        objects = {"logger_class": Once, "errorlog": str(self.folder / "error")}
        for _ in range(3):
            log = self.bridge(objects=objects).log
            self.assertEqual((log.error_log.handlers[1:], len(log.error_log.handlers)), (added, 2))

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
        expected = {"m": "GET", "U": "/a", "q": "b", "H": "HTTP/1.1", "b": "5", "B": 5, "s": "200", "T": 1,
                    "D": 1002345, "M": 1002, "L": "1.002345", "p": f"<{os.getpid()}>", "{User-Agent}i": 'u\\"a',
                    "{X-a}o": "1", "{remote_addr}e": "1.2.3.4", "nope": "-", "{nope}i": "-"}
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
        bridge.access_line('1.2.3.4 - - "GET /%41" 400', "\x1f".join(("1.2.3.4", *"-" * 6, "400", *"-" * 4)))
        self.assertEqual(self.text("error"), "WARNING|100% mine\n")
        self.assertEqual(self.text("access"), 'own 200\n1.2.3.4 - - "GET /%41" 400\n')

    def test_the_loggers_tell_when_they_are_no_longer_as_they_were_made(self):
        error, access = map(logging.getLogger, ("gunicorn.error", "gunicorn.access"))
        own = logging.NullHandler()
        changes = [
            lambda: access.addFilter(lambda record: True),
            lambda: error.addHandler(own),
            lambda: error.handlers.append(own),
            # When it is called: the list is another by then.
            lambda: error.handlers.clear(),  # noqa: PLW0108
            lambda: setattr(access, "handlers", [own]),
            lambda: setattr(access, "propagate", True),
            lambda: setattr(access, "disabled", True),
            lambda: access.setLevel("ERROR"),
            lambda: error.handlers[0].setLevel("ERROR"),
            lambda: error.handlers[0].setFormatter(logging.Formatter()),
            lambda: error.handlers[0].addFilter(lambda record: True),
            lambda: setattr(error, "info", print),
            lambda: logging.disable("INFO"),
        ]
        for number, change in enumerate(changes):
            self.make_loggers()
            self.assertEqual(_monoceros.seen[-1], (True, 20), number)
            change()
            self.assertEqual(_monoceros.seen[-1], (False, 20), number)
            self.unmake_loggers()
        self.make_loggers()
        error.setLevel("DEBUG")
        self.assertEqual(_monoceros.seen[-1], (False, 10))
        self.unmake_loggers()

    def test_what_changes_nothing_is_no_change(self):
        self.make_loggers()
        error = logging.getLogger("gunicorn.error")
        error.setLevel(error.level)
        error.disabled = error.propagate = False
        error.handlers.append(logging.NullHandler())
        error.handlers.pop()
        logging.getLogger("gunicorn")
        self.assertEqual(_monoceros.seen[-1], (True, 20))
        self.unmake_loggers()

    def make_loggers(self):
        _native.set_up_loggers()

    def unmake_loggers(self):
        _native._made = None
        logging.disable(logging.NOTSET)
        for logger in map(logging.getLogger, ("gunicorn.error", "gunicorn.access")):
            logger.handlers, logger.filters, logger.disabled = [], [], False
            vars(logger).pop("info", None)

    def test_atoms_hold_nothing_that_ends_a_field_or_a_line(self):
        atoms = glogging.SafeAtoms({"a": 'a"\\\n\x1b\x9b\u2028\u202e\xe9', "B": 5})
        self.assertEqual(atoms["a"], '\\"'.join(["a", "\\\\\\x0a\\x1b\\x9b\\u2028\\u202e\xe9"]))
        self.assertEqual((atoms["B"], atoms["none"]), (5, "-"))

    def test_a_logger_that_fails_stops_nothing(self):
        class Own(glogging.Logger):
            def access(self, resp, req, environ, request_time):
                raise KeyError("x")

            def error(self, msg, *args, **kwargs):
                raise KeyError("y")

        bridge = self.bridge(objects={"logger_class": Own, "errorlog": str(self.folder / "error")})
        bridge.access(RESPONSE, REQUEST, ENVIRON, 1.0)
        level, text = _monoceros.records[-1]
        self.assertEqual(level, 40)
        self.assertIn("Exception in the logger's access()", text)
        self.assertIn("KeyError: 'x'", text)

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
            address = f"udp://127.0.0.1:{server.getsockname()[1]}"
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
