"""monoceros_env over the credentials of every platform, in the shapes that providers give them."""

import json
import os
import sys
from unittest import mock
from urllib.parse import unquote, urlsplit

import common
from common import WORK, expect, plain_environment, run

sys.path.insert(0, str(common.ROOT / "python"))
import monoceros_env
from monoceros_env import _sizing

PASSWORDS = ["simple", "a@b", "a:b", "a/b", "100%", "it's", "p%41", "a?b#c", "ü @:/%'\""]


def shapes() -> None:
    """URLs, single values and both, with every awkward password: one URL comes of each, and Django's settings agree."""
    for password in PASSWORDS:
        login = {"username": "me", "password": password}
        for credentials in (
            {"hostname": "db", "port": 3306, "name": "shop", "user": "me", "password": password},
            {"host": "db", "port": "3306", "database": "shop", **login},
            {"uri": f"mysql2://me:{password}@db:3306/shop?reconnect=true", **login},
            {"uri": "mysql://me:not-quoted@db:3306/shop", "jdbcUrl": "jdbc:mysql://db:3306/shop", **login},
        ):
            url = monoceros_env.database_url(environ=vcap("mysql-5.1", "shop-db", credentials))
            parts = urlsplit(url)
            told = (parts.scheme, parts.username, unquote(parts.password or ""), parts.hostname, parts.port, parts.path)
            expect(told == ("mysql", "me", password, "db", 3306, "/shop"), f"the parts of {credentials}", told)
            settings = monoceros_env.database(environ={"DATABASE_URL": url}, CONN_MAX_AGE=60)
            wanted = {"NAME": "shop", "USER": "me", "PASSWORD": password, "HOST": "db", "PORT": "3306", "OPTIONS": {}}
            engine = {"ENGINE": "django.db.backends.mysql", "CONN_MAX_AGE": 60}
            expect(settings == {**engine, **wanted}, f"Django's settings for {url}", settings)
    # A password that nobody has quoted, and a URL is all there is.
    for uri, password in {"postgres://me:a/b@c@db/shop": "a/b@c", "postgres://me:a%40b@db/shop": "a@b"}.items():
        settings = monoceros_env.database(environ=vcap("elephantsql", "x", {"uri": uri}))
        expect((settings["PASSWORD"], settings["HOST"]) == (password, "db"), uri, settings)


def vcap(label: str, name: str, credentials: dict[str, object], **more: object) -> dict[str, str]:
    return {"VCAP_SERVICES": json.dumps({label: [{"name": name, "label": label, "credentials": credentials, **more}]})}


def places() -> None:
    """Each platform's place; what is set stays; a service is chosen by its name, its label, a tag or its kind."""
    url = "mysql://me:s3cret@db:3306/shop"
    services = vcap("p.mysql", "shop-db", {"uri": url}, tags=["primary"])
    file = WORK / "vcap.json"
    file.write_text(services["VCAP_SERVICES"])
    folder = WORK / "bindings/shop-db"
    (folder / "..data").mkdir(parents=True)
    values = {"type": "mysql", "host": "db", "port": "3306", "username": "me", "password": "s3cret", "database": "shop"}
    for name, value in values.items():
        (folder / name).write_text(value + "\n")
    # A key store is no text.
    (folder / "user.p12").write_bytes(b"0\x82\x01\xff")
    openshift = {"HOST": "db", "PORT": "3306", "USERNAME": "me", "PASSWORD": "s3cret", "URL": "mysql://me:s3cret@db:3306/"}
    gear = {f"OPENSHIFT_MYSQL_DB_{name}": value for name, value in openshift.items()}
    for environ in (
        services,
        {"VCAP_SERVICES_FILE_PATH": str(file)},
        {"SERVICE_BINDING_ROOT": str(folder.parent)},
        {**gear, "OPENSHIFT_APP_NAME": "shop"},
        {"DATABASE_URL": url.replace("mysql", "mysql2")},
        {**services, "DATABASE_URL": "sqlite:///x", "MONOCEROS_DATABASE": "shop-db"},
    ):
        expect(monoceros_env.database_url(environ=environ) == url, f"one URL from {list(environ)}")
    for wanted in ("shop-db", "p.mysql", "primary", "mysql"):
        expect(monoceros_env.database_url(wanted, services) == url, f"found by {wanted}")
    environ = {**services, "SHOP_DB_URL": "mine", "WEB_CONCURRENCY": "7"}
    monoceros_env.apply(environ)
    told = [environ[name] for name in ("DATABASE_URL", "SHOP_DB_URL", "WEB_CONCURRENCY")]
    expect(told == [url, "mine", "7"], "what is set stays", told)
    expect(monoceros_env.database_url(environ={}) == "", "there may be none")
    default = monoceros_env.database(default="sqlite:////srv/db", environ={})
    expect(default == {"ENGINE": "django.db.backends.sqlite3", "NAME": "/srv/db"}, "a default", default)


def secrets() -> None:
    """No representation, error, list or terminal gets to see a password."""
    services = vcap("p.mysql", "shop-db", {"uri": "mysql://me:s3cret@db/shop", "api_key": "s3cret"})
    environ = plain_environment(**services, PYTHONPATH=str(common.ROOT / "python"), MEMORY_LIMIT="512M")
    binding = monoceros_env.bindings(services)[0]
    expect("s3cret" not in f"{binding!r} {binding.location!r} {monoceros_env.bindings(services)}", "representations")
    said = command([], environ)
    shown = "shop-db; label p.mysql; mysql://db/shop; sets DATABASE_URL, SHOP_DB_URL"
    expect(shown in said and "s3cret" not in said, shown, said)
    # The command becomes another one, as env(1) does.
    told = command(["sh", "-c", 'echo "$DATABASE_URL $WEB_CONCURRENCY"'], environ)
    expect(told == "mysql://me:s3cret@db/shop 2\n", "the command has the variables", told)
    expect("there is no command" in command(["no-such-command"], environ, 127), "as env(1) ends")
    for descriptor in ("1", "2", "x"):
        expect("is no file descriptor" in command(["--sh", descriptor], environ, 1), f"refuses {descriptor}")
    shell = f'eval "$({sys.executable} -m monoceros_env --sh 3 3>&1 >&2)"; echo "$SHOP_DB_URL"'
    expect(run(["bash", "-c", shell], environ) == "mysql://me:s3cret@db/shop\n", "a shell takes it from a descriptor")
    said = command([], {**environ, "VCAP_SERVICES": '{"x": [{"credentials": "s3cret"'}, 1)
    expect("s3cret" not in said and said.count("\n") == 1, "a sentence for what is no JSON", said)
    (WORK / "large.json").write_text("s3cret" * 200_000)
    said = command([], {**environ, "VCAP_SERVICES_FILE_PATH": str(WORK / "large.json")}, 1)
    expect("is no credential" in said and "s3cret" not in said, "a sentence for a file that is too large", said)
    said = command([], {**environ, "MONOCEROS_DATABASE": "other"}, 1)
    expect("bound are: shop-db" in said and "s3cret" not in said, "a sentence for what is not bound", said)


def command(arguments: list[str], environ: dict[str, str], status: int = 0) -> str:
    return run([sys.executable, "-m", "monoceros_env", *arguments], environ, status=status)


def sizing() -> None:
    """Heroku's table, by both versions of the cgroups, and the variables of the platforms."""
    table = [(0.5, 8, 2), (1, 8, 4), (2.5, 2, 5), (14, 8, 17), (30, 4, 9), (128, 16, 33), (0.0625, 1, 1)]
    two, one = "proc/self/cgroup=0::/app", "proc/self/cgroup=5:memory:/app\n4:cpu,cpuacct:/app\n0::/"
    for gibibytes, cores, workers in table:
        mebibytes = int(gibibytes * 1024)
        with mock.patch.object(os, "sched_getaffinity", lambda pid, cores=cores: range(cores)):
            for membership, file in ((two, "app/memory.max"), (one, "memory/app/memory.limit_in_bytes")):
                told = size_in(membership, f"sys/fs/cgroup/{file}={mebibytes << 20}")
                expect(told == workers, f"{workers} workers for {mebibytes} MiB and {cores} cores", told)
            machine = size_in(f"proc/meminfo=MemTotal:  {mebibytes << 10} kB\nMemFree: 1 kB")
            expect(machine == workers, "the machine's memory counts", machine)
            for environ in ({"MEMORY_LIMIT": f"{mebibytes}M"}, {"OPENSHIFT_GEAR_MEMORY_MB": str(mebibytes)}):
                expect(_sizing.web_concurrency(environ, "/nowhere") == workers, f"{workers} workers for {environ}")
            no_limit = size_in(one, f"sys/fs/cgroup/memory/app/memory.limit_in_bytes={(1 << 63) - 4096}")
            for unlimited in (no_limit, size_in()):
                expect(unlimited == 2 * cores + 1, "without a limit the processors decide", unlimited)
            half = size_in(two, "sys/fs/cgroup/cpu.max=50000 100000", "sys/fs/cgroup/app/cpu.max=max 100000")
            expect(half == 3, "half a processor is one", half)
            old = size_in(one, "sys/fs/cgroup/cpu/cpu.cfs_quota_us=50000", "sys/fs/cgroup/cpu/cpu.cfs_period_us=100000")
            expect(old == 3, "half a processor is one in version 1", old)
    for said, workers in (("3", 7), ("1.5", 5), ("2500m", 7), ("0.1", 3)):
        told = _sizing.web_concurrency({"MONOCEROS_CPUS": said}, "/nowhere")
        expect(told == workers, f"MONOCEROS_CPUS={said}", told)


def size_in(*files: str) -> int:
    """What is made of a root with these files of the kernel's, each NAME=CONTENT."""
    root = WORK / f"root-{len(list(WORK.iterdir()))}"
    root.mkdir()
    for file in files:
        name, _, content = file.partition("=")
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content + "\n")
    return _sizing.web_concurrency({}, str(root))


if __name__ == "__main__":
    common.run_scenario(globals())
