"""Prints the request fixtures of gunicorn's source distribution as JSON: gunicorn_fixtures.py FOLDER.

The distribution is fetched by pip into FOLDER, once. A fixture is a `.http` file of escaped bytes and a `.py` file
which sets what gunicorn is configured with and what it parses, or the exception it raises. Of gunicorn itself nothing
is imported: the two modules that the `.py` files name are stood in for.
"""

import json
import pathlib
import re
import subprocess
import sys
import tarfile
import types

VERSION = "27.0.1"


def main(folder):
    folder = pathlib.Path(folder)
    archive = folder / f"gunicorn-{VERSION}.tar.gz"
    if not archive.exists():
        download = ["download", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", "gunicorn"]
        subprocess.run([sys.executable, "-m", "pip", *download, "--dest", folder, f"gunicorn=={VERSION}"], check=True)
    with tarfile.open(archive) as files:
        content = {file.name: files.extractfile(file).read() for file in files if is_fixture(file)}
    names = sorted(name for name in content if name.endswith(".http"))
    print(json.dumps([fixture(name, content) for name in names]))


def is_fixture(file):
    return file.isfile() and re.search(r"/tests/requests/(in)?valid/[^/]+\.(http|py)$", file.name)


def fixture(name, content):
    settings, expected = expectation(content[name.removesuffix(".http") + ".py"])
    folder, file = name.rsplit("/", 2)[1:]
    return {
        "name": f"{folder}/{file.removesuffix('.http')}",
        "is_valid": folder == "valid",
        "settings": settings,
        "bytes": unescape(content[name]).decode("latin-1"),
        "expected": [request(one) for one in expected] if folder == "valid" else getattr(expected[0], "__name__", ""),
    }


def unescape(data):
    """Line ends of the file mean nothing; the stream's own are written out."""
    data = data.replace(b"\n", b"")
    escapes = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0"}

    def decode(match):
        return escapes.get(match[1]) or bytes([int(match[1][1:], 16)])

    return re.sub(rb"\\(r|n|t|0|x[0-9a-fA-F]{2})", decode, data)


class Config(dict):
    def set(self, name, value):
        self[name] = value


def expectation(code):
    config_module, errors_module = types.ModuleType("gunicorn.config"), types.ModuleType("gunicorn.http.errors")
    config_module.Config = Config
    errors_module.__getattr__ = lambda name: type(name, (Exception,), {})
    modules = {"gunicorn": None, "gunicorn.http": None, "gunicorn.config": config_module}
    sys.modules.update({name: module or types.ModuleType(name) for name, module in modules.items()})
    sys.modules["gunicorn.http.errors"] = errors_module
    namespace = {"uri": lambda text: text, "cfg": Config()}
    exec(code, namespace)
    expected = namespace["request"]
    return namespace["cfg"], expected if isinstance(expected, list) else [expected]


def request(expected):
    major, minor = expected["version"]
    return {
        "method": expected["method"],
        "target": expected["uri"],
        "version": f"HTTP/{major}.{minor}",
        "environ": environ(expected["headers"]),
        "body": expected["body"] if isinstance(expected["body"], str) else expected["body"].decode("latin-1"),
    }


def environ(headers):
    """The keys that PEP 3333 and CGI make of header fields, repeated ones joined."""
    keys = {}
    for name, value in headers:
        # Only the hyphen makes these two special.
        prefix = "" if name.upper() in ("CONTENT-TYPE", "CONTENT-LENGTH") else "HTTP_"
        key = prefix + name.upper().replace("-", "_")
        keys[key] = f"{keys[key]},{value}" if key in keys else value
    return keys


main(sys.argv[1])
