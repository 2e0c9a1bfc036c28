"""Tests settings and helpers as Python code sees them."""

import logging
import os
from unittest import mock

from support import FacadeTest, configured

from gunicorn import config, errors, glogging, util
from gunicorn.arbiter import Arbiter
from gunicorn.instrument.statsd import Statsd


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

    def test_statsd_addresses(self):
        cases = {"unix:/run/agent": "/run/agent", "unix:///run/agent": "/run/agent", "unix:agent": "agent",
                 "unix:8126": ("unix", 8126), "unix": ("unix", 8125), "host": ("host", 8125), "[::1]:9": ("::1", 9)}
        for value, address in cases.items():
            with self.subTest(value=value):
                self.assertEqual(configured(statsd_host=value).statsd_host, address)

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

    def test_what_is_unset_has_a_value_of_gunicorns_kind(self):
        import ssl

        for settings, seconds in (
            ({}, 650), ({"worker_class": "gunicorn.workers.sync.SyncWorker"}, 650), ({"threads": 2}, 2),
            ({"worker_class": "gevent"}, 2), ({"keepalive": 0}, 0),
        ):
            self.assertEqual(configured(**settings).keepalive, seconds, settings)
        self.assertIsNone(config.Config().settings["keepalive"].get())
        cfg = config.Config()
        self.assertEqual((cfg.http_protocols, cfg.http2_max_frame_size, cfg.root_path), (["h1"], 16384, ""))
        self.assertIs(cfg.ssl_version, ssl.PROTOCOL_TLS)
        self.assertIs(cfg.ssl_options["ssl_version"], ssl.PROTOCOL_TLS)
        self.assertNotIn("http_protocols", cfg.given())

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
        line = "-w4 --no-sendfile -b a -b b --proxy-protocol --graceful 9 m:a"
        options = cfg.parser().parse_args(line.split())
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
