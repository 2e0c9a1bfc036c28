"""The cartridge in a gear: every verb of every lifecycle, and the acceptance list of the platform's own cartridge.

Started by tests/gear.rs, one test a process. CARTRIDGE is the cartridge as scripts/cartridge puts it together,
GEAR_PATH the PATH of the node, GEAR_VERSION the version of Python, GEAR_CACHE where virtualenvs stay from one test to
the next.
"""

import base64
import contextlib
import ctypes
import hashlib
import os
import shutil
import signal
import subprocess
import tempfile
import textwrap
import threading
import time
import unittest
import zipfile
from pathlib import Path

import manifest
from gear import ActionFailed, Flow, Gear, get
from load import Load, wait_until

CARTRIDGE = Path(os.environ["CARTRIDGE"])

APP = """
import os, time

def application(environ, start_response):
    path = environ["PATH_INFO"]
    body = "v{}"
    if path == "/slow":
        time.sleep(float(environ["QUERY_STRING"]))
    elif path == "/environ":
        body = os.environ.get(environ["QUERY_STRING"], "(none)")
    elif path == "/scheme":
        body = environ["wsgi.url_scheme"]
    elif path == "/import":
        try:
            body = __import__(environ["QUERY_STRING"]).NAME
        except ImportError as error:
            body = str(error)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body.encode()]
"""


def version(number: int, app: str = APP) -> str:
    return app.replace("v{}", f"v{number}")


class GearTest(unittest.TestCase):
    flow = Flow.LINKS

    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="monoceros-test-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)

    def gear(self, *, memory_mb: int = 512, is_seeded: bool = True) -> Gear:
        """A gear that serves its template. Those virtualenvs that earlier tests have made lie in its cache."""
        made = Path(os.environ["GEAR_CACHE"])
        gear = Gear(
            self.root,
            CARTRIDGE,
            path=os.environ["GEAR_PATH"],
            flow=self.flow,
            version=os.environ["GEAR_VERSION"],
            memory_mb=memory_mb,
        )
        self.addCleanup(self.end, gear)
        gear.configure(made if is_seeded and made.exists() else None)
        if not made.exists():
            new = made.with_name(f"{made.name}.{os.getpid()}")
            with contextlib.suppress(OSError):
                shutil.copytree(gear.directory / "virtenv/cache", new, symlinks=True)
                new.rename(made)
            shutil.rmtree(new, ignore_errors=True)
        return gear

    def end(self, gear: Gear) -> None:
        """Whatever has become of the test, nothing of the gear lives on."""
        for pid in processes_of(gear.home):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def expect(self, gear: Gear, body: str, path: str = "/") -> None:
        log = (gear.directory / "logs/python.log").read_text()[-3000:]
        self.assertEqual(gear.get(path), (200, body), log)

    def expect_refused(self, address: tuple[str, int]) -> None:
        with self.assertRaises(ConnectionRefusedError):
            get(address)

    def master(self, gear: Gear) -> int:
        return int((gear.directory / "run/monoceros.pid").read_text())


class Acceptance(GearTest):
    """What the platform's authors asked of their Python cartridge, and more of each."""

    def test_from_creation_to_removal(self) -> None:
        gear = self.gear(is_seeded=False)
        self.expect(gear, "Hello from monoceros\n")
        self.expect(gear, "1", "/health")
        build = ["stop", "pre-repo-archive", "update-configuration", "pre-build", "build"]
        activation = ["update-configuration", "deploy", "start", "post-deploy"]
        self.assertEqual(gear.calls, ["setup", "install", *build, *activation, "restart", "post_install"])
        variables = gear.environment()
        self.assertTrue(variables["OPENSHIFT_PYTHON_IP"].startswith("127."))
        self.assertEqual(variables["OPENSHIFT_PYTHON_PORT"], "8080")
        self.assertEqual(variables["OPENSHIFT_PYTHON_VERSION"], gear.manifest.version)
        # The name by which the user's shell finds the application's Python.
        self.assertTrue(variables["PATH"].startswith(f"{gear.directory}/releases/current/virtenv/bin:"))

        gear.push({"wsgi.py": version(1)})
        self.expect(gear, "v1")
        self.expect(gear, "https", "/scheme")
        gear.control("restart")
        self.expect(gear, "v1")

        gear.push({"wsgi.py": None, "wsgi/application": version(2), "wsgi/static/a.css": "p {}"})
        self.expect(gear, "v2")
        self.expect(gear, "p {}", "/static/a.css")
        for path in ("/static/../application", "/static/%2e%2e/application", "/static/.a", "/static/nothing"):
            self.expect(gear, "v2", path)

        named = "OPENSHIFT_PYTHON_WSGI_APPLICATION"
        gear.set_variables({named: "some/other/dir/wsgi.py"}, ".env/user_vars")
        gear.push({"wsgi/application": None, "some/other/dir/wsgi.py": version(3)})
        self.expect(gear, "v3")
        gear.set_variables({named: f"{variables['OPENSHIFT_REPO_DIR']}some/other/dir/wsgi.py"}, ".env/user_vars")
        gear.push({"some/other/dir/wsgi.py": version(4)})
        self.expect(gear, "v4")
        (gear.home / ".env/user_vars" / named).unlink()
        gear.push({"some/other/dir/wsgi.py": None, "app.py": version(5)})
        self.expect(gear, "v5")

        address = gear.address
        self.assertGreaterEqual(len(processes_of(gear.home)), 3)
        gear.destroy()
        self.expect_refused(address)
        wait_until("every process of the gear to end", lambda: not processes_of(gear.home))

    def test_verbs_say_the_truth_by_their_status(self) -> None:
        gear = self.gear()
        self.assertIn("CLIENT_RESULT: Application is running", gear.control("status"))
        master = self.master(gear)
        self.assertIn("running already", gear.control("start"))
        self.assertEqual(self.master(gear), master)
        known = ("reload", "restart", "resize", "tidy", "update-configuration", "pre-build", "post-receive")
        for verb in (*known, "pre-snapshot", "update-cluster", "no-such-verb"):
            gear.control(verb)
            self.assertEqual(self.master(gear), master, f"{verb} keeps the master")
        self.assertIn("threaddump", gear.manifest.actions)
        self.assertIn("Current thread", gear.control("threaddump"))

        gear.control("stop")
        self.expect_refused(gear.address)
        gear.control("stop")
        for verb in ("status", "threaddump"):
            with self.assertRaises(ActionFailed) as failed:
                gear.control(verb)
            self.assertEqual(failed.exception.status, 1, verb)
        # A reload of what does not run is a start, and so is a restart.
        gear.control("reload")
        self.expect(gear, "Hello from monoceros\n")

        # What has hung is killed in time, and the verb says so.
        os.kill(self.master(gear), signal.SIGSTOP)
        start = time.monotonic()
        self.assertIn("was killed", gear.control("stop"))
        self.assertLess(time.monotonic() - start, 14)
        self.expect_refused(gear.address)

        # Whoever holds the pid of the file now is not the server.
        (gear.directory / "run/monoceros.pid").write_text(str(os.getpid()))
        gear.control("stop")
        gear.control("start")
        gear.control("status")

        with self.assertRaises(ActionFailed) as failed:
            gear.push({"wsgi.py": "raise RuntimeError('bad deploy')\n"})
        self.assertIn("bad deploy", failed.exception.output)
        self.assertEqual(failed.exception.status, 1)

    def test_what_a_hook_of_the_server_has_started_is_no_worker(self) -> None:
        gear = self.gear()
        settings = """
            import subprocess
            def when_ready(server):
                subprocess.Popen(["sleep", "600"])
        """
        gear.push({"wsgi.py": version(1), "gunicorn.conf.py": textwrap.dedent(settings)})
        [helper] = [pid for pid in children(self.master(gear)) if title(pid).startswith("sleep")]
        # It outlives the reload, which is over without it.
        gear.control("reload")
        self.assertIn("Current thread", gear.control("threaddump"))
        self.assertTrue(is_alive(helper))

    def test_hooks_run_around_verbs_and_may_stop_them(self) -> None:
        gear = self.gear()
        said = '#!/bin/sh\necho "$(basename "$0") $OPENSHIFT_APP_NAME" >>"$OPENSHIFT_DATA_DIR/hooks"\n'
        around = ("pre_start", "post_start", "pre_stop", "post_stop")
        names = ("pre_build", "build", "prepare", "deploy", "post_deploy", *around)
        folder = ".openshift/action_hooks"
        hooks = {f"{folder}/{name}": said for name in names}
        # Sourced into the shell that runs the verb.
        hooks[f"{folder}/pre_start_{gear.manifest.name}"] = "export SOURCED=yes\n"
        gear.push({"wsgi.py": version(1), **hooks}, executable=tuple(f"{folder}/{name}" for name in names))
        self.expect(gear, "yes", "/environ?SOURCED")
        heard = (gear.home / "app-root/data/hooks").read_text().splitlines()
        expected = ["pre_build", "build", "prepare", "deploy", "pre_start", "post_start", "post_deploy"]
        self.assertEqual(heard, [f"{name} shop" for name in expected])
        gear.push({f"{folder}/pre_stop": "#!/bin/sh\nexit 3\n"}, executable=(f"{folder}/pre_stop",))
        with self.assertRaises(ActionFailed):
            gear.control("stop")
        self.expect(gear, "v1")

    def test_a_snapshot_is_restored(self) -> None:
        gear = self.gear()
        gear.push({"wsgi.py": version(1)})
        (gear.home / "app-root/data/kept").write_text("data")
        archive = self.root / "snapshot.tar"
        gear.snapshot(archive)
        self.expect(gear, "v1")
        gear.push({"wsgi.py": version(2)})
        (gear.home / "app-root/data/kept").unlink()
        gear.restore(archive)
        self.expect(gear, "v1")
        self.assertEqual((gear.home / "app-root/data/kept").read_text(), "data")

    def test_another_gear_of_a_scaled_application_serves_what_was_built_here(self) -> None:
        gear = self.gear()
        vendor(gear.home / "git", "colours", "red")
        gear.push({"wsgi.py": version(1), "requirements.txt": "colours\n"})
        self.expect(gear, "red", "/import?colours")
        other = self.gear(memory_mb=1024)
        gear.distribute(other)
        calls = len(other.calls)
        other.activate(gear.metadata(gear.deployments()[-1]).id or "", hot=False)
        self.assertNotIn("build", other.calls[calls:])
        shutil.rmtree(gear.home / "app-deployments")
        self.expect(other, "v1")
        self.expect(other, "red", "/import?colours")


class HotDeploy(GearTest):
    """Pushes with the marker hot_deploy: no stop, no start."""

    def test_nobody_is_refused(self) -> None:
        self.push_under_load(4)

    def push_under_load(self, times: int) -> None:
        gear = self.gear()
        gear.push({"wsgi.py": version(0), ".openshift/markers/hot_deploy": ""})
        master = self.master(gear)
        calls = len(gear.calls)
        with Load(gear.address) as load:
            for number in range(1, times + 1):
                gear.push({"wsgi.py": version(number)})
                load.expect_from_now_on(number)
                self.expect(gear, f"v{number}")
        self.assertEqual(load.failures, [])
        self.assertGreater(load.answers, times)
        self.assertEqual(self.master(gear), master)
        self.assertFalse({"start", "stop", "restart"} & set(gear.calls[calls:]))
        # Deployments do not pile up.
        self.assertLessEqual(len(gear.deployments()), 2)
        print(f"{times} hot deploys by {self.flow.value}: {load.answers} answers, 0 failures")

    def test_what_cannot_be_served_changes_nothing(self) -> None:
        gear = self.gear()
        gear.push({"wsgi.py": version(1), ".openshift/markers/hot_deploy": ""})
        with Load(gear.address) as load:
            load.expect_from_now_on(1)
            broken = {"raise RuntimeError('bad deploy')\n": "bad deploy", "no_application = None\n": "application"}
            for app, reason in broken.items():
                with self.assertRaises(ActionFailed) as failed:
                    gear.push({"wsgi.py": app})
                self.assertIn(reason, failed.exception.output)
                self.assertIn("CLIENT_ERROR", failed.exception.output)
            with self.assertRaises(ActionFailed) as failed:
                gear.push({"wsgi.py": None})
            self.assertIn("The WSGI application was not found", failed.exception.output)
            with self.assertRaises(ActionFailed) as failed:
                gear.push({"wsgi.py": version(2), "requirements.txt": "./no-such-folder\n"})
            self.assertIn("The build failed", failed.exception.output)
            # Loads when it is tried, and not when it is served.
            only_tried = "import os\nif 'MONOCEROS_RELEASE' not in os.environ: raise RuntimeError('only tried')\n"
            with self.assertRaises(ActionFailed) as failed:
                gear.push({"wsgi.py": only_tried + version(2), "requirements.txt": ""})
            self.assertIn("the old one serves on", failed.exception.output)
            self.expect(gear, "v1")
            gear.push({"wsgi.py": version(3)})
            load.expect_from_now_on(3)
        self.assertEqual(load.failures, [])
        self.expect(gear, "v3")

    def test_a_release_that_hangs_never_takes_over(self) -> None:
        gear = self.gear()
        gear.push({"wsgi.py": version(1), "gunicorn.conf.py": "timeout = 5\n", ".openshift/markers/hot_deploy": ""})
        # More than timeout, past which a reload gives up workers that still load the app.
        gear.set_variables({"OPENSHIFT_PYTHON_START_SECONDS": "6"}, ".env/user_vars")
        loading = gear.home / "app-root/data/loading"
        hangs = """
            import os, time
            if "MONOCEROS_RELEASE" not in os.environ:
                with open(os.environ["OPENSHIFT_DATA_DIR"] + "loading", "a") as file:
                    print(os.getpid(), file=file)
                time.sleep(600)
        """
        with Load(gear.address) as load:
            load.expect_from_now_on(1)
            with self.assertRaises(ActionFailed) as failed:
                gear.push({"wsgi.py": textwrap.dedent(hangs) + version(2)})
            self.assertIn("the old one serves on", failed.exception.output)
            workers = [int(line) for line in loading.read_text().split()]
            self.assertTrue(workers)
            wait_until("the workers that hang to end", lambda: not any(map(is_alive, workers)), 30)
            self.expect(gear, "v1")
            gear.set_variables({"OPENSHIFT_PYTHON_START_SECONDS": "60"}, ".env/user_vars")
            gear.push({"wsgi.py": version(3)})
            load.expect_from_now_on(3)
        self.assertEqual(load.failures, [])
        self.expect(gear, "v3")

    def test_requirements_and_variables_come_without_a_stop(self) -> None:
        gear = self.gear()
        gear.push({"wsgi.py": version(1), ".openshift/markers/hot_deploy": ""})
        master = self.master(gear)
        with Load(gear.address) as load:
            vendor(gear.home / "git", "colours", "red")
            vendor(gear.home / "git", "shapes", "round")
            gear.push({"requirements.txt": "colours\n"})
            self.expect(gear, "red", "/import?colours")
            gear.push({"requirements.txt": "shapes\n"})
            self.expect(gear, "round", "/import?shapes")
            self.assertIn("No module named", gear.get("/import?colours")[1])
            gear.push({".openshift/markers/force_clean_build": ""})
            self.expect(gear, "round", "/import?shapes")

            gear.set_variables({"COLOUR": "green"}, ".env/user_vars")
            gear.control("reload")
            self.expect(gear, "green", "/environ?COLOUR")
            database = {"HOST": "127.1.2.3", "PORT": "3306", "USERNAME": "shop", "PASSWORD": "a/b:c@d"}
            gear.connect("mysql", {f"OPENSHIFT_MYSQL_DB_{name}": value for name, value in database.items()})
            self.expect(gear, "127.1.2.3", "/environ?OPENSHIFT_MYSQL_DB_HOST")
            self.expect(gear, "mysql://shop:a%2Fb%3Ac%40d@127.1.2.3:3306/shop", "/environ?DATABASE_URL")
        self.assertEqual(load.failures, [])
        self.assertEqual(self.master(gear), master)

    def test_the_users_settings_count(self) -> None:
        gear = self.gear()
        settings = """
            import os
            workers, preload_app, graceful_timeout, bind = 1, True, 600, "0.0.0.0:1"
            raw_env = ["COLOUR=blue"]
            def post_worker_init(worker):
                os.environ["HOOKED"] = "yes"
        """
        gear.push({"wsgi.py": version(1), "gunicorn.conf.py": textwrap.dedent(settings)})
        self.expect(gear, "blue", "/environ?COLOUR")
        self.expect(gear, "yes", "/environ?HOOKED")
        self.assertEqual(len(children(self.master(gear))), 1)
        gear.push({"wsgi.py": version(2), ".openshift/markers/hot_deploy": ""})
        gear.push({"wsgi.py": version(3), "gunicorn.conf.py": None})
        self.expect(gear, "v3")
        self.expect(gear, "(none)", "/environ?COLOUR")
        self.assertEqual(len(children(self.master(gear))), 2)

    def test_an_older_deployment_is_served_again(self) -> None:
        gear = self.gear()
        gear.set_variables({"OPENSHIFT_KEEP_DEPLOYMENTS": "3"})
        gear.push({"wsgi.py": version(1), ".openshift/markers/hot_deploy": ""})
        first = gear.metadata(gear.deployments()[-1]).id or ""
        for number in (2, 3):
            gear.push({"wsgi.py": version(number)})
        self.expect(gear, "v3")
        gear.activate(first)
        self.expect(gear, "v1")
        for number in (4, 5):
            gear.push({"wsgi.py": version(number)})
        self.assertLessEqual(len(gear.deployments()), 4)
        self.expect(gear, "v5")

    def test_the_size_of_the_gear_counts(self) -> None:
        gear = self.gear(memory_mb=512)
        gear.push({"wsgi.py": version(1)})
        master = self.master(gear)
        cores = len(os.sched_getaffinity(0))
        with Load(gear.address) as load:
            for memory, workers in ((512, 2), (128, 1), (65536, 2 * cores + 1)):
                gear.set_variables({"OPENSHIFT_GEAR_MEMORY_MB": str(memory)})
                gear.control("resize")
                self.assertEqual(len(children(master)), workers, f"{memory} MB")
            gear.set_variables({"OPENSHIFT_PYTHON_WORKERS": "3"}, ".env/user_vars")
            gear.control("resize")
            self.assertEqual(len(children(master)), 3)
        self.assertEqual(load.failures, [])
        self.assertEqual(self.master(gear), master)


class HotDeployByCopies(HotDeploy):
    """As later nodes did it: the repository is emptied and filled while the old code serves."""

    flow = Flow.COPIES

    def test_the_old_code_still_has_its_files_while_the_new_one_is_built(self) -> None:
        gear = self.gear()
        app = version(1).replace('body = "v1"', 'body = "v1" + open("page.txt").read()')
        gear.push({"wsgi.py": app, "page.txt": "!", ".openshift/markers/hot_deploy": ""})
        wait = 'while [ -e "$OPENSHIFT_DATA_DIR/building" ]; do sleep 0.05; done\n'
        hook = f'#!/bin/sh\ntouch "$OPENSHIFT_DATA_DIR/building"\n{wait}'
        name = ".openshift/action_hooks/pre_build"
        changes = {"page.txt": None, "wsgi.py": version(2), name: hook}
        pushing = threading.Thread(target=gear.push, args=(changes,), kwargs={"executable": (name,)})
        pushing.start()
        wait_until("the build", (gear.home / "app-root/data/building").exists)
        self.assertFalse((gear.home / "app-root/runtime/repo/page.txt").exists())
        for _ in range(20):
            self.expect(gear, "v1!")
        (gear.home / "app-root/data/building").unlink()
        pushing.join()
        self.expect(gear, "v2")


class LongHotDeploy(HotDeploy):
    """200 of them. Many minutes."""

    def test_two_hundred_refuse_nobody(self) -> None:
        self.push_under_load(200)


class LongHotDeployByCopies(LongHotDeploy):
    flow = Flow.COPIES


class LongStop(GearTest):
    def test_eleven_terms_lose_nothing(self) -> None:
        """As the platform stops what it does not know: TERM once a second, eleven times, then KILL."""
        adopt_orphans()
        gear = self.gear()
        gear.push({"wsgi.py": version(1)})
        master = self.master(gear)
        answers: list[tuple[int, str]] = []
        asking = [threading.Thread(target=lambda: answers.append(get(gear.address, "/slow?7", 20))) for _ in range(2)]
        for thread in asking:
            thread.start()
        wait_until("both workers to be at a request", lambda: connections(gear.address) == 2)
        terms = 0
        while terms < 11 and is_alive(master):
            os.kill(master, signal.SIGTERM)
            terms += 1
            time.sleep(1)
        for thread in asking:
            thread.join()
        self.assertEqual(answers, [(200, "v1")] * 2)
        status = os.waitstatus_to_exitcode(os.waitpid(master, 0)[1])
        self.assertEqual(status, 0)
        print(f"ended with {status} after {terms} TERMs; 2 requests of 7 s were answered")


class Upgrade(GearTest):
    def test_a_newer_cartridge_takes_over_without_a_stop(self) -> None:
        gear = self.gear()
        gear.push({"wsgi.py": version(1)})
        master = self.master(gear)
        newer = self.root / "newer"
        shutil.copytree(CARTRIDGE, newer)
        path = newer / "metadata/manifest.yml"
        text = path.read_text().replace("Cartridge-Version: '0.1.0'", "Cartridge-Version: '0.1.1'")
        path.write_text(text.replace("Compatible-Versions: []", "Compatible-Versions:\n- '0.1.0'"))
        program = newer / "usr/bin/monoceros"
        if program.exists():
            os.utime(program, (0, 0))
        with Load(gear.address) as load:
            gear.upgrade(newer)
            self.expect(gear, "v1")
        self.assertEqual(load.failures, [])
        self.assertEqual(self.master(gear), master)
        # Versions that are not compatible cost a stop, which the platform orders.
        path.write_text(path.read_text().replace("'0.1.1'", "'0.2.0'").replace("- '0.1.0'", "- '0.1.9'"))
        gear.upgrade(newer)
        self.assertNotEqual(self.master(gear), master)
        self.expect(gear, "v1")


class Rules(unittest.TestCase):
    """What the platforms demand of the files themselves."""

    def test_the_manifest_is_taken_by_both_platforms(self) -> None:
        path = CARTRIDGE / "metadata/manifest.yml"
        for number in ("3.10", "3.11", "3.12", "3.13"):
            read = manifest.read(path, number)
            self.assertEqual((read.version, read.short_name), (number, "PYTHON"))
        wanted = {"Name": "monoceros", "Cartridge_Short_Name": "PYTHON", "Version": "3.11", "Private_IP_Name": "IP"}
        wanted |= {"Private_Port_Name": "PORT", "Private_Port": "8080"}
        self.assertEqual(manifest.read_by_line(path), wanted)

    def test_the_reader_refuses_what_the_platform_refuses(self) -> None:
        good = (CARTRIDGE / "metadata/manifest.yml").read_text()
        faults = {
            ("Name: monoceros\n", "Name: Monoceros\n"): "the name",
            ("Cartridge-Short-Name: PYTHON", "Cartridge-Short-Name: PY-THON"): "short name",
            ("Cartridge-Vendor: monoceros", "Cartridge-Vendor: redhat"): "reserved",
            ("  Min: 1", "  Min: 0"): "does not scale",
            ("  Private-Port: 8080", "  Private-Port: '8080'"): "is a number",
            ("- '3.10'", "- 3.10"): "quoted",
        }
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "manifest.yml")
            for (old, new), reason in faults.items():
                self.assertIn(old, good)
                path.write_text(good.replace(old, new))
                with self.assertRaisesRegex(manifest.InvalidManifest, reason):
                    manifest.read(path)

    def test_scripts_can_be_executed_and_have_unix_line_ends(self) -> None:
        for folder in ("bin", "hooks", "jelastic/scripts"):
            for script in (CARTRIDGE / folder).iterdir():
                content = script.read_bytes()
                self.assertNotIn(b"\r", content, script)
                # What the agent reads into its own shell is not executed.
                self.assertEqual(os.access(script, os.X_OK), content.startswith(b"#!"), script)


def vendor(repo: Path, name: str, value: str) -> None:
    """A wheel in the repository's own folder, of a package with one module."""
    (repo / "vendor").mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    files = {
        f"{name}.py": f"NAME = {value!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    with zipfile.ZipFile(repo / f"vendor/{name}-1.0-py3-none-any.whl", "w") as wheel:
        for path, content in files.items():
            wheel.writestr(path, content)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()
            record += f"{path},sha256={digest},{len(content)}\n"
        wheel.writestr(f"{info}/RECORD", f"{record}{info}/RECORD,,\n")


def children(pid: int) -> list[int]:
    said = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(line) for line in said.split()]


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()


def connections(address: tuple[str, int]) -> int:
    """How many connections to an address are established (proc(5) net/tcp, whose numbers are in hexadecimal)."""
    octets = "".join(f"{int(part):02X}" for part in reversed(address[0].split(".")))
    wanted, established = f"{octets}:{address[1]:04X}", "01"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(row[1] == wanted and row[3] == established for row in rows)


def adopt_orphans() -> None:
    """This process becomes the parent of those whose parent ends, and learns how they end (prctl(2))."""
    set_child_subreaper = 36
    if ctypes.CDLL(None).prctl(set_child_subreaper, 1, 0, 0, 0) != 0:
        raise OSError("prctl")


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def processes_of(folder: Path) -> list[int]:
    """Live processes that were started in a folder: by their environment, which a process title may overwrite, or by
    their working directory."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if not entry.name.isdecimal() or int(entry.name) == os.getpid():
                continue
            is_inside = f"{folder}/" in os.readlink(entry / "cwd")
            if is_inside or f"{folder}/".encode() in (entry / "environ").read_bytes():
                found.append(int(entry.name))
        except OSError:
            continue
    return found


if __name__ == "__main__":
    unittest.main()
