"""conf/cartridge/manifest.jps: its commands, run with other folders than the node's, install a server that serves.

The platform itself, its image and its systemd are not here: systemctl is a script that notes how it is called, and what
the manifest's `globals` name lies below a folder of the test's own. Started by tests/installing.rs, as root, with the
path of the WHEEL.
"""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from manifest import load_yaml

MANIFEST = Path(__file__).resolve().parents[3] / "conf/cartridge/manifest.jps"
KEYS = {
    "type",
    "version",
    "id",
    "name",
    "description",
    "settings",
    "globals",
    "nodes",
    "onInstall",
    "actions",
    "success",
}


class Jps(unittest.TestCase):
    def setUp(self) -> None:
        self.manifest = load_yaml(MANIFEST)
        self.root = Path(tempfile.mkdtemp(prefix="monoceros-test-"))
        self.addCleanup(shutil.rmtree, self.root)
        self.globals = {name: f"{self.root}{value}" for name, value in self.manifest["globals"].items()}
        for path in self.globals.values():
            Path(path).parent.mkdir(parents=True, exist_ok=True)
        stub = self.root / "bin/systemctl"
        stub.parent.mkdir()
        stub.write_text(f'#!/bin/sh\necho "$*" >>{self.root}/systemctl\n')
        stub.chmod(0o755)

    def test_it_has_the_form_of_a_package(self) -> None:
        events = {key for key in self.manifest if key.startswith("onAfter")}
        self.assertEqual(set(self.manifest) - events, KEYS)
        self.assertEqual(self.manifest["type"], "install")
        called = [name for key in ("onInstall", *events) for name in self.manifest[key]]
        self.assertEqual(set(called), set(self.manifest["actions"]))
        for name, steps in self.manifest["actions"].items():
            for step in steps:
                self.assertEqual(set(step), {"cmd[cp]", "user"}, name)
        # Every placeholder is one that the platform or this manifest defines.
        for name in re.findall(r"\$\{([a-z.]+)\}", MANIFEST.read_text()):
            group, _, key = name.partition(".")
            known = {"globals": self.manifest["globals"], "settings": {"wheel"}, "env": {"protocol", "domain"}}
            self.assertIn(key, known[group])

    def test_its_commands_install_a_server_that_serves(self) -> None:
        webroot = Path(self.globals["webroot"])
        webroot.mkdir()
        (webroot / "requirements.txt").write_text("")
        app = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'served']\n"
        (webroot / "wsgi.py").write_text(app)
        for name in self.manifest["onInstall"]:
            for step in self.manifest["actions"][name]:
                done = self.run_as_the_agent(self.fill(step["cmd[cp]"]))
                self.assertEqual(done.returncode, 0, done.stdout)
        calls = (self.root / "systemctl").read_text().splitlines()
        self.assertEqual(
            calls, ["daemon-reload", "disable --now httpd", "enable monoceros", "reload-or-restart monoceros"]
        )

        unit = Path(self.globals["unit"]).read_text()
        self.assertNotIn("${", unit)
        self.assertIn("$MAINPID", unit)
        started = re.search(r"^ExecStart=(.*)$", unit, re.MULTILINE)
        folder = re.search(r"^WorkingDirectory=(.*)$", unit, re.MULTILINE)
        assert started and folder
        self.assertIn("--bind 0.0.0.0:80 ", started[1])
        # A port of the test's own network, where nobody else is.
        ask = (
            "import http.client; c = http.client.HTTPConnection('127.0.0.1', 80); c.request('GET', '/');"
            "print(c.getresponse().read().decode(), end='')"
        )
        script = f"""
            ip link set lo up
            cd {folder[1]}
            {started[1]} 2>server.log &
            pid=$!
            for _ in $(seq 200); do grep -q 'Booting worker' server.log && break; sleep 0.05; done
            {self.globals["home"]}/virtenv/bin/python -c "{ask}" >{self.root}/answer
            kill -TERM $pid
            wait $pid
        """
        done = self.run_as_the_agent(script, "unshare", "--net")
        self.assertEqual((done.returncode, (self.root / "answer").read_text()), (0, "served"), done.stdout)

    def fill(self, text: str) -> str:
        values = {f"globals.{name}": value for name, value in self.globals.items()}
        values["settings.wheel"] = os.environ["WHEEL"]
        return re.sub(r"\$\{([a-z.]+)\}", lambda found: values[found[1]], text)

    def run_as_the_agent(self, script: str, *through: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": f"{self.root}/bin:{os.environ['PATH']}", "HOME": "/nonexistent"}
        return subprocess.run(
            [*through, "bash", "-ec", script],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=120,
            check=False,
        )


if __name__ == "__main__":
    unittest.main()
