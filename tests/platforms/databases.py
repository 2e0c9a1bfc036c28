"""The guest book on Cloud Foundry with real databases: Debian's PostgreSQL and MariaDB, which end with the test."""

import os
import re
import shutil
from pathlib import Path

import common
from cloud_foundry import Application, live
from common import WORK, Process, expect, free_port, plain_environment, run, wait_for

# Everything that a URL, a shell or an SQL string could stumble over.
PASSWORD = "p@:/%'"
VCAP_SETTINGS = Path(__file__).with_name("vcap_settings.txt")


def postgresql() -> None:
    """The whole life on PostgreSQL, with an advisory lock between two instances. By a socket: the test goes offline."""
    folder = start_postgresql()
    credentials = {"host": str(folder), "database": "shop", "username": "shop", "password": PASSWORD}
    live("", {"postgresql": [{"name": "guestbook-db", "label": "postgresql", "tags": [], "credentials": credentials}]})


def mariadb() -> None:
    """The settings that Cloud Foundry's documentation gave in 2012, as they stand there; then what took their place."""
    port = start_mariadb()
    source = common.example("guestbook")
    settings = source / "guestbook/settings.py"
    todays = settings.read_text()
    snippet = re.sub(r"^DATABASES = .*$", lambda line: VCAP_SETTINGS.read_text(), todays, flags=re.MULTILINE)
    expect(VCAP_SETTINGS.read_text() in snippet, "it is in the settings")
    settings.write_text(snippet)
    login = {"user": "shop", "username": "shop", "password": PASSWORD, "name": "shop"}
    place = {"hostname": "127.0.0.1", "host": "127.0.0.1", "port": port}
    application = Application("guestbook", health="/health", memory="512M")
    application.env.update(DJANGO_SUPERUSER_USERNAME="admin", DJANGO_SUPERUSER_PASSWORD="s3cret")
    application.services = {"mysql-5.1": [{"name": "db", "label": "mysql-5.1", "credentials": {**login, **place}}]}
    application.push(source, instances=2)
    applied = [instance.process.log.count("Applying guestbook.0001_initial") for instance in application.instances]
    expect(sorted(applied) == [0, 1], "of two instances that start at once one migrates", applied)
    browser = application.instances[0].browser()
    common.log_in(browser, "admin", "s3cret")
    browser.post("/admin/guestbook/entry/add/", author="Ada", text="Found by hand")

    # The same application without a line that parses anything: by the URL that the launcher derives, and by files.
    settings.write_text(todays)
    uri = f"mysql://shop:{PASSWORD.replace('%', '%25')}@127.0.0.1:{port}/shop?reconnect=true"
    application.services = {"p.mysql": [{"name": "db", "label": "p.mysql", "credentials": {"uri": uri}}]}
    serves_the_entry(application, source)
    application.services = {}
    binding = WORK / "bindings/db"
    binding.mkdir(parents=True)
    for name, value in {"type": "mysql", "host": "127.0.0.1", "port": str(port), "database": "shop", **login}.items():
        if name not in ("name", "user"):
            (binding / name).write_text(value)
    application.env["SERVICE_BINDING_ROOT"] = str(binding.parent)
    serves_the_entry(application, source)
    application.stop()


def serves_the_entry(application: Application, source: Path) -> None:
    application.push(source)
    [instance] = application.instances
    expect("migrations: none to apply" in instance.process.log, "it is the same database", instance.process.log)
    expect("Found by hand" in instance.browser().get("/"), "it has the same entries")
    expect(PASSWORD not in instance.process.log, "no password is logged")


def start_postgresql() -> Path:
    """A server with the database and the user shop; the folder of its socket."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not programs:
        raise common.Failure("there is no PostgreSQL here: apt-get install postgresql")
    folder = WORK / "postgresql"
    folder.mkdir()
    shutil.chown(folder, "postgres", "postgres")
    as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
    data, environment = folder / "data", plain_environment(LANG="C.UTF-8")
    initdb = ["--pgdata", str(data), "--auth-local", "peer", "--username", "postgres", "--no-sync"]
    run([*as_user, str(programs[-1]), *initdb], environment)
    (data / "pg_hba.conf").write_text("local all postgres peer\nlocal all all scram-sha-256\n")
    server = [str(programs[-1].with_name("postgres")), "-D", str(data), "-k", str(folder), "-c", "listen_addresses="]
    process = Process([*as_user, *server, "-c", "fsync=off"], environment, folder, folder / "log")
    psql = [*as_user, "psql", "-h", str(folder), "-v", "ON_ERROR_STOP=1"]
    wait_for("PostgreSQL", lambda: "ready to accept connections" in process.log)
    quoted = PASSWORD.replace("'", "''")
    for command in (f"CREATE ROLE shop LOGIN PASSWORD '{quoted}'", "CREATE DATABASE shop OWNER shop"):
        run([*psql, "-c", command, "postgres"], environment)
    return folder


def start_mariadb() -> int:
    """A server with the database and the user shop; its port."""
    server = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    if not server:
        raise common.Failure("there is no MariaDB here: apt-get install mariadb-server")
    folder = WORK / "mariadb"
    folder.mkdir()
    data, port, environment = folder / "data", free_port(), plain_environment(LANG="C.UTF-8")
    run(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--user=mysql", "--skip-test-db"], environment)
    shutil.chown(folder, "mysql", "mysql")
    options = [f"--datadir={data}", "--user=mysql", f"--socket={folder}/socket", f"--port={port}"]
    command = [server, "--no-defaults", *options, "--bind-address=127.0.0.1"]
    process = Process(command, environment, folder, WORK / "mariadb.log")
    wait_for("MariaDB", lambda: "ready for connections" in process.log)
    quoted = PASSWORD.replace("'", "''")
    user = f"shop@'127.0.0.1' IDENTIFIED BY '{quoted}'"
    statements = f"CREATE DATABASE shop CHARACTER SET utf8mb4; GRANT ALL ON shop.* TO {user}"
    run(["mariadb", "--no-defaults", f"--socket={folder}/socket", "-e", statements], environment)
    return port


if __name__ == "__main__":
    common.run_scenario(globals())
