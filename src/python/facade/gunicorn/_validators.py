"""The validators of settings in Python: a function for each kind, and for each setting with a rule of its own.

The server has validators of its own, in Rust, for all that reaches it through files and flags. These are for values
that Python code sets (`cfg.set`), and give them the form in which gunicorn keeps them. A validator returns the value in
that form, or raises TypeError, ValueError or ConfigError.
"""

import os

from gunicorn import util
from gunicorn.errors import ConfigError

STATSD_PORT = 8125


# By kind

def text(value):
    """A str without space around it, or None."""
    if value is None:
        return None
    if not isinstance(value, str):
        raise TypeError(f"Not a string: {value}")
    return value.strip()


def positive_int(value):
    """An int, or text in the notation of Python's literals."""
    if isinstance(value, (str, bytes)):
        number = int(value, 0)
    elif isinstance(value, int):
        number = int(value)
    else:
        raise TypeError(f"Not a whole number: {value!r}")
    if number < 0:
        raise ValueError(f"Value must be positive: {value}")
    return number


def int_or_auto(value):
    """An int, or the word "auto"."""
    return "auto" if value == "auto" else positive_int(value)


def mode(value):
    """Mode bits: an int, or text in which a leading zero means octal."""
    if isinstance(value, str) and value.strip().isdigit() and value.strip().startswith("0"):
        return int(value, 8)
    return positive_int(value)


def boolean(value):
    """A bool, "true", "false" in any case, or None."""
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise TypeError(f"Invalid type for casting: {value}")
    known = {"true": True, "false": False}
    try:
        return known[value.strip().lower()]
    except KeyError:
        raise ValueError(f"Invalid boolean: {value}") from None


def text_list(value):
    """A list of str; one str is a list of itself, and is not split at commas."""
    if not value:
        return []
    return [text(item) for item in ([value] if isinstance(value, str) else value)]


def comma_list(value):
    """A list of str, or its items in one str with commas."""
    if not value:
        return []
    items = value.split(",") if isinstance(value, str) else value
    return [item for item in map(text, items) if item]


def dictionary(value):
    """A dict."""
    if not isinstance(value, dict):
        raise TypeError(f"Value is not a dictionary: {value} ")
    return value


def hook(name):
    """A callable for the hook `name`, or a dotted path to one."""
    from gunicorn import _hooks

    return lambda value: _hooks.resolve(name, value)


# By name

def class_or_name(value):
    """A class, a function that returns one, or a name for `util.load_class`."""
    if callable(value) and not isinstance(value, type):
        value = value()
    return value if isinstance(value, type) else text(value)


def name_of_class(value):
    """The name of what `class_or_name` takes."""
    chosen = class_or_name(value)
    return util.remember_class(chosen) if isinstance(chosen, type) else chosen


def network_list(value):
    """A comma list of addresses and networks, or of "*"."""
    import ipaddress

    networks = comma_list(value)
    for network in networks:
        if network != "*":
            ipaddress.ip_network(network)
    return networks


def user(value):
    """A uid, or the name of one; None is the process's own."""
    if value is None:
        return os.geteuid()
    import pwd

    return _id(value, "user", lambda name: pwd.getpwnam(name).pw_uid)


def group(value):
    """A gid, or the name of one; None is the process's own."""
    if value is None:
        return os.getegid()
    import grp

    return _id(value, "group", lambda name: grp.getgrnam(name).gr_gid)


def _id(value, what, find):
    if isinstance(value, int):
        return value
    if value.isdigit():
        return int(value)
    try:
        return find(value)
    except KeyError:
        raise ConfigError(f"No such {what}: {value!r}") from None


def directory(value):
    """An existing directory, as an absolute path."""
    path = os.path.abspath(os.path.normpath(os.path.join(util.getcwd(), text(value))))
    if not os.path.exists(path):
        raise ConfigError(f"can't chdir to {value!r}")
    return path


def statsd_address(value):
    """`HOST:PORT`, `HOST`, `unix:PATH` or `unix://PATH`, as (host, port) or the path."""
    address = value if value is None or isinstance(value, tuple) else text(value)
    if not isinstance(address, str):
        return address
    # Before a port "unix" is the name of a host.
    if address.startswith("unix:") and not address.removeprefix("unix:").isdecimal():
        return util.parse_address(address)
    try:
        return util.parse_address(f"tcp://{address}", default_port=str(STATSD_PORT))
    except RuntimeError:
        raise TypeError("Value must be one of ('host:port', 'unix://PATH')") from None


def one_of(name, *words):
    """One of `words`, in any case."""
    def validator(value):
        word = text(value)
        word = word if word is None else word.lower()
        if word not in words:
            raise ValueError(f"{name} must be one of {', '.join(words)}: {value}")
        return word

    return validator


def proxy_protocol(value):
    """One of the modes; a bool, and the words that stand for one, mean auto and off."""
    if value is None or isinstance(value, bool):
        return "auto" if value else "off"
    word = {"true": "auto", "1": "auto", "false": "off", "0": "off", "none": "off", "": "off"}.get(
        text(value).lower(), value
    )
    return one_of("proxy_protocol", "off", "v1", "v2", "auto")(word)


def existing_files(value):
    """A list of paths and patterns; a path must exist."""
    files = text_list(value)
    for file in files:
        if not util.is_glob_pattern(file) and not os.path.exists(file):
            raise ValueError(f"File {file} does not exist.")
    return files


BY_KIND = {
    "text": text,
    "int": positive_int,
    "int or auto": int_or_auto,
    "mode": mode,
    "list": text_list,
    "comma list": comma_list,
    "switch": boolean,
    "switch off": boolean,
    "optional text": text,
    "map": dictionary,
}
BY_NAME = {
    "chdir": directory,
    "forwarded_allow_ips": network_list,
    "group": group,
    "header_map": one_of("header_map", "drop", "refuse", "dangerous"),
    "logger_class": class_or_name,
    "protocol": one_of("protocol", "http", "uwsgi"),
    "proxy_allow_ips": network_list,
    "proxy_protocol": proxy_protocol,
    "reload_engine": one_of("reload_engine", "auto", "poll", "inotify"),
    "reload_extra_files": existing_files,
    "statsd_host": statsd_address,
    "user": user,
    "uwsgi_allow_ips": network_list,
    "worker_class": class_or_name,
}


def of(name, kind):
    """The validator of a setting; for a kind that only the server knows, one that accepts every value."""
    if kind == "hook":
        return hook(name)
    return BY_NAME.get(name) or BY_KIND.get(kind) or (lambda value: value)


def form_of(name, kind):
    """The function that converts a value which the server has accepted to gunicorn's form."""
    if name in ("chdir", "group", "statsd_host", "user"):
        return BY_NAME[name]
    return {"comma list": comma_list, "list": text_list}.get(kind, lambda value: value)
