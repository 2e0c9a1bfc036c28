"""The settings as Python code sees them: `cfg`, and the classes that gunicorn's settings are.

The table comes from the server (`_monoceros.settings()`), so there is one list of settings. `Bridge` fills a `Config`
with what is in force; programs that embed the server fill theirs themselves. It must not read files or flags by
itself: `app.base` does.
"""

import copy
import os
import sys

import _monoceros
from gunicorn import _hooks, _validators, util
from gunicorn.errors import ConfigError  # noqa: F401 - code outside imports it from here

KNOWN_SETTINGS = []
PLATFORM = sys.platform
_DEFAULT_LOGGER = "gunicorn.glogging.Logger"
_ACTIONS = {"list": "append", "switch": "store_true", "switch off": "store_const"}
# For settings that code outside defines.
validate_bool = _validators.boolean
validate_class = _validators.class_or_name
validate_dict = _validators.dictionary
validate_group = _validators.group
validate_list_string = _validators.text_list
validate_pos_int = _validators.positive_int
validate_string = _validators.text
validate_string_to_addr_list = _validators.network_list
validate_string_to_list = _validators.comma_list
validate_user = _validators.user
_TLS = ("keyfile", "certfile", "ssl_version", "cert_reqs", "ca_certs", "suppress_ragged_eofs",
        "do_handshake_on_connect", "ciphers")


# gunicorn's defaults of settings that this server does not have: hooks and worker classes calculate with them.
_GUNICORNS_DEFAULTS = {
    # ssl.PROTOCOL_TLS.
    "ssl_version": 2,
    "http_protocols": ["h1"],
    "http2_cleartext": "off",
    "http2_max_concurrent_streams": 100,
    "http2_initial_window_size": 65535,
    "http2_max_frame_size": 16384,
    "http2_max_header_list_size": 65536,
    "asgi_loop": "auto",
    "asgi_lifespan": "auto",
    "asgi_disconnect_grace_period": 3,
    "websocket_max_message_size": 16777216,
    "http_parser": "auto",
    "root_path": "",
}

# How long idle connections are kept while nobody sets `keepalive`, in seconds: under sync, and under other classes. The
# server has the same numbers in worker/connection_limits.rs.
KEEPALIVE_OF_SYNC = 650
KEEPALIVE = 2

# The settings that are in force, and who is told when Python code sets one of them.
_watched = _note_set = None


def watch(cfg, note_set):
    """From now on `note_set` is called with the name of each setting that is set in `cfg`."""
    global _watched, _note_set
    _watched, _note_set = cfg, note_set


class Config:
    """The settings of one server. Read them as attributes, write them with `set`."""

    def __init__(self, usage=None, prog=None):
        self.settings = make_settings()
        self.usage = usage
        self.prog = prog or os.path.basename((getattr(sys, "argv", None) or [""])[0])
        self.env_orig = os.environ.copy()

    def __str__(self):
        width = max(map(len, self.settings))
        return "\n".join(f"{name:{width}} = {_shown(self.settings[name].value)}" for name in sorted(self.settings))

    def __getattr__(self, name):
        # `settings` itself is missing while a copy is being made.
        settings = self.__dict__.get("settings", {})
        if name not in settings:
            raise AttributeError(f"No configuration setting for: {name}")
        return settings[name].get()

    def __setattr__(self, name, value):
        if name != "settings" and name in self.__dict__.get("settings", {}):
            raise AttributeError(f"Invalid access! Set {name!r} with cfg.set({name!r}, ...)")
        super().__setattr__(name, value)

    def set(self, name, value):
        """Sets a setting; AttributeError if there is none, TypeError or ValueError if it does not take the value."""
        if name not in self.settings:
            raise AttributeError(f"No configuration setting for: {name}")
        self.settings[name].set(value)
        if self is _watched:
            _note_set(name)

    def given(self):
        """The settings that Python code has set, by name and as given: those of an embedding program."""
        return {name: setting.given for name, setting in self.settings.items() if "given" in vars(setting)}

    def get_cmd_args_from_env(self):
        """The arguments in GUNICORN_CMD_ARGS, as they were when this object was made."""
        arguments = self.env_orig.get("GUNICORN_CMD_ARGS")
        if not arguments:
            return []
        import shlex

        return shlex.split(arguments)

    def parser(self):
        """An argparse parser with the flags of every setting, for programs that take them too."""
        import argparse

        parser = argparse.ArgumentParser(usage=self.usage, prog=self.prog)
        version = f"%(prog)s (version {_monoceros.VERSION})"
        parser.add_argument("-v", "--version", action="version", default=argparse.SUPPRESS, version=version)
        parser.add_argument("args", nargs="*", help=argparse.SUPPRESS)
        for setting in sorted(self.settings.values(), key=lambda setting: setting.order):
            setting.add_option(parser)
        return parser

    # What is computed from settings, under the names that gunicorn gives it.

    @property
    def worker_class_str(self):
        name = self.settings["worker_class"].get()
        if not isinstance(name, str):
            return name.__name__
        return "gthread" if _is_sync(name) and self.threads > 1 else name

    @property
    def worker_class(self):
        named = self.settings["worker_class"].get()
        return util.load_worker_class(self.worker_class_str) if isinstance(named, str) else named

    @property
    def keepalive(self):
        """The number that counts. The setting itself is None while nobody has given one."""
        given = self.settings["keepalive"].get()
        if given is not None:
            return given
        return KEEPALIVE_OF_SYNC if _is_sync(self.worker_class_str) else KEEPALIVE

    @property
    def address(self):
        return [util.parse_address(address) for address in self.bind]

    @property
    def uid(self):
        return self.settings["user"].get()

    @property
    def gid(self):
        return self.settings["group"].get()

    @property
    def proc_name(self):
        return self.settings["proc_name"].get() or self.settings["default_proc_name"].get()

    @property
    def logger_class(self):
        chosen = self.settings["logger_class"].get()
        if self.has_default_logger:
            statsd = self.settings["statsd_host"].get() is not None
            chosen = "gunicorn.instrument.statsd.Statsd" if statsd else _DEFAULT_LOGGER
        logger_class = util.load_class(chosen, default=_DEFAULT_LOGGER, section="gunicorn.loggers")
        # A class may prepare itself before there is a logger.
        if hasattr(logger_class, "install"):
            logger_class.install()
        return logger_class

    @property
    def has_default_logger(self):
        """Whether no logger class was chosen."""
        chosen = self.settings["logger_class"].get()
        # The class itself can only have been given if its module is loaded.
        module = sys.modules.get("gunicorn.glogging")
        return chosen in (_DEFAULT_LOGGER, "simple", None) or (module is not None and chosen is module.Logger)

    @property
    def is_ssl(self):
        return bool(self.certfile or self.keyfile)

    @property
    def ssl_version(self):
        given = self.settings["ssl_version"].get()
        if given != _GUNICORNS_DEFAULTS["ssl_version"]:
            return given
        # Not at the top: it loads OpenSSL.
        import ssl

        return ssl.PROTOCOL_TLS

    @property
    def ssl_options(self):
        return {name: getattr(self, name) for name in _TLS if name in self.settings}

    @property
    def env(self):
        return dict(_assignment(pair) for pair in self.raw_env)

    @property
    def sendfile(self):
        chosen = self.settings["sendfile"].get()
        if chosen is None:
            return os.environ.get("SENDFILE", "true").lower() in ("y", "1", "yes", "true")
        return chosen

    @property
    def reuse_port(self):
        return self.settings["reuse_port"].get()

    @property
    def paste_global_conf(self):
        pairs = self.settings["raw_paste_global_conf"].get() or []
        # An escaped "=" belongs to the name.
        escaped = (_assignment(pair.replace("\\=", "\0")) for pair in pairs)
        return {name.replace("\0", "="): value.replace("\0", "=") for name, value in escaped}


def _is_sync(name):
    return name == "sync" or name.endswith("SyncWorker")


def _assignment(pair):
    name, equals, value = pair.partition("=")
    if not equals:
        raise RuntimeError(f"environment setting {pair!r} invalid")
    return name, value


def _shown(value):
    """A value as --print-config shows it."""
    return f"<{value.__qualname__}()>" if callable(value) and hasattr(value, "__qualname__") else value


class Setting:
    """One setting, with its value in one `Config`. A subclass with a `name` is a setting from then on."""

    name = None
    value = None
    section = None
    cli = None
    validator = None
    form = None
    type = None
    meta = None
    action = None
    default = None
    short = None
    desc = ""
    nargs = None
    const = None
    order = 0

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        # A subclass of a setting inherits its name and does not take its place.
        if "name" not in vars(cls):
            return
        cls.order = len(KNOWN_SETTINGS)
        if cls.short is None:
            cls.short = cls.desc.strip().partition("\n")[0]
        # Functions are values of the setting, not methods.
        for attribute in ("validator", "default", "form", "type"):
            if callable(vars(cls).get(attribute)):
                setattr(cls, attribute, staticmethod(vars(cls)[attribute]))
        KNOWN_SETTINGS.append(cls)

    def __init__(self):
        # None has a form too: for `user`, the process's own.
        if self.form is not None:
            self.adopt(copy.copy(self.default))
        elif self.default is not None:
            self.value = self.validator(copy.copy(self.default))

    def __repr__(self):
        return f"<{type(self).__module__}.{type(self).__qualname__} object at {id(self):x} with value {self.value!r}>"

    def __lt__(self, other):
        return self.section == other.section and self.order < other.order

    def get(self):
        return self.value

    def set(self, val):
        """Takes a value of the setting's kind; TypeError, ValueError or ConfigError otherwise."""
        if not callable(self.validator):
            raise TypeError(f"Invalid validator: {self.validator} for {self.name}")
        # An iterator gives its items only once.
        if hasattr(val, "__next__"):
            val = list(val)
        self.value = self.validator(val)
        self.given = val

    def adopt(self, val):
        """Takes a value that the server has accepted: it is not checked again, only converted to gunicorn's form."""
        self.value = self.form(val) if self.form is not None else self.validator(val)

    def copy(self):
        return copy.copy(self)

    def add_option(self, parser):
        """Adds the setting's flags to an argparse parser, under the setting's name and without a default."""
        if not self.cli:
            return
        options = {"dest": self.name, "default": None, "action": self.action or "store", "help": self._help()}
        if options["action"] in ("store", "append"):
            options["type"] = self.type or str
            options["metavar"] = self.meta or None
        if self.nargs is not None:
            options["nargs"] = self.nargs
        if self.const is not None:
            options["const"] = self.const
        parser.add_argument(*self.cli, **options)

    def _help(self):
        # argparse expands % in help texts.
        return f"{self.short} [{self.default}]".replace("%", "%%")


def make_settings(ignore=None):
    """A fresh object for every known setting, by name."""
    ignore = ignore or ()
    return {known.name: known() for known in KNOWN_SETTINGS if known not in ignore}


def auto_int(_, x):
    """Text as a number, where a leading zero means octal."""
    return _validators.mode(x)


def get_default_config_file():
    """The config file that is read when none is named, if it exists."""
    path = os.path.join(os.path.abspath(os.getcwd()), "gunicorn.conf.py")
    return path if os.path.exists(path) else None


# The classes, one for each row of the server's table, under gunicorn's names.

# Those that are not their setting's name in capitalized words.
_CLASS_NAMES = {
    "accesslog": "AccessLog", "ca_certs": "CACerts", "casefold_http_method": "CasefoldHTTPMethod",
    "certfile": "CertFile", "check_config": "ConfigCheck", "config": "ConfigFile",
    "enable_backlog_metric": "BacklogMetric", "errorlog": "ErrorLog", "forwarded_allow_ips": "ForwardedAllowIPS",
    "http_protocols": "HTTPProtocols",
    "keyfile": "KeyFile", "logconfig": "LogConfig", "logconfig_dict": "LogConfigDict",
    "logconfig_json": "LogConfigJson", "nworkers_changed": "NumWorkersChanged",
    "permit_unconventional_http_method": "PermitUnconventionalHTTPMethod",
    "permit_unconventional_http_version": "PermitUnconventionalHTTPVersion", "post_fork": "Postfork",
    "pre_fork": "Prefork", "proc_name": "Procname", "proxy_allow_ips": "ProxyAllowFrom", "pythonpath": "PythonPath",
    "raw_env": "Env", "raw_paste_global_conf": "PasteGlobalConf", "secure_scheme_headers": "SecureSchemeHeader",
    "ssl_context": "NewSSLContext", "ssl_version": "SSLVersion", "suppress_ragged_eofs": "SuppressRaggedEOFs",
    "syslog_addr": "SyslogTo", "threads": "WorkerThreads", "uwsgi_allow_ips": "UWSGIAllowFrom",
    "websocket_max_message_size": "WebSocketMaxMessageSize", "wsgi_app": "WSGIApp",
}
_ACRONYMS = frozenset({"asgi", "http2"})


def _capitalized(word):
    return word.upper() if word in _ACRONYMS else word.capitalize()


def _define(row):
    """Makes the class of one row of the server's table."""
    name, kind = row["name"], row["kind"]
    attributes = {
        "__module__": __name__,
        "__doc__": row["doc"],
        "name": name,
        "section": row["section"],
        "cli": list(row["flags"]) or None,
        "meta": row["meta"] or None,
        "validator": _validators.of(name, kind),
        "form": _validators.form_of(name, kind),
        "type": {"int": int, "mode": _validators.mode}.get(kind),
        "action": _ACTIONS.get(kind),
        "const": {"switch off": False, "optional text": "auto"}.get(kind),
        "nargs": "?" if kind == "optional text" else None,
        "default": _hooks.default(name) if kind == "hook" else _GUNICORNS_DEFAULTS.get(name, row["default"]),
        "desc": row["doc"],
    }
    class_name = _CLASS_NAMES.get(name) or "".join(map(_capitalized, name.split("_")))
    return class_name, type(class_name, (Setting,), attributes)


for _row in _monoceros.settings():
    _name, _class = _define(_row)
    globals()[_name] = _class
