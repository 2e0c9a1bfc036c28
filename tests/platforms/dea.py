"""The execution agent of Cloud Foundry's first years.

It runs startup with an empty environment, as a user of its own, within the limits of that time; takes a connection that
succeeds for readiness; and ends the application by stop, which knows SIGKILL only.
"""

import os
import shutil
import time
from pathlib import Path

import common
from common import STRANGER, WORK, Browser, Process, expect, free_port, plain_environment, run

DROPLET = WORK / "droplet"
# Each try 0.25 s, every 0.5 s, 120 times: 60 s.
TRIES, TRY_INTERVAL = 120, 0.5
# How soon after a SIGKILL the port can be bound again.
REBIND_LIMIT = 5
# Address space and files, in ulimit's units, and processes.
LIMITS = "umask 077; ulimit -v 3000000; ulimit -n 1024; ulimit -u 512"


def lay_out(source: Path) -> str:
    """Stages the application into a droplet of the old form, which belongs to the agent's user."""
    command = [str(common.STAGE), "2012", str(source), "--droplet", str(DROPLET), "--python", common.PYTHON]
    said = run([common.PYTHON, *command, "--with", common.WHEEL], plain_environment(HOME="/nonexistent"))
    entries = sorted(path.name for path in DROPLET.iterdir())
    wanted = ["app", "gunicorn.config", "logs", "python", "stage", "startup", "stop", "tmp"]
    expect(entries == wanted, "the form of the droplet", entries)
    for name in ("startup", "stop"):
        mode = (DROPLET / name).stat().st_mode & 0o777
        expect(mode == 0o500, f"the mode of {name}", oct(mode))
    run(["chown", "-R", f"{STRANGER}:0", str(DROPLET)])
    return said


def start(**variables: str) -> tuple[Process, Browser]:
    """Runs startup and waits for a connection."""
    port = free_port()
    known = {"HOME": str(DROPLET), "VCAP_APP_HOST": "0.0.0.0", "VCAP_APP_PORT": str(port), **variables}
    words = [f"{name}={value}" for name, value in known.items()]
    command = ["env", "-i", *words, "bash", "-c", f"{LIMITS}; exec ./startup"]
    through = common.as_stranger(["sh", "-c", f'cd {DROPLET} && exec "$@"', "sh", *command], DROPLET)
    process = Process(through, plain_environment(), WORK, WORK / "agent.log")
    for _ in range(TRIES):
        if common.can_connect(port):
            return process, Browser(port)
        expect(not process.is_over, "startup runs", process.log + logs())
        time.sleep(TRY_INTERVAL)
    raise common.Failure(f"no connection:\n{logs()}")


def stop(browser: Browser) -> None:
    """Kills the server and its parent; nothing of them must stay, and their port must be free."""
    pid = (DROPLET / "run.pid").read_text().split()[-1]
    family = [pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    run([str(DROPLET / "stop"), pid])
    end = time.monotonic() + REBIND_LIMIT
    port = int(browser.base.rsplit(":", 1)[1])
    common.wait_for("the workers' end", lambda: not any(is_alive(one) for one in family), REBIND_LIMIT)
    expect(not common.can_connect(port) and time.monotonic() < end, "nobody listens any more")


def is_alive(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def logs() -> str:
    return "".join(f"{path.name}:\n{path.read_text()}" for path in sorted((DROPLET / "logs").glob("*.log")))


# -- Scenarios --------------------------------------------------------------------------------------------------------


def hello_from_vcap() -> None:
    """The sample of that time: started, killed, and started again where it was."""
    source = WORK / "source"
    source.mkdir()
    (source / "wsgi.py").write_text(SAMPLE)
    lay_out(source)
    for _ in range(2):
        process, browser = start()
        expect(browser.get("/") == "Hello from VCAP", "it answers")
        expect("Listening at: http://0.0.0.0:" in logs(), "it logs to logs/", logs())
        stop(browser)
        common.wait_for("the end of startup", lambda process=process: process.is_over)


SAMPLE = """
def application(environ, start_response):
    body = b"Hello from VCAP"
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return iter([body])
"""


def guestbook() -> None:
    """A Django project: what was syncdb is a release, at each start, and the second one has nothing to do."""
    said = lay_out(common.example("guestbook"))
    expect("static files copied" in said, "collectstatic ran in staging", said)
    login = {"DJANGO_SUPERUSER_USERNAME": "admin", "DJANGO_SUPERUSER_PASSWORD": "s3cret"}
    for round in range(2):
        process, browser = start(**login, DATABASE_URL=f"sqlite:///{DROPLET}/db.sqlite3")
        wanted = "migrations: none to apply" if round else "superuser: created admin"
        expect(wanted in logs(), wanted, logs())
        common.log_in(browser, "admin", "s3cret")
        browser.post("/", author="Ada", text=f"round {round}")
        stop(browser)
        common.wait_for("the end of startup", lambda process=process: process.is_over)
        shutil.rmtree(DROPLET / "logs")
        (DROPLET / "logs").mkdir()
        os.chown(DROPLET / "logs", STRANGER, 0)


if __name__ == "__main__":
    common.run_scenario(globals())
