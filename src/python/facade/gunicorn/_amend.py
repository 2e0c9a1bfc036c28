"""Applies the changes of `pre_request` to a request's environ.

gunicorn makes the environ from the request after the hook has run. This server makes it from the bytes that came in, so
only the differences are carried over. It must not know hooks.
"""

import os
from urllib.parse import unquote_to_bytes

from gunicorn.http.errors import ConfigurationProblem

# Attributes of a request, and the keys that show them as they are.
_PLAIN = {"method": "REQUEST_METHOD", "uri": "RAW_URI", "query": "QUERY_STRING", "scheme": "wsgi.url_scheme"}


def remember(req):
    """Notes the request's state before hooks can change it."""
    req._as_sent = {name: getattr(req, name) for name in (*_PLAIN, "path", "version", "body")}
    req._headers_as_sent = list(req.headers)
    return req


def amend(req, environ):
    """Applies changes of the request to `environ`."""
    for name, key in _PLAIN.items():
        if getattr(req, name) != req._as_sent[name]:
            environ[key] = getattr(req, name)
    if req.version != req._as_sent["version"]:
        environ["SERVER_PROTOCOL"] = "HTTP/" + ".".join(map(str, req.version))
    if req.body is not req._as_sent["body"]:
        environ["wsgi.input"] = req.body
    if req.path != req._as_sent["path"]:
        # PEP 3333: the bytes of the path, as latin-1.
        below = req.path.removeprefix(environ["SCRIPT_NAME"])
        environ["PATH_INFO"] = unquote_to_bytes(below).decode("latin-1")
    if (name := _script_name(req.headers)) != _script_name(req._headers_as_sent):
        if not req.path.startswith(name):
            raise ConfigurationProblem(f"Request path {req.path!r} does not start with SCRIPT_NAME {name!r}")
        environ["SCRIPT_NAME"] = name
        environ["PATH_INFO"] = unquote_to_bytes(req.path[len(name):]).decode("latin-1")
    if req.headers != req._headers_as_sent:
        before, after = _as_keys(req._headers_as_sent), _as_keys(req.headers)
        for key in before.keys() - after.keys():
            environ.pop(key, None)
        environ.update(item for item in after.items() if before.get(item[0]) != item[1])


def _script_name(headers):
    given = (value for name, value in reversed(headers) if name == "SCRIPT_NAME")
    return next(given, os.environ.get("SCRIPT_NAME", ""))


def _as_keys(headers):
    """Headers as the keys of an environ. For some that the hook has not changed the server's own value is better."""
    keys = {}
    for name, value in headers:
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        separator = "; " if key == "HTTP_COOKIE" else ","
        keys[key] = keys[key] + separator + value if key in keys else value
    return keys
