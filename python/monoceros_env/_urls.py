"""The URLs of services (RFC 3986): made of credentials in their many shapes, and taken apart for Django."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

# The spelling of a scheme that Python's libraries share. Ruby says mysql2.
SCHEMES = {
    "postgres": "postgresql",
    "pgsql": "postgresql",
    "mysql2": "mysql",
    "mariadb": "mysql",
    "sqlserver": "mssql",
}
# A kind of service, by a word in its type, label, tags or name.
KINDS = {
    "postgres": "postgresql",
    "pgsql": "postgresql",
    "elephantsql": "postgresql",
    "mysql": "mysql",
    "mariadb": "mysql",
    "cleardb": "mysql",
    "mongo": "mongodb",
    "redis": "redis",
    "valkey": "redis",
    "rabbit": "amqp",
    "amqp": "amqp",
}
PORTS = {"5432": "postgresql", "3306": "mysql", "27017": "mongodb", "6379": "redis", "5672": "amqp"}
# The names that providers give to a part of a URL.
PARTS = {
    "user": ("username", "user"),
    "password": ("password",),
    "host": ("hostname", "host"),
    "port": ("port",),
    "name": ("database", "dbname", "name"),
}
ENGINES = {
    "postgresql": "django.db.backends.postgresql",
    "mysql": "django.db.backends.mysql",
    "oracle": "django.db.backends.oracle",
    "sqlite": "django.db.backends.sqlite3",
}
# What of a query the database's own client understands. The rest is another language's: reconnect, useSSL.
OPTIONS = {
    "postgresql": {"sslmode", "sslrootcert", "sslcert", "sslkey", "connect_timeout", "application_name", "options",
                   "target_session_attrs", "channel_binding"},
    "mysql": {"charset", "unix_socket", "connect_timeout", "ssl_mode", "read_default_file"},
}  # fmt: skip


def form_of_url(password: str, name: str) -> re.Pattern[str]:
    login = rf"(?:(?P<user>[^:@/?#]*)(?::(?P<password>{password}))?@)?"
    place = rf"(?P<host>\[[^\]]*\]|[^:/?#@]*)(?::(?P<port>[0-9]*))?(?:/(?P<name>{name}))?(?:\?(?P<query>[^#]*))?"
    return re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{login}{place}", re.IGNORECASE)


# As the standard has it, but without an @ in the name; and as it comes from providers that do not quote the password.
STRICT, LAX = form_of_url("[^@/?#]*", "[^?#@]*"), form_of_url(".*", "[^?#]*")


@dataclass(frozen=True)
class Location:
    """The parts of a URL, unquoted. In no representation, since one of them is the password."""

    scheme: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    host: str = ""
    port: str = ""
    name: str = ""
    query: str = field(default="", repr=False)
    # Where it has a form of its own (several hosts): as it came.
    whole: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str) -> "Location":
        """Takes a URL apart, also one whose password is not quoted."""
        found = STRICT.fullmatch(url) or LAX.fullmatch(url)
        scheme = url.partition("://")[0].lower()
        scheme = SCHEMES.get(scheme, scheme)
        if not found:
            rest = url.partition("://")[2]
            return cls(scheme, whole=f"{scheme}://{rest}" if rest else "")
        parts = {name: unquote(found[name] or "") for name in PARTS}
        parts["host"] = parts["host"].removeprefix("[").removesuffix("]")
        return cls(scheme, **parts, query=found["query"] or "")

    @classmethod
    def normal(cls, url: str) -> str:
        """A URL with the usual name of its scheme, and otherwise as it is."""
        scheme, separator, rest = url.partition("://")
        return SCHEMES.get(scheme.lower(), scheme) + separator + rest

    @classmethod
    def of_credentials(cls, credentials: Mapping[str, Any], kind: str) -> "Location":
        """From a URL, from single values, or from both: then the values are the login, since they need no quoting."""
        location = cls.parse(url_in(credentials))
        if location.whole:
            return location
        known = {"scheme": location.scheme or kind}
        for part, names in PARTS.items():
            value = next((credentials[name] for name in names if credentials.get(name) not in (None, "")), "")
            if value and (part in ("user", "password") or not getattr(location, part)):
                known[part] = str(value)
        return replace(location, **known)

    @property
    def url(self) -> str:
        """With every part quoted; empty if there is no scheme or no place."""
        if self.whole or not self.scheme or not (self.host or self.name):
            return self.whole
        login = quote(self.user, safe="")
        if self.password:
            login += ":" + quote(self.password, safe="")
        return f"{self.scheme}://{login}{'@' if login else ''}{self.place}{'?' if self.query else ''}{self.query}"

    @property
    def place(self) -> str:
        """Host, port and name: what may be shown."""
        host = f"[{self.host}]" if ":" in self.host else quote(self.host, safe="")
        port = f":{self.port}" if self.port else ""
        return f"{host}{port}/{quote(self.name, safe='/')}"


def url_in(credentials: Mapping[str, Any]) -> str:
    """The URL among the credentials. That of JDBC is another language's."""
    candidates = [credentials.get(name) for name in ("uri", "url", "connection_uri")]
    return next((one for one in candidates if isinstance(one, str) and re.match(r"[\w+.-]+://", one)), "")


def kind_of(credentials: Mapping[str, Any], hints: Sequence[str]) -> str:
    """What a service is: as its URL says, or a word in what is said of it, or the port it is at."""
    if url := url_in(credentials):
        scheme = Location.parse(url).scheme.partition("+")[0]
        if scheme not in ("http", "https", "tcp"):
            return scheme
    for hint in hints:
        for word, kind in KINDS.items():
            if word in hint.lower():
                return kind
    return PORTS.get(str(credentials.get("port", "")), "")


def django_settings(url: str) -> dict[str, object]:
    """An entry of Django's DATABASES. The path of SQLite has a slash more than the URL's: sqlite:////srv/db."""
    location = Location.parse(url)
    scheme = location.scheme.partition("+")[0]
    if scheme not in ENGINES:
        raise ValueError(f"Django has no database for URLs of the scheme {scheme!r}; it has {', '.join(ENGINES)}")
    if scheme == "sqlite":
        return {"ENGINE": ENGINES[scheme], "NAME": location.name or ":memory:"}
    known = OPTIONS.get(scheme, set())
    return {
        "ENGINE": ENGINES[scheme],
        "NAME": location.name,
        "USER": location.user,
        "PASSWORD": location.password,
        "HOST": location.host,
        "PORT": location.port,
        "OPTIONS": {name: value for name, value in parse_qsl(location.query) if name in known},
    }
