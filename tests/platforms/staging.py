"""scripts/stage by itself: what it finds, when it makes a virtualenv anew, and how a release ends."""

import hashlib
import importlib.machinery
import importlib.util
import json
import re
import shutil
import sqlite3
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import common
from common import WORK, expect, plain_environment, run, wait_for


def load_stage() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("stage", str(common.STAGE))
    spec = importlib.util.spec_from_loader("stage", loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules["stage"] = module
    loader.exec_module(module)
    return module


def stage(*arguments: object, status: int = 0, **variables: str) -> str:
    return run([sys.executable, str(common.STAGE), *map(str, arguments)], environment(**variables), WORK, status)


def environment(**variables: str) -> dict[str, str]:
    return plain_environment(HOME="/nonexistent", PYTHONDONTWRITEBYTECODE="1", **variables)


def application(name: str, files: dict[str, str]) -> Path:
    """A folder with these files."""
    folder = WORK / name
    for file, content in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(content)
    return folder


# -- Scenarios --------------------------------------------------------------------------------------------------------


def finds() -> None:
    """The entry point, in the order of the platforms."""
    module = load_stage()
    django, app = "import django", "app = object()"
    table = [
        ({"wsgi.py": ""}, "wsgi"),
        ({"wsgi.py": "", "app.py": app}, "wsgi"),
        ({"wsgi/application": ""}, "--wsgi-file wsgi/application"),
        ({"ROOT/application": ""}, "--wsgi-file ROOT/application"),
        ({"app.py": app}, "app:app"),
        ({"app.py": "def application(environ, start_response): ..."}, "app:application"),
        ({"app.py": "print('a script')"}, ""),
        ({"manage.py": django, "shop/wsgi.py": ""}, "shop.wsgi"),
        ({"site/manage.py": django, "site/shop/wsgi.py": ""}, "--chdir site shop.wsgi"),
        ({"manage.py": django, "a/wsgi.py": "", "b/wsgi.py": ""}, ""),
        ({"setup.py": "", "src/shop.py": "", "app.py": app}, "--pythonpath src app:app"),
        ({"package.json": "{}"}, ""),
    ]
    for number, (files, wanted) in enumerate(table):
        source = module.find_source(application(f"find-{number}", files))
        told = " ".join(module.server_arguments(source))
        expect(told == wanted, f"{files} is served by {wanted!r}", told)
    folder = application("named", {"other/dir/wsgi.py": "", "wsgi.py": ""})
    told = stage("find", folder, OPENSHIFT_PYTHON_WSGI_APPLICATION="other/dir/wsgi.py")
    expect("ARGUMENTS='--wsgi-file other/dir/wsgi.py'" in told, "what is named comes first", told)
    expect("APP_MODULE=shop:app" in stage("find", folder, APP_MODULE="shop:app"), "so does APP_MODULE")


def keys() -> None:
    """The key changes with what decides the content of a virtualenv, and with nothing else."""
    def key(*arguments: object) -> str:
        return stage("key", folder, *arguments).strip()

    files = {"requirements.txt": "-r more.txt\n./local\n", "more.txt": "bottle\n", "local/setup.py": "1", "app.py": "1"}
    folder = application("keys", files)
    seen = [key()]
    (folder / "app.py").write_text("2")
    expect(key() == seen[0], "the application's own code does not count")
    for name in ("more.txt", "local/setup.py", "requirements.txt", "vendor/a.whl"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"# another {name}")
        expect(key() not in seen, f"{name} counts")
        seen.append(key())
    for arguments in (("--with", folder / "vendor/a.whl"), ("--as-gunicorn",), ("--requirements", "more.txt")):
        expect(key(*arguments) not in seen, f"{arguments} counts")
    pinned = {"version": "==1", "hashes": ["sha256:0"], "extras": ["x"], "markers": "python_version > '3'"}
    lock = {"default": {"a": pinned}}
    (folder / "Pipfile.lock").write_text(json.dumps(lock))
    lines = [call.lines for call in load_stage().read_lock(lock, folder)]
    expect(lines == ["a[x]==1 ; python_version > '3' --hash=sha256:0"], "a lock keeps hashes and markers", lines)
    (folder / "requirements.txt").unlink()
    expect(key() not in seen, "a lock counts where there is no requirements.txt")
    lock["default"]["b"] = {"path": "./local"}
    (folder / "Pipfile.lock").write_text(json.dumps(lock))
    seen = [key()]
    (folder / "local/setup.py").write_text("2")
    expect(key() not in seen, "so does what a lock names by its path")
    said = stage("key", application("pipfile", {"Pipfile": ""}), status=1)
    expect("`pipenv lock` makes it" in said, "a Pipfile alone says nothing certain", said)

    folder = application("package", {"setup.py": "", "shop.py": ""})
    inside = ("--venv", folder / "venv")
    seen = [key(*inside)]
    application("package", {"venv/pyvenv.cfg": "", "venv.cache/lock": ""})
    expect(key(*inside) == seen[0], "a virtualenv in the application's folder does not count")
    (folder / "shop.py").rename(folder / "store.py")
    expect(key(*inside) not in seen, "a file's name counts")


def cache() -> None:
    """Without the network, from wheels that the application brings: built, reused, moved, pruned, behind a link."""
    common.cut_the_network()
    folder = application("cache", {"requirements.txt": "one\n"})
    for name in ("one", "two"):
        make_wheel(folder / "vendor", name)
    arguments = ["build", folder, "--cache", WORK / "store", "--python", common.PYTHON]
    said = stage(*arguments, "--venv", WORK / "venv", "--keep", "2")
    [first] = re.findall(r"dependencies: built (\w+) in", said)
    expect(f"reused {first}" in stage(*arguments, "--venv", WORK / "other"), "the second time nothing is made")
    (WORK / "other").rename(WORK / "moved")
    (WORK / "link").symlink_to(WORK / "moved/bin/one")
    for script in (WORK / "moved/bin/one", WORK / "link"):
        told = run([str(script)]).strip()
        expect(told == f"{WORK}/moved", "a virtualenv that was moved finds itself", told)

    (folder / "requirements.txt").write_text("two\n")
    # What was interrupted has no stamp, and is not taken.
    second = stage("key", *arguments[1:]).strip()
    (WORK / "store" / second / "bin").mkdir(parents=True)
    (WORK / "store" / second / "pyvenv.cfg").write_text("")
    expect(f"built {second}" in stage(*arguments, "--venv", WORK / "venv"), "what was not finished is made anew")
    gone = run([str(WORK / "venv/bin/python"), "-c", "import two, one"], status=1)
    expect("No module named 'one'" in gone, "a package that is not asked for any more is gone", gone)

    (WORK / "current").symlink_to(WORK / "nowhere")
    stage(*arguments, "--venv", WORK / "current", "--link")
    expect((WORK / "current").resolve() == WORK / "store" / second, "a link to the cache")
    (folder / "requirements.txt").write_text("one\n")
    stage(*arguments, "--venv", WORK / "current", "--link", "--keep", "1")
    kept = sorted(path.parent.name for path in (WORK / "store").glob("*/stage.json"))
    expect(kept == [first], "what is not used is gone", kept)
    expect((WORK / "current").resolve().name == first, "the link is switched")
    # As somebody whom nobody knows, without a home, where nothing else may be written.
    shutil.copy(common.STAGE, WORK / "stage")
    shutil.copytree(folder, WORK / "own/app")
    run(["chown", "-R", f"{common.STRANGER}:0", str(WORK / "own")])
    command = [common.PYTHON, str(WORK / "stage"), "build", str(WORK / "own/app"), "--venv", str(WORK / "own/venv")]
    said = run(common.as_stranger(command, WORK / "own"), environment(), WORK)
    expect("dependencies: built " in said, "nothing but the place of the virtualenv is written", said)

    # A path is one in the application, wherever this runs.
    folder = application("path", {"requirements.txt": "./vendor/one-1-py3-none-any.whl\n"})
    make_wheel(folder / "vendor", "one")
    stage("build", folder, "--cache", WORK / "paths", "--python", common.PYTHON, "--venv", WORK / "by-path")
    expect((WORK / "by-path/bin/one").exists(), "a wheel that the requirements name by its path")

    # A package with a hash needs one that has none.
    folder = WORK / "both"
    make_wheel(folder / "vendor", "one", "Requires-Dist: two\n")
    make_wheel(folder / "local", "two")
    digest = hashlib.sha256((folder / "vendor/one-1-py3-none-any.whl").read_bytes()).hexdigest()
    hashed, local = {"version": "==1", "hashes": [f"sha256:{digest}"]}, {"path": "./local/two-1-py3-none-any.whl"}
    application("both", {"Pipfile.lock": json.dumps({"default": {"one": hashed, "two": local}})})
    stage("build", folder, "--cache", WORK / "paths", "--python", common.PYTHON, "--venv", WORK / "by-lock")
    for name in ("one", "two"):
        expect((WORK / "by-lock/bin" / name).exists(), f"{name} is installed, of a lock with and without hashes")

    said = stage(*arguments, "--venv", WORK / "venv", "--with", "no-such-package", status=1)
    expect("build failed: installing the requirements ended with status 1" in said, "what cannot be installed", said)
    expect((WORK / "venv/bin/two").exists(), "and the virtualenv before it stays")


def kinds() -> None:
    """Each kind of requirements, from an index: a lock with hashes, a project with a list, packages that are built."""
    index = run([common.PYTHON, "-m", "pip", "download", "--no-deps", "--dest", str(WORK / "index"), "bottle==0.13.4"])
    [wheel] = (WORK / "index").glob("bottle-*")
    digest = f"sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}"
    lock = {"default": {"bottle": {"version": "==0.13.4", "hashes": [digest]}}}
    project = '[project]\nname = "shop"\nversion = "1"\n'
    dynamic = project + 'dynamic = ["dependencies"]\n[build-system]\nrequires = ["setuptools"]\n'
    from_file = dynamic + '[tool.setuptools.dynamic]\ndependencies = {file = ["needs.txt"]}\n'
    for name, files in {
        "lock": {"Pipfile.lock": json.dumps(lock)},
        "list": {"pyproject.toml": project + 'dependencies = ["bottle==0.13.4"]\n'},
        "dynamic": {"pyproject.toml": from_file, "needs.txt": "bottle==0.13.4\n", "shop.py": ""},
        "setup": {"setup.py": SETUP, "shop.py": ""},
    }.items():
        said = stage("build", application(name, files), "--venv", WORK / f"{name}-venv", "--python", common.PYTHON)
        expect("dependencies: built" in said, name, said + index)
        told = run([str(WORK / f"{name}-venv/bin/python"), "-c", "import bottle; print(bottle.__version__)"])
        expect(told == "0.13.4\n", f"{name} installs bottle", told)
    lock["default"]["bottle"]["hashes"] = ["sha256:" + "0" * 64]
    said = stage("build", application("lock", {"Pipfile.lock": json.dumps(lock)}), "--python", common.PYTHON, status=1)
    expect("hash" in said.lower(), "what has another hash is not installed", said)


SETUP = "from setuptools import setup\nsetup(name='shop', py_modules=['shop'], install_requires=['bottle==0.13.4'])\n"


def make_wheel(folder: Path, name: str, needs: str = "") -> None:
    """The smallest package with a script; `needs` is a line of its metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-1.dist-info"
    with zipfile.ZipFile(folder / f"{name}-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "import sys\ndef main(): print(sys.prefix)\n")
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n{needs}")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        wheel.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/entry_points.txt,,\n")


def release() -> None:
    """How a release ends: done once, idempotent, refused by a migration or by another release, cut off by TERM."""
    package = {"shop/__init__.py": "", "shop/settings.py": SETTINGS, "shop/migrations/__init__.py": ""}
    first = {"shop/migrations/0001_initial.py": WAITS.format(before="")}
    folder = application("project", {"manage.py": MANAGE, **package, **first})
    arguments = ["release", folder, "--python", sys.executable]
    ours = start(*arguments)
    wait_for("the migration", lambda: "shop.0001_initial" in ours.log)
    theirs = start(*arguments, "--superuser", "admin")
    wait_for("the other release to wait", lambda: "migrations: waiting for another release" in theirs.log)
    (folder / "go").touch()
    expect(ours.child.wait() == 0 and theirs.child.wait() == 0, "both end well", ours.log + theirs.log)
    expect("stage: migrations: applied " in ours.log, "one migrated", ours.log)
    said = theirs.log
    expect("migrations: none to apply" in said, "the other one had nothing to do", said)
    expect(re.search(r"the password of admin, shown this once: \S{20,}", said), "a new password is shown", said)
    again = stage(*arguments, "--superuser", "admin")
    expect("superuser: admin is there" in again and "password" not in again, "once", again)
    (WORK / "password").write_text("from a file\n")
    said = stage(*arguments, DJANGO_SUPERUSER_USERNAME="eve", DJANGO_SUPERUSER_PASSWORD_FILE=str(WORK / "password"))
    expect("superuser: created eve" in said and "from a file" not in said, "a password from a file is not shown", said)

    slow = folder / "shop/migrations/0002_slow.py"
    slow.write_text(WAITS.format(before='("shop", "0001_initial")'))
    (folder / "go").unlink()
    ours = start(*arguments)
    wait_for("the migration", lambda: "0002_slow" in ours.log)
    said = stage(*arguments, "--lock-timeout", "0.5", status=1)
    expect("another release has held the database for 0.5 s" in said, "patience has a bound", said)
    expect(ours.stop(10) == 143, "TERM ends it, as it ends others", ours.log)
    slow.write_text(BROKEN)
    said = stage(*arguments, status=1)
    expect("failed: the release ended with status 1" in said, "a migration that fails refuses the release", said)
    slow.unlink()
    said = stage(*arguments, "--", "echo", "the server")
    expect(said.endswith("stage: migrations: none to apply\nthe server\n"), "the process becomes the command", said)
    users = sqlite3.connect(folder / "db").execute("SELECT username FROM auth_user ORDER BY username").fetchall()
    expect(users == [("admin",), ("eve",)], "the users", users)
    said = stage("release", application("plain", {"wsgi.py": ""}))
    expect(said == "stage: release: nothing to do, this is no Django project\n", "not Django", said)


def start(*arguments: object) -> common.Process:
    command = [sys.executable, str(common.STAGE), *map(str, arguments)]
    return common.Process(command, environment(), WORK, WORK / f"log-{len(common.Process.started)}")


MANAGE = """
import os
os.environ["DJANGO_SETTINGS_MODULE"] = "shop.settings"
if __name__ == "__main__":
    from django.core.management import execute_from_command_line
    execute_from_command_line()
"""
SETTINGS = """
from pathlib import Path
SECRET_KEY = "of the test"
INSTALLED_APPS = ["shop", "django.contrib.auth", "django.contrib.contenttypes"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(__file__).parent.parent / "db"}}
"""
# Until there is a file `go`, or a minute has passed.
WAITS = """
import os, time
from django.db import migrations

def wait(apps, schema_editor):
    end = time.monotonic() + 60
    while not os.path.exists("go") and time.monotonic() < end:
        time.sleep(0.01)

class Migration(migrations.Migration):
    dependencies = [{before}]
    operations = [migrations.RunPython(wait)]
"""
BROKEN = """
from django.db import migrations
class Migration(migrations.Migration):
    dependencies = [("shop", "0001_initial")]
    operations = [migrations.RunSQL("SELECT no_such_column FROM auth_user")]
"""


if __name__ == "__main__":
    common.run_scenario(globals())
