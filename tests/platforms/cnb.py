"""The lifecycle of Cloud Native Buildpacks, by its specification (API 0.12): detect, restore, build, export and launch.

The image and the cache are folders. What is exported is taken from there and nowhere else: the layers and the workspace
of one build are gone before the next, and before a launch.
"""

import hashlib
import json
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import common
from common import WORK, Browser, Process, expect, free_port, plain_environment, run

try:
    import tomllib
except ImportError:  # Python 3.10, whose pip has one.
    from pip._vendor import tomli as tomllib

BUILDPACK = WORK / "buildpack"
LAYERS, WORKSPACE, PLATFORM = WORK / "layers", WORK / "workspace", WORK / "platform"
IMAGE, CACHE = WORK / "image", WORK / "cache"
OWN = LAYERS / "monoceros_monoceros"
STOP_LIMIT = 10


@dataclass
class Build:
    """One run of the lifecycle: what the buildpack said, and what the exporter did with each layer."""

    said: str
    exported: dict[str, str] = field(default_factory=dict)


def build(source: Path, provided: frozenset[str] = frozenset()) -> Build:
    for folder in (LAYERS, WORKSPACE, PLATFORM):
        shutil.rmtree(folder, ignore_errors=True)
    common.copy(source, WORKSPACE)
    OWN.mkdir(parents=True)
    (PLATFORM / "env").mkdir(parents=True)
    plan = detect(provided)
    restore()
    done = Build(run([str(BUILDPACK / "bin/build")], environment(CNB_BP_PLAN_PATH=str(plan)), WORKSPACE))
    export(done)
    print(done.said, json.dumps(done.exported, indent=1), flush=True)
    return done


def environment(**more: str) -> dict[str, str]:
    return plain_environment(
        CNB_BUILDPACK_DIR=str(BUILDPACK), CNB_LAYERS_DIR=str(OWN), CNB_PLATFORM_DIR=str(PLATFORM),
        CNB_TARGET_OS="linux", CNB_TARGET_ARCH="amd64", MONOCEROS_PYTHON=common.PYTHON, HOME="/nonexistent", **more,
    )  # fmt: skip


def detect(provided: frozenset[str]) -> Path:
    """Runs the detection and resolves the plan: the first of its alternatives whose requirements are all provided."""
    path = WORK / "plan.toml"
    run([str(BUILDPACK / "bin/detect")], environment(CNB_BUILD_PLAN_PATH=str(path)), WORKSPACE)
    plan = tomllib.loads(path.read_text())
    for alternative in (plan, *plan.get("or", [])):
        there = provided | {one["name"] for one in alternative.get("provides", [])}
        if all(one["name"] in there for one in alternative.get("requires", [])):
            entries = [one for one in alternative.get("requires", []) if one["name"] == "monoceros"]
            path.write_text("".join(f'[[entries]]\nname = "{one["name"]}"\n' for one in entries))
            return path
    raise common.Failure(f"no alternative of the plan can be met: {plan}")


def restore() -> None:
    """Layers of the build before: those that are cached with what they hold, those for the launch by their metadata."""
    for layer in sorted({path.stem for folder in (IMAGE, CACHE) for path in folder.glob("*.toml")}):
        table = next(path for path in (CACHE / f"{layer}.toml", IMAGE / f"{layer}.toml") if path.exists())
        if layer in ("launch", "build", "store"):
            continue
        # What a layer is for is for the build to say again.
        (OWN / f"{layer}.toml").write_text(re.sub(r"(?ms)^\[types\].*?(?=^\[|\Z)", "", table.read_text()))
        if (CACHE / layer).exists():
            shutil.copytree(CACHE / layer, OWN / layer, symlinks=True)


def export(done: Build) -> None:
    """Layers for the launch go into the image. One that is as it was in the image before is reused."""
    before = {path.name: digest(path) for path in IMAGE.glob("*") if path.is_dir()}
    shutil.rmtree(CACHE, ignore_errors=True)
    previous = IMAGE.rename(WORK / "previous-image") if IMAGE.exists() else None
    IMAGE.mkdir()
    CACHE.mkdir()
    for table in sorted(OWN.glob("*.toml")):
        types = tomllib.loads(table.read_text()).get("types", {})
        layer = OWN / table.stem
        if types.get("launch"):
            if not layer.exists():
                shutil.copytree(previous / layer.name, IMAGE / layer.name, symlinks=True)
            else:
                shutil.copytree(layer, IMAGE / layer.name, symlinks=True)
            is_known = before.get(layer.name) == digest(IMAGE / layer.name)
            done.exported[layer.name] = "reused" if is_known else "added"
            shutil.copy(table, IMAGE)
        if types.get("cache"):
            shutil.copytree(layer, CACHE / layer.name, symlinks=True)
            shutil.copy(table, CACHE)
    shutil.copy(OWN / "launch.toml", IMAGE)
    shutil.copytree(WORKSPACE, IMAGE / "workspace", symlinks=True)
    if previous:
        shutil.rmtree(previous)


def digest(layer: Path) -> str:
    """The name of what a layer holds, without its times, which the exporter makes all the same."""
    total = hashlib.sha256()
    for parent, folders, names in sorted(os.walk(layer)):
        for name in sorted(names + [one for one in folders if Path(parent, one).is_symlink()]):
            path = Path(parent, name)
            content = os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            total.update(f"{path.relative_to(layer)} {len(content)}\n".encode() + content)
    return total.hexdigest()


def launch(writable: Path, **env: str) -> "Container":
    """The launcher: variables of the layers, exec.d, and the process in its place, with pid 1.

    It is a user's whom nobody knows, without a home, and nothing but `writable` can be written.
    """
    for folder in (LAYERS, WORKSPACE):
        shutil.rmtree(folder)
    for layer in IMAGE.iterdir():
        if layer.is_dir() and layer.name != "workspace":
            shutil.copytree(layer, OWN / layer.name, symlinks=True)
    shutil.copytree(IMAGE / "workspace", WORKSPACE, symlinks=True)
    port = free_port()
    env = plain_environment(PORT=str(port), HOME="/nonexistent", TMPDIR=str(writable), **env)
    for layer in sorted(OWN.iterdir()):
        add_variables(env, layer)
    for program in sorted(OWN.glob("*/exec.d/*")):
        env.update(run_exec_d(program, env))
    process = tomllib.loads((IMAGE / "launch.toml").read_text())["processes"][0]
    expect(process["type"] == "web" and process["default"], "web is the default process", process)
    inside = ["sh", "-c", f'cd {WORKSPACE} && exec "$@"', "sh", *process["command"], *process["args"]]
    command = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", *common.as_stranger(inside, writable)]
    return Container(Process(command, env, WORKSPACE, WORK / "log"), port, env)


def add_variables(env: dict[str, str], layer: Path) -> None:
    """bin and lib of a layer, and its variables, each by the ending of its file."""
    for folder, name in {"bin": "PATH", "lib": "LD_LIBRARY_PATH"}.items():
        if (layer / folder).is_dir():
            env[name] = f"{layer / folder}{':' + env[name] if env.get(name) else ''}"
    for file in sorted([*layer.glob("env/*"), *layer.glob("env.launch/*")]):
        name, ending, value = file.stem, file.suffix, file.read_text()
        delimiter = file.with_suffix(".delim")
        between = delimiter.read_text() if delimiter.exists() else ""
        if ending in ("", ".override"):
            env[name] = value
        elif ending == ".default":
            env.setdefault(name, value)
        elif ending == ".append":
            env[name] = env[name] + between + value if env.get(name) else value
        elif ending == ".prepend":
            env[name] = value + between + env[name] if env.get(name) else value


def run_exec_d(program: Path, env: dict[str, str]) -> dict[str, str]:
    """A program that hands variables over, as TOML on descriptor 3."""
    said = run(["bash", "-c", '"$0" 3>"$1"', str(program), str(WORK / "exec.d.toml")], env, WORKSPACE)
    expect(not said, "exec.d says nothing where it is logged", said)
    return {name: str(value) for name, value in tomllib.loads((WORK / "exec.d.toml").read_text()).items()}


@dataclass
class Container:
    process: Process
    port: int
    env: dict[str, str]

    def serve(self) -> Browser:
        common.wait_for("the container to serve", lambda: common.can_connect(self.port) or self.process.is_over)
        expect(not self.process.is_over, "it runs", self.process.log)
        return Browser(self.port)

    def stop(self) -> None:
        """TERM to the process with pid 1, as a container's engine sends it."""
        [first] = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        os.kill(int(first), 15)
        status = self.process.child.wait(STOP_LIMIT)
        expect(status == 0, f"it ends with 0, and not {status}", self.process.log)


# -- Scenarios --------------------------------------------------------------------------------------------------------


def two_builds() -> None:
    """A build, another one without the network, which reuses the layers, and a launch with pid 1."""
    source = WORK / "source"
    source.mkdir()
    (source / "requirements.txt").write_text("bottle==0.13.4\n")
    (source / "app.py").write_text(APP)
    first = build(source)
    expect(first.exported == {"server": "added", "venv": "added"}, "layers are added", first.exported)

    common.cut_the_network()
    (source / "app.py").write_text(APP.replace("first", "second"))
    second = build(source)
    expect("dependencies: reused" in second.said, "nothing is installed again", second.said)
    expect(second.exported == {"server": "reused", "venv": "reused"}, "layers are reused", second.exported)

    bindings = WORK / "bindings/orders-db"
    bindings.mkdir(parents=True)
    values = {"type": "postgresql", "host": "db.example.org", "port": "5432", "username": "me", "password": "p@:/%'"}
    for name, value in {**values, "database": "orders"}.items():
        (bindings / name).write_text(value + "\n")
    container = launch(WORK / "tmp", SERVICE_BINDING_ROOT=str(bindings.parent), MEMORY_LIMIT="512M")
    told = json.loads(container.serve().get("/"))
    expect(told["build"] == "second", "the new code serves", told)
    expect(told["master"] == 1, "the server has pid 1", told)
    url = "postgresql://me:p%40%3A%2F%25%27@db.example.org:5432/orders"
    expect(told["url"] == url, "exec.d hands the database over", told)
    expect(told["workers"] == "2", "and two workers for 512 MB", told)
    expect("p@:" not in container.process.log + first.said, "no password is logged")
    container.stop()


APP = """
import json, os
import bottle

app = bottle.Bottle()

@app.get("/")
def tell():
    url, workers = map(os.environ.get, ("DATABASE_URL", "WEB_CONCURRENCY"))
    return json.dumps({"build": "first", "master": os.getppid(), "url": url, "workers": workers})
"""


def guestbook() -> None:
    """A Django project: collectstatic in the build, the release before the server."""
    done = build(common.example("guestbook"), frozenset({"cpython"}))
    expect("static files copied" in done.said, "collectstatic ran", done.said)
    volume = WORK / "volume"
    volume.mkdir()
    os.chown(volume, common.STRANGER, 0)
    login = {"DJANGO_SUPERUSER_USERNAME": "admin", "DJANGO_SUPERUSER_PASSWORD": "s3cret"}
    container = launch(volume, DATABASE_URL=f"sqlite:///{volume}/db.sqlite3", **login)
    browser = container.serve()
    common.log_in(browser, "admin", "s3cret")
    browser.post("/", author="Ada", text="It works")
    expect("It works" in browser.get("/"), "it writes to the database")
    container.stop()


def nothing_to_serve() -> None:
    """A folder in which there is no application: the buildpack says 100, and another one has its turn."""
    (WORK / "source").mkdir()
    (WORK / "source/package.json").write_text("{}")
    common.copy(WORK / "source", WORKSPACE)
    run([str(BUILDPACK / "bin/detect")], environment(CNB_BUILD_PLAN_PATH="/dev/null"), WORKSPACE, status=100)


if __name__ == "__main__":
    run([str(common.ROOT / "conf/buildpack-cnb/package"), str(BUILDPACK), common.WHEEL])
    common.run_scenario(globals())
