"""Cloud Foundry with buildpacks of the second contract: a stager, droplets, the launcher, health checks and the stop.

The order of calls and the variables are those of buildpackapplifecycle and of the cells. Staging and instances have
different paths here, as they have there.
"""

import json
import os
import re
import sysconfig
import time
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common
from common import WORK, Browser, Failure, Process, expect, free_port, plain_environment, run

BUILDPACK = WORK / "buildpack"
# The platform's limits: to become healthy, for one check, to end after TERM.
START_LIMIT, CHECK_LIMIT, STOP_LIMIT = 60, 1, 10
# Cells look every two seconds; the order is the same, and the tests wait less.
PROBE_INTERVAL = 0.1


class Crashed(Failure):
    """An instance ended before it was healthy."""


@dataclass
class Application:
    """What `cf push` knows of an application."""

    name: str
    buildpacks: list[Path] = field(default_factory=lambda: [buildpack()])
    env: dict[str, str] = field(default_factory=dict)
    services: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    memory: str = "512M"
    # A path where the health check is http and not port.
    health: str = ""
    pushes: int = 0
    instances: "list[Instance]" = field(default_factory=list)

    @property
    def cache(self) -> Path:
        """What the platform keeps from one staging to the next."""
        return WORK / self.name / "cache"

    def stage(self, source: Path) -> "Droplet":
        """The stager: detect, supply of each buildpack, finalize and release of the last, Procfile, droplet."""
        self.pushes += 1
        top = WORK / self.name / f"staging-{self.pushes}"
        build, deps, profile = top / "app", top / "deps", top / "profile.d"
        for folder in (self.cache, profile, *(deps / str(index) for index in range(len(self.buildpacks)))):
            folder.mkdir(parents=True, exist_ok=True)
        common.copy(source, build)
        env = self.environment(HOME="/nonexistent", TMPDIR=str(self.cache.parent))
        said = ""
        last = self.buildpacks[-1]
        said += run([str(last / "bin/detect"), str(build)], env)
        for index, one in enumerate(self.buildpacks):
            said += run([str(one / "bin/supply"), str(build), str(self.cache), str(deps), str(index)], env)
        arguments = [str(build), str(self.cache), str(deps), str(len(self.buildpacks) - 1), str(profile)]
        said += run([str(last / "bin/finalize"), *arguments], env)
        released = run([str(last / "bin/release"), str(build)], env)
        processes = dict(re.findall(r"^  (\w+): (.*)$", released, re.MULTILINE))
        if (build / "Procfile").exists():
            processes.update(re.findall(r"^(\w+): *(.*)$", (build / "Procfile").read_text(), re.MULTILINE))
        print(said, flush=True)
        return Droplet(self, top, processes["web"], said)

    def environment(self, **more: str) -> dict[str, str]:
        env = plain_environment(CF_STACK="cflinuxfs4", MEMORY_LIMIT=self.memory, LANG="C.UTF-8")
        # The stack's Python is that of the tests.
        env["MONOCEROS_PYTHON"] = common.PYTHON
        env.update(self.env)
        if self.services:
            env["VCAP_SERVICES"] = json.dumps(self.services)
        return {**env, **more}

    def push(self, source: Path, instances: int = 1) -> "Droplet":
        """`cf push --strategy rolling`: the old instances stop when all new ones are healthy, and not before."""
        droplet = self.stage(source)
        self.roll(droplet, instances)
        return droplet

    def roll(self, droplet: "Droplet", instances: int = 1) -> None:
        old = self.instances
        new = [droplet.launch(index) for index in range(instances)]
        try:
            for instance in new:
                instance.become_healthy()
        except Failure:
            for instance in new:
                instance.process.kill()
            raise
        self.instances = new
        for instance in old:
            instance.stop()

    def stop(self) -> None:
        for instance in self.instances:
            instance.stop()
        self.instances = []


@dataclass
class Droplet:
    """An application that is staged. There it is an archive; here its parts are copied where an instance starts."""

    application: Application
    folder: Path
    command: str
    said: str
    launches: int = 0

    def launch(self, index: int = 0, through: "list[str] | None" = None) -> "Instance":
        """The launcher, in a container of its own: sets the environment, sources the profiles, becomes the command."""
        self.launches += 1
        top = self.folder / f"instance-{self.launches}"
        for name in ("tmp", "logs"):
            (top / name).mkdir(parents=True)
        for name in ("app", "profile.d"):
            common.copy(self.folder / name, top / name)
        # Nothing writes there, so the files of the virtualenv may be one.
        run(["cp", "-al", str(self.folder / "deps"), str(top / "deps")])
        port = free_port()
        env = self.application.environment(
            HOME=f"{top}/app",
            TMPDIR=f"{top}/tmp",
            DEPS_DIR=f"{top}/deps",
            USER="vcap",
            PORT=str(port),
            VCAP_APP_HOST="0.0.0.0",
            VCAP_APP_PORT=str(port),
            CF_INSTANCE_INDEX=str(index),
            CF_INSTANCE_ADDR=f"127.0.0.1:{port}",
            VCAP_APPLICATION=json.dumps({"application_name": self.application.name, "host": "0.0.0.0", "port": port}),
        )
        env.pop("MONOCEROS_PYTHON")
        if url := database_url(self.application.services):
            env["DATABASE_URL"] = url
        command = [*(through or []), "bash", "-c", LAUNCHER, "launcher", f"{top}/app", self.command]
        return Instance(Process(command, env, top, top / "log"), port, self.application.health)

    def start(self, index: int = 0) -> "Instance":
        instance = self.launch(index)
        instance.become_healthy()
        return instance


LAUNCHER = """
cd "$1" || exit 1
for script in ../profile.d/*.sh .profile.d/*.sh .profile; do
  [ ! -f "$script" ] || . "$script"
done
exec bash -c "$2"
"""


# How the launcher spells the schemes.
RUBY = {"mysql": "mysql2", "mysql2": "mysql2", "postgres": "postgres", "postgresql": "postgres"}


def database_url(services: dict[str, list[dict[str, Any]]]) -> str:
    """What the launcher makes of the first URL of a database: in Ruby's spelling."""
    for listed in services.values():
        for service in listed:
            scheme, separator, rest = service["credentials"].get("uri", "").partition("://")
            if scheme in RUBY:
                return RUBY[scheme] + separator + rest
    return ""


@dataclass
class Instance:
    """A container with the application."""

    process: Process
    port: int
    health: str

    def become_healthy(self) -> None:
        """The start-up probe."""
        end = time.monotonic() + START_LIMIT
        while not self.is_healthy():
            if self.process.is_over:
                raise Crashed(f"the instance ended with {self.process.child.returncode}:\n{self.process.log}")
            if time.monotonic() > end:
                raise Failure(f"not healthy after {START_LIMIT} s:\n{self.process.log}")
            time.sleep(PROBE_INTERVAL)

    def is_healthy(self) -> bool:
        if not self.health:
            return common.can_connect(self.port)
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.health}", timeout=CHECK_LIMIT) as answer:
                return answer.status == 200
        except OSError:
            return False

    def browser(self) -> Browser:
        return Browser(self.port)

    def stop(self) -> None:
        """TERM to the root process, and no need of the KILL that follows."""
        status = self.process.stop(STOP_LIMIT)
        expect(status == 0, f"the instance ends with 0, and not {status}", self.process.log)


def buildpack() -> Path:
    """The buildpack, as `package` lays it out."""
    if not BUILDPACK.exists():
        run([str(common.ROOT / "conf/buildpack/package"), str(BUILDPACK), common.WHEEL])
    return BUILDPACK


# -- Scenarios --------------------------------------------------------------------------------------------------------


def hello() -> None:
    """An application without anything but wsgi.py: no Procfile, no requirements, no command."""
    application = Application("hello")
    source = common.example("hello")
    droplet = application.push(source)
    [instance] = application.instances
    expect(instance.browser().get("/") == "Hello from monoceros\n", "it answers")
    expect("Listening at: http://0.0.0.0:" in instance.process.log, "on all interfaces", instance.process.log)
    common.wait_for("a line for the request", lambda: '"GET / HTTP/1.1" 200' in instance.process.log)
    application.stop()
    # Staging again needs no network, and a start no network, no known user, no home, and nothing writable but TMPDIR.
    common.cut_the_network()
    again = application.stage(source)
    expect("dependencies: reused" in again.said and "built" in droplet.said, "the virtualenv is reused", again.said)
    instance = again.launch(through=common.as_stranger([], again.folder / "instance-1/tmp"))
    instance.become_healthy()
    expect(instance.browser().get("/") == "Hello from monoceros\n", "it answers")
    status = Path(f"/proc/{instance.process.pid}/status").read_text()
    expect(f"Uid:\t{common.STRANGER}" in status, "as nobody", status)
    instance.stop()


def procfile() -> None:
    """The contract of Python buildpacks: a Procfile that names gunicorn, which the requirements pin as well."""
    source = WORK / "source"
    source.mkdir()
    (source / "requirements.txt").write_text("bottle==0.13.4\ngunicorn==23.0.0\n")
    (source / "Procfile").write_text("web: gunicorn --threads 2 server:app\n")
    (source / "server.py").write_text(SERVER)
    mysql = {"name": "orders-db", "label": "p.mysql", "tags": ["mysql"],
             "credentials": {"uri": "mysql://me:p%40ss%25@db.example.org:3306/orders?reconnect=true"}}  # fmt: skip
    application = Application("procfile", services={"p.mysql": [mysql]}, memory="1G")
    droplet = application.push(source)
    expect(droplet.command == "gunicorn --threads 2 server:app", "the Procfile decides", droplet.command)
    [instance] = application.instances
    told = json.loads(instance.browser().get("/", {"X-Forwarded-Proto": "https"}))
    expect(told["server"].startswith("monoceros/"), "gunicorn is monoceros", told)
    expect(told["version"] != "23.0.0", "import gunicorn finds the server's", told)
    expect(told["scheme"] == "https", "the router is trusted", told)
    expect(told["url"] == "mysql://me:p%40ss%25@db.example.org:3306/orders?reconnect=true", "as Python spells it", told)
    expect(told["own"] == told["url"], "the service has a variable of its own", told)
    workers = min(2 * len(os.sched_getaffinity(0)) + 1, 1024 // 256)
    expect(told["workers"] == str(workers), f"{workers} workers for the memory and the processors", told)
    expect("p%40ss" not in instance.process.log + droplet.said, "no password is logged")
    application.stop()

    # Without one of the packages: another virtualenv, in which it is not.
    (source / "requirements.txt").write_text("gunicorn==23.0.0\n")
    second = application.stage(source)
    expect("dependencies: built" in second.said, "changed requirements are installed anew", second.said)
    # The port is open before a worker has failed, so this is no matter of the probe.
    gone = second.launch().process
    common.wait_for("the end of an instance that cannot serve", lambda: gone.is_over)
    expect("No module named 'bottle'" in gone.log, "the package is really gone", gone.log)
    expect(gone.child.returncode == 3, "it ends as gunicorn does", gone.child.returncode)


SERVER = """
import json, os, sys
import bottle, gunicorn

app = bottle.Bottle()

@app.get("/")
def tell():
    environ = bottle.request.environ
    return json.dumps({
        "server": environ["SERVER_SOFTWARE"], "version": gunicorn.__version__, "scheme": environ["wsgi.url_scheme"],
        "url": os.environ.get("DATABASE_URL"), "own": os.environ.get("ORDERS_DB_URL"),
        "workers": os.environ.get("WEB_CONCURRENCY"), "prefix": sys.prefix,
    })
"""


def after_the_python_buildpack() -> None:
    """Behind the platform's Python buildpack, which installs the packages and exports PYTHONHOME."""
    if Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists():
        print("skipped: the Python of a distribution has no pip of its own, and looks elsewhere for packages (PEP 668)")
        return
    source = WORK / "source"
    source.mkdir()
    (source / "requirements.txt").write_text("bottle==0.13.4\n")
    (source / "Procfile").write_text("web: gunicorn server:app\n")
    (source / "server.py").write_text(SERVER)
    application = Application("after", buildpacks=[python_buildpack(), buildpack()])
    application.env["MONOCEROS_PYTHON"] = ""
    application.push(source)
    [instance] = application.instances
    told = json.loads(instance.browser().get("/"))
    expect(told["server"].startswith("monoceros/"), "gunicorn is monoceros", told)
    expect("/deps/0/python" in told["prefix"] and "staging" in told["prefix"], "in the other buildpack's Python", told)
    application.stop()


def python_buildpack() -> Path:
    """Leaves what the platform's own does: a Python in DEPS/0/python, found by PYTHONHOME, with the packages in it."""
    folder = WORK / "python-buildpack/bin"
    folder.mkdir(parents=True)
    (folder / "supply").write_text(f"#!/bin/bash\nset -eu\n{PYTHON_SUPPLY}\n")
    (folder / "supply").chmod(0o755)
    return folder.parent


PYTHON_SUPPLY = f"""
home=$3/$4/python base=$({common.PYTHON} -c 'import sys; print(sys.base_prefix)')
mkdir -p $home/bin $home/lib $3/$4/bin $3/$4/lib $3/$4/env $3/$4/profile.d
version=$({common.PYTHON} -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
cp $base/bin/$version $home/bin/$version
ln -s $version $home/bin/python3
ln -s ../python/bin/python3 $3/$4/bin/python3
ln -s $base/lib/libpython* $3/$4/lib
mkdir $home/lib/$version
ln -s $base/lib/$version/* $home/lib/$version
rm -f $home/lib/$version/site-packages
mkdir $home/lib/$version/site-packages
echo -n "$home" > $3/$4/env/PYTHONHOME
export PYTHONHOME=$home LD_LIBRARY_PATH=$base/lib
$home/bin/python3 -m ensurepip > /dev/null
$home/bin/python3 -m pip install -q -r $1/requirements.txt
cat > $3/$4/profile.d/python.sh <<'SH'
export LANG=${{LANG:-en_US.UTF-8}} PYTHONHASHSEED=random PYTHONUNBUFFERED=1
export PYTHONPATH=$DEPS_DIR/0 PYTHONHOME=$DEPS_DIR/0/python FORWARDED_ALLOW_IPS='*'
export GUNICORN_CMD_ARGS=${{GUNICORN_CMD_ARGS:-'--access-logfile -'}}
SH
"""


def guestbook() -> None:
    """A Django project through its life, on a SQLite in a volume."""
    live(f"sqlite:///{WORK}/volume.sqlite3")


def live(url: str, services: "dict[str, list[dict[str, Any]]] | None" = None) -> Application:
    """First push, the admin, a new model, a migration that fails: the same on each database."""
    source = common.example("guestbook")
    application = Application("guestbook", health="/health", services=services or {})
    application.env.update(DJANGO_SUPERUSER_USERNAME="admin", DJANGO_SUPERUSER_PASSWORD="s3cret")
    if url:
        application.env["DATABASE_URL"] = url
    first = application.push(source)
    expect("static files copied" in first.said, "collectstatic ran in staging", first.said)
    [instance] = application.instances
    expect("stage: superuser: created admin" in instance.process.log, "there is an administrator", instance.process.log)
    browser = instance.browser()
    common.log_in(browser, "admin", "s3cret")
    listed = browser.post("/admin/guestbook/entry/add/", author="Ada", text="It works")
    expect("was added successfully" in listed, "an object is added in the admin", listed)
    expect(re.search(r'href="/static/guestbook/style\.[0-9a-f]+\.css"', browser.get("/")), "static files are hashed")
    expect(browser.get("/static/admin/css/base.css"), "and served")

    # From here on there is no network: neither staging nor a start needs one.
    common.cut_the_network()
    add_a_model(source)
    second = application.push(source, instances=2)
    expect("dependencies: reused" in second.said, "the virtualenv is reused", second.said)
    logs = [instance.process.log for instance in application.instances]
    applied = [log.count("Applying guestbook.0003_visit") for log in logs]
    expect(sorted(applied) == [0, 1], "of two instances that start at once one migrates", logs)
    expect(all("superuser: admin is there" in log for log in logs), "the administrator stays", logs)
    browser = application.instances[0].browser()
    common.log_in(browser, "admin", "s3cret")
    expect("Ada" in browser.get("/admin/guestbook/entry/"), "the data is kept")
    expect("/admin/guestbook/visit/" in browser.get("/admin/"), "the new model is there")

    (source / "guestbook/migrations/0004_broken.py").write_text(BROKEN_MIGRATION)
    application.env["DISABLE_COLLECTSTATIC"] = "1"
    broken = application.stage(source)
    expect("collectstatic" not in broken.said, "a step may be left out", broken.said)
    try:
        application.roll(broken)
    except Crashed as error:
        expect("the release ended with status 1" in str(error), "the release is refused", error)
    else:
        raise Failure("a migration that fails lets a release through")
    expect("Ada" in application.instances[0].browser().get("/"), "the old release serves on")
    application.stop()
    return application


def add_a_model(source: Path) -> None:
    """What a developer does between two pushes."""
    package = source / "guestbook"
    with (package / "models.py").open("a") as file:
        file.write("\n\nclass Visit(models.Model):\n    at = models.DateTimeField(auto_now_add=True)\n")
    with (package / "admin.py").open("a") as file:
        file.write("\n\nfrom guestbook.models import Visit\n\nadmin.site.register(Visit)\n")
    (package / "migrations/0003_visit.py").write_text(NEW_MIGRATION)


NEW_MIGRATION = """
import time
from django.db import migrations, models

class Migration(migrations.Migration):
    dependencies = [("guestbook", "0002_entry_written")]
    operations = [
        # Long enough for the other instance to come in the middle of it.
        migrations.RunPython(lambda apps, schema_editor: time.sleep(1), migrations.RunPython.noop),
        migrations.CreateModel("Visit", [
            ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
            ("at", models.DateTimeField(auto_now_add=True)),
        ]),
    ]
"""

BROKEN_MIGRATION = """
from django.db import migrations

class Migration(migrations.Migration):
    dependencies = [("guestbook", "0003_visit")]
    operations = [migrations.RunSQL("SELECT no_such_column FROM guestbook_entry")]
"""


if __name__ == "__main__":
    common.run_scenario(globals())
