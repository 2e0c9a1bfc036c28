"""The application behind two things that Apache did on these platforms: it loaded scripts by their
path, whatever their suffix, and sent static files.

gear.py names the application in MONOCEROS_GEAR_APP (a module, or the path of a script) and the
static files in MONOCEROS_GEAR_STATIC (URL path = file or folder, with colons between).
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import mimetypes
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]

# Read at once from a static file, where the server cannot send it without reading.
BLOCK = 65536


def load(named: str) -> Application:
    """An application by MODULE, MODULE:NAME, or the path of a script that has one named
    `application`."""
    if os.path.isabs(named):
        script = Path(named).resolve()
        loader = importlib.machinery.SourceFileLoader("wsgi_script", str(script))
        spec = importlib.util.spec_from_loader("wsgi_script", loader)
        assert spec is not None
        module = sys.modules["wsgi_script"] = importlib.util.module_from_spec(spec)
        sys.path.insert(0, str(script.parent))
        loader.exec_module(module)
        application: Application = module.application
        return application
    module_name, _, name = named.partition(":")
    named_app: Application = getattr(importlib.import_module(module_name), name or "application")
    return named_app


def with_static(app: Application, maps: dict[str, Path]) -> Application:
    """Answers GET and HEAD of what is below a mapped path; everything else is the application's."""
    if not maps:
        return app

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        file = find(environ["PATH_INFO"], maps) if environ["REQUEST_METHOD"] in ("GET", "HEAD") else None
        if file is None:
            return app(environ, start_response)
        kind, coding = mimetypes.guess_type(file)
        headers = [
            ("Content-Type", kind or "application/octet-stream"),
            ("Content-Length", str(file.stat().st_size)),
        ]
        if coding:
            headers.append(("Content-Encoding", coding))
        start_response("200 OK", headers)
        blocks: Iterable[bytes] = environ["wsgi.file_wrapper"](file.open("rb"), BLOCK)
        return blocks

    return answer


def find(path: str, maps: dict[str, Path]) -> Path | None:
    """The file that a URL path names: inside its map's target also when links are followed, and not
    a hidden one."""
    for prefix, target in maps.items():
        if path != prefix and not path.startswith(f"{prefix}/"):
            continue
        below = path[len(prefix) :].strip("/")
        if "\0" in below or any(part.startswith(".") for part in below.split("/") if part):
            return None
        file = (target / below).resolve()
        if file.is_file() and file.is_relative_to(target.resolve()):
            return file
    return None


application = with_static(
    load(os.environ["MONOCEROS_GEAR_APP"]),
    {
        # Not by the link to the release that is current: this worker belongs to the one of today.
        prefix: Path(target).resolve()
        for prefix, _, target in (
            entry.partition("=") for entry in os.environ["MONOCEROS_GEAR_STATIC"].split(os.pathsep) if entry
        )
    },
)
