"""Does the same with the real gunicorn and here, where GUNICORN_SITE names a directory that it is installed in."""

import json
import os
import subprocess
import sys
import unittest

from support import FacadeTest, fresh

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
    ("protocol", "uwsgi"), ("protocol", " http "), ("uwsgi_allow_ips", "10.0.0.0/8, ::1"), ("uwsgi_allow_ips", "a"),
    ("reload_extra_files", "/not/here"), ("certfile", ""), ("loglevel", "X"), ("logger_class", 3),
    ("worker_class", "nope"), ("logger_class", "not.There"), ("worker_class", dict), ("timeout", 5.9),
    ("keepalive", []),
]
found = {f"{name}={given!r}": outcome(lambda: value(name, given)) for name, given in values}
for arity in range(6):
    hook = eval("lambda %s: 0" % ", ".join("abcdef"[:arity]))
    for name in ("on_exit", "pre_fork", "post_request", "nworkers_changed", "pre_request", "worker_int"):
        taken = outcome(lambda: callable(config.Config().set(name, hook)))
        found[f"{name} arity {arity}"] = taken
for text in ("127.0.0.1", "[::1]:80", "unix:/x", "unix://x", "fd://3", "tcp://a:9", "h:", ":80", "h:x", "A", "::1",
             "[::1]", ""):
    found[f"address {text}"] = outcome(lambda: util.parse_address(text))
for name in sorted(name for name in vars(errors) if isinstance(getattr(errors, name), type) and name[0] != "_"):
    if name in ("ParseException", "InvalidSchemeHeaders"):
        continue
    found[f"error {name}"] = outcome(lambda: str(getattr(errors, name)("x")))
for act in ("cfg.nope", "cfg.set('nope', 1)", "setattr(cfg, 'workers', 1)", "cfg.address", "cfg.uid",
            "cfg.is_ssl or None", "cfg.env", "cfg.sendfile", "cfg.paste_global_conf", "cfg.worker_class_str",
            "cfg.forwarded_allow_ips", "cfg.logger_class.__name__", "cfg.worker_class.__name__", "cfg.usage",
            "cfg.get_cmd_args_from_env()"):
    found[act] = outcome(lambda: eval(act, {"cfg": config.Config()}))
print(json.dumps(found))
"""


# Each logger writes the same; what stands in the files and comes out of the socket is compared, without times and pids.
LOGGED = r"""
import datetime, json, os, re, socket, sys, types
import gunicorn.config as config, gunicorn.glogging as glogging
from gunicorn.instrument.statsd import Statsd
folder = sys.argv[1]
agent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
agent.bind(("127.0.0.1", 0))
agent.settimeout(10)
environ = {
    "REMOTE_ADDR": "1.2.3.4", "REQUEST_METHOD": "GET", "RAW_URI": "/a?b", "SERVER_PROTOCOL": "HTTP/1.1",
    "PATH_INFO": "/a", "QUERY_STRING": "b", "HTTP_USER_AGENT": 'u"a', "HTTP_AUTHORIZATION": "Basic dTpw", "n": 5,
}
req = types.SimpleNamespace(headers=[("USER-AGENT", "x"), ("X-R", "r")])
durations = [datetime.timedelta(0), datetime.timedelta(microseconds=1), datetime.timedelta(days=1, seconds=3.25)]
responses = [
    types.SimpleNamespace(status="200 OK", sent=5, headers=[("X-A", "1"), ("X-a", "2")], response_length=5),
    types.SimpleNamespace(status="404", sent=0, headers=[], response_length=None),
    types.SimpleNamespace(status=500, sent=None, headers=[], response_length=None),
]
formats = [None, "%(h)s %(l)s %(u)s %(r)s %(s)s %(b)s %(B)s %(f)s %(a)s",
           "%(T)s %(D)s %(M)s %(L)s %(m)s %(U)s %(q)s %(H)s",
           "%({x-r}i)s %({X-R}i)s %({x-a}o)s %({request_method}e)s %({nope}i)s %(nope)s %({n}e)s"]
classes = {
    "plain": (glogging.Logger, {}),
    "statsd": (Statsd, {"statsd_host": "127.0.0.1:%d" % agent.getsockname()[1], "statsd_prefix": "shop",
                        "dogstatsd_tags": "a:b"}),
    "syslog": (glogging.Logger, {"syslog": True, "syslog_addr": "udp://127.0.0.1:%d" % agent.getsockname()[1],
                                 "proc_name": "a:b"}),
}
found = {}
for name, (kind, settings) in classes.items():
    cfg = config.Config()
    paths = {log: os.path.join(folder, f"{name}.{log}") for log in ("errorlog", "accesslog")}
    for setting, value in {**settings, **paths}.items():
        cfg.set(setting, value)
    log = kind(cfg)
    for level in ("critical", "error", "warning", "info", "debug"):
        getattr(log, level)("a %s %%", level)
        log.log(level, "by name")
    log.log("nope", "by no name")
    log.log(30, "by number")
    log.exception("without one")
    try:
        raise ValueError("why")
    except ValueError:
        log.error("with one", exc_info=True)
    for format in formats:
        if format:
            cfg.set("access_log_format", format)
        for resp in responses:
            for duration in durations:
                log.access(resp, req, environ, duration)
    for path in paths.values():
        text = open(path).read()
        text = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d|\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d", "TIME", text)
        found[os.path.basename(path)] = text.replace(str(os.getpid()), "PID").splitlines()
    if kind is Statsd:
        log.gauge("end", 0)
    else:
        agent.sendto(b"end", agent.getsockname())
    found[name] = datagrams = []
    while "end" not in (datagram := agent.recv(9999).decode()):
        datagram = re.sub(r"\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d", "TIME", datagram)
        datagrams.append(datagram.replace(str(os.getpid()), "PID"))
print(json.dumps(found))
"""


@unittest.skipUnless(os.environ.get("GUNICORN_SITE"), "GUNICORN_SITE names no gunicorn")
class BesideGunicorn(FacadeTest):
    maxDiff = None

    def compare(self, code):
        self.assertEqual(
            json.loads(fresh(code, self.folder_of("ours"))), json.loads(theirs(code, self.folder_of("theirs")))
        )

    def folder_of(self, whose):
        folder = self.folder / whose
        folder.mkdir()
        return str(folder)

    def test_settings(self):
        self.compare(COMPARED)

    def test_loggers(self):
        self.compare(LOGGED)

    def test_class_names(self):
        listing = "import json, gunicorn.config as c; print(json.dumps({s.name: s.__name__ for s in c.KNOWN_SETTINGS}))"
        real = json.loads(theirs(listing))
        ours = json.loads(fresh(listing))
        self.assertEqual(ours, {name: real.get(name, ours[name]) for name in ours})


def theirs(code, *arguments):
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {os.environ['GUNICORN_SITE']!r})\n{code}"]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise AssertionError(done.stderr)
    return done.stdout
