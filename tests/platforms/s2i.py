"""Source-to-image Python (OpenShift 3 and 4): the ways in which its run script starts an application, in its order.

It knows gunicorn by name: it imports it for its version, and hands it an empty `--config` where the user has none. The
container runs as a user whom nobody knows, of group 0, and its root may be read only.
"""

import shlex
from pathlib import Path

import common
from common import WORK, Browser, Process, expect, free_port, plain_environment, run, wait_for

VENV = WORK / "venv"
# Kubernetes' TERM and KILL are 30 seconds apart.
STOP_LIMIT = 30

APPLICATION = """
import os

def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{environ['SERVER_SOFTWARE']} {os.path.basename(__file__)} {os.getuid()}".encode()]

app = application
"""

# What the image's own example of a program with a server in it does.
EMBEDS = """
import os
from gunicorn.app.base import BaseApplication
from shop import application

class Program(BaseApplication):
    def load_config(self):
        self.cfg.set("bind", "0.0.0.0:" + os.environ["PORT"])

    def load(self):
        return application

if __name__ == "__main__":
    Program().run()
"""

# A name, the files, the variables of the user, and the file whose application answers.
SHAPES: list[tuple[str, dict[str, str], dict[str, str], str]] = [
    ("wsgi", {"wsgi.py": APPLICATION}, {}, "wsgi.py"),
    ("app-module", {"shop/site.py": APPLICATION}, {"APP_MODULE": "shop.site:app"}, "site.py"),
    ("app-home", {"sub/wsgi.py": APPLICATION}, {"APP_HOME": "sub"}, "wsgi.py"),
    ("app-config", {"wsgi.py": APPLICATION, "conf/own.py": "threads = 2\n"}, {"APP_CONFIG": "conf/own.py"}, "wsgi.py"),
    ("setup", {"shop.py": APPLICATION, "setup.py": "from setuptools import setup; setup(name='shop')"}, {}, "shop.py"),
    ("config", {"gunicorn.conf.py": "wsgi_app = 'shop'\nbind = 'PORT'\n", "shop.py": APPLICATION}, {}, "shop.py"),
    ("program", {"app.py": EMBEDS, "shop.py": APPLICATION}, {}, "shop.py"),
]


def shapes() -> None:
    """Each of the image's own examples starts, answers and ends."""
    stage = [common.PYTHON, str(common.STAGE), "build", str(WORK), "--venv", str(VENV), "--python", common.PYTHON]
    run([*stage, "--with", common.WHEEL, "--as-gunicorn"], plain_environment(HOME="/nonexistent"))
    question = "import gunicorn; print(gunicorn.version_info >= (20, 1))"
    expect(run([str(VENV / "bin/python"), "-c", question]) == "True\n", "gunicorn has a version")
    started = [start(name, files, variables) for name, files, variables, _ in SHAPES]
    for (name, _, _, file), (process, port) in zip(SHAPES, started, strict=True):
        wait_for(f"{name} to serve", lambda: common.can_connect(port) or process.is_over)  # noqa: B023
        expect(not process.is_over, f"{name} runs", process.log)
        told = Browser(port).get("/").split()
        expect(told[0].startswith("monoceros/") and told[1:] == [file, str(common.STRANGER)], f"{name} answers", told)
        expect(process.stop(STOP_LIMIT) == 0, f"{name} ends with 0", process.log)


def start(name: str, files: dict[str, str], variables: dict[str, str]) -> tuple[Process, int]:
    source, port = WORK / name, free_port()
    for file, content in files.items():
        (source / file).parent.mkdir(parents=True, exist_ok=True)
        (source / file).write_text(content.replace("'PORT'", f"'0.0.0.0:{port}'"))
    home = source / variables.get("APP_HOME", ".")
    writable = WORK / f"{name}-tmp"
    command = ["sh", "-c", f'cd {home} && exec "$@"', "sh", *command_of(home, port, variables)]
    env = plain_environment(HOME="/nonexistent", PORT=str(port), TMPDIR=str(writable), PYTHONUNBUFFERED="1")
    env["PATH"] = f"{VENV}/bin:{env['PATH']}"
    return Process(common.as_stranger(command, writable), env, source, WORK / f"{name}.log"), port


def command_of(home: Path, port: int, variables: dict[str, str]) -> list[str]:
    """What the run script becomes: a config that names the application, a program, or the server with a module."""
    config = home / "gunicorn.conf.py"
    if config.exists() and "wsgi_app" in config.read_text():
        return ["gunicorn"]
    if (home / "app.py").exists():
        return ["python", "-u", "app.py"]
    module = variables.get("APP_MODULE") or ("wsgi" if (home / "wsgi.py").exists() else "")
    if not module:
        module = run([str(VENV / "bin/python"), "-c", SETUP_NAME], folder=home).strip()
    line = f"gunicorn {module} --bind=0.0.0.0:{port} --access-logfile=- --config"
    return [*shlex.split(line), variables.get("APP_CONFIG", "")]


# The script asks setup.py --name, for which the setuptools of the image are there.
SETUP_NAME = "import re; print(re.search(r\"name='(\\w+)'\", open('setup.py').read())[1])"

if __name__ == "__main__":
    common.run_scenario(globals())
