"""What gunicorn.conf.py of the cartridge asks: the gear's environment, its size, the release that
is served.

It is asked at the start and at each reload, in the master. It knows the files that
usr/lib/cartridge.sh writes, and nothing of the application.
"""

from __future__ import annotations

import faulthandler
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Asks a worker for the stacks of its threads (`control threaddump`). The server leaves this signal
# alone.
STACKS = signal.SIGRTMIN + 2
# The shell's own, and what belongs to one run of the server.
SHELLS = {"PWD", "OLDPWD", "SHLVL", "_"}
NOT_HANDED_ON = SHELLS | {"MONOCEROS_RELEASE", "MONOCEROS_WORKERS", "VIRTUAL_ENV", "GUNICORN_CMD_ARGS"}


class Gear:
    """The gear as it is at this start or reload."""

    def __init__(self, cartridge: str) -> None:
        self.cartridge = Path(cartridge)
        self.run = Path(os.environ.get("OPENSHIFT_PYTHON_PID_DIR") or self.cartridge / "run")
        saved = (self.run / "environment").read_bytes()
        pairs = (os.fsdecode(entry).partition("=") for entry in saved.split(b"\0") if entry)
        self.environment = {name: value for name, _, value in pairs}
        self.logs = Path(self.environment.get("OPENSHIFT_PYTHON_LOG_DIR") or self.cartridge / "logs")
        # bin/control names one that is not served yet, to try it.
        named = os.environ.get("MONOCEROS_RELEASE")
        self.release = Path(named) if named else self.cartridge / "releases/current"
        self.repo = self.release / "repo"
        # What `stage find` has found in the release.
        words = shlex.split((self.release / "source").read_text())
        self.source = dict(word.partition("=")[::2] for word in words)

    def raw_env(self) -> list[str]:
        """The platform's variables as they are now. The master keeps those that it was started with."""
        return [f"{name}={value}" for name, value in self.environment.items() if name not in NOT_HANDED_ON]

    def app(self) -> tuple[str | None, str | None]:
        """What to serve, as `wsgi_app` and `wsgi_file`: the application's module, or its script."""
        if module := self.source.get("APP_MODULE"):
            return module, None
        return None, str(self.repo / self.source["WSGI_FILE"])

    def chdir(self) -> str:
        """By the name of the link, so that the next reload finds the next release."""
        return str(self.repo / self.source.get("CHDIR", "."))

    def pythonpath(self) -> list[str]:
        """Searched from the last to the first: the repository, wsgi and libs in it, and what comes
        with the cartridge."""
        below = [self.source.get("PYTHONPATH", ""), "libs", "wsgi", "."]
        found = [str((self.repo / name).absolute()) for name in below if name and (self.repo / name).is_dir()]
        return [str(self.cartridge / "usr/lib"), *found]

    def static_map(self) -> list[str]:
        """The files that the Apache of these platforms sent by itself. What is not there is the
        application's, as it was."""
        sent = {"/static": "wsgi/static"}
        if self.source.get("WSGI_FILE") == "application":
            # Jelastic's layout: everything lies beside the script.
            sent = {f"/{name}": name for name in ("static", "images", "robots.txt", "favicon.ico")}
        # Not by the link to the release that is current: a worker sends the files of its own release.
        found = ((path, (self.repo / name).resolve()) for path, name in sent.items())
        return [f"{path}={target},fall-through" for path, target in found if target.exists()]

    def user_settings(self) -> Path | None:
        """The repository's own gunicorn.conf.py, which has the last word but for a few settings."""
        path = self.repo / "gunicorn.conf.py"
        return path if path.is_file() else None

    def on_worker_init(self, theirs: Callable[[Any], None] | None) -> Callable[[Any], None]:
        """A `post_worker_init` that tells bin/control of this worker, after the user's own one."""
        wanted = self.run / "wanted"
        token = wanted.read_text().strip() if wanted.exists() else ""

        def post_worker_init(worker: Any) -> None:
            faulthandler.register(STACKS, file=2, all_threads=True)
            if theirs:
                theirs(worker)
            if token:
                (self.run / token).touch()

        return post_worker_init
