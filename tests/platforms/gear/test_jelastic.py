"""The cartridge in a Jelastic node: its layout, its packages, its result codes, its size."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path

import jelastic
import manifest
from gear import get
from jelastic import Node
from load import Load, wait_until
from test_gear import APP, CARTRIDGE, children, processes_of, version

# What the cartridge that Jelastic had before served: a script without a suffix, with everything
# else beside it.
JELASTIC_ROOT = {
    "application": "import pyinfo\n" + APP.replace('"v{}"', "pyinfo.page(environ)"),
    "pyinfo.py": "def page(environ):\n    return ' '.join(sorted(key for key in environ if key.startswith('wsgi.')))\n",
    "static/style.css": "p { color: red }",
    "images/logo.svg": "<svg/>",
    "robots.txt": "User-agent: *\n",
    "favicon.ico": "icon",
}


class JelasticTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="monoceros-test-"))
        self.addCleanup(shutil.rmtree, self.root, ignore_errors=True)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        self.node = Node(self.root / "node", CARTRIDGE, path=os.environ["GEAR_PATH"], port=port)
        made = Path(os.environ["GEAR_CACHE"])
        if made.exists():
            shutil.copytree(made, self.node.home / "virtenv/cache", symlinks=True)
        self.addCleanup(self.end)

    def end(self) -> None:
        for pid in processes_of(self.node.root):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def expect(self, body: str, path: str = "/") -> None:
        self.assertEqual(get(self.node.address, path), (200, body), self.node.log[-3000:])

    def deployed(self, package: Path, context: str = "ROOT") -> int:
        return self.node.deploy(f"file://{package}", context)

    def package(self, kind: str, files: dict[str, str], top: str = "") -> Path:
        """A package of this kind, with everything below one folder if that is named."""
        folder = self.root / f"package-{kind}{top}"
        for name, content in files.items():
            path = folder / top / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        package = self.root / f"application.{kind}"
        if kind == "zip":
            with zipfile.ZipFile(package, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.write(path, path.relative_to(folder))
        else:
            subprocess.run(
                ["tar", "--create", "--auto-compress", "--file", package, "--directory", folder, "."], check=True
            )
        return package


class Jelastic(JelasticTest):
    def test_from_creation_to_removal(self) -> None:
        node = self.node
        node.configure(os.environ["GEAR_VERSION"])
        self.assertEqual(node.service("status"), 4057)
        self.assertEqual(node.service("start"), 0, node.log)
        self.expect("Hello from monoceros\n")
        self.assertEqual(node.service("status"), 0)
        master = node.master()
        self.assertTrue((node.home / "logs/python.log").exists())

        # Everything beside the script, and what Apache sent by itself.
        self.assertEqual(self.deployed(self.package("zip", JELASTIC_ROOT)), 0)
        self.assertIn("wsgi.errors", get(node.address)[1], node.log)
        for path in ("static/style.css", "images/logo.svg", "robots.txt", "favicon.ico"):
            self.expect(JELASTIC_ROOT[path], f"/{path}")
        for path in ("/static/../pyinfo.py", "/static/%2e%2e/pyinfo.py", "/images/.hidden"):
            self.assertIn("wsgi.errors", get(node.address, path)[1])

        # Each type of package, under load, with and without a folder around it.
        self.assertEqual(self.deployed(self.package("tar", {"wsgi.py": version(1)})), 0)
        with Load(node.address) as load:
            for number, kind in enumerate(("zip", "tar", "tar.gz", "tar.bz2"), 2):
                load.expect_from_now_on(number - 1)
                self.assertEqual(self.deployed(self.package(kind, {"wsgi.py": version(number)}, f"top{number}")), 0)
                self.expect(f"v{number}")
                self.assertFalse((node.home / "ROOT/application").exists())
        self.assertEqual(load.failures, [])
        self.assertEqual(node.master(), master)

        self.check_faults()
        self.check_size()
        for verb in ("restart", "reload"):
            self.assertEqual(node.service(verb), 0)
        self.assertEqual(node.master(), master)

        # A file is changed by the file manager, and "Restart" is pressed.
        (node.home / "ROOT/wsgi.py").write_text(version(9))
        self.assertEqual(node.service("restart"), 0)
        self.expect("v9")
        self.assertEqual(node.service("stop"), 0)
        self.assertEqual(node.service("status"), 4057)
        self.assertEqual(node.run([str(node.home / "bin/teardown")]).returncode, 0)
        wait_until("every process of the node to end", lambda: not processes_of(node.root))

    def check_faults(self) -> None:
        """What is wrong with a deploy has a code of its own, and what was served stays."""
        node = self.node
        before = get(node.address)
        self.assertEqual(self.deployed(self.root / "application.zip", "other"), jelastic.BAD_CONTEXT)
        self.assertEqual(self.deployed(self.root / "no-such-file.zip"), jelastic.CANNOT_DOWNLOAD)
        (self.root / "broken.zip").write_text("this is no archive")
        self.assertEqual(self.deployed(self.root / "broken.zip"), jelastic.CANNOT_UNPACK)
        (self.root / "package-tar/wsgi.py").unlink()
        self.assertEqual(self.deployed(self.package("tar", {})), jelastic.CANNOT_UNPACK)
        for hook, code in (("preDeploy", jelastic.PRE_HOOK_FAILED), ("postDeploy", jelastic.POST_HOOK_FAILED)):
            script = node.hooks / f"{hook}_ROOT.sh"
            script.write_text("exit 1\n")
            self.assertEqual(self.deployed(self.root / "application.zip"), code)
            script.unlink()
        # The agent does not ask how build and deploy have ended.
        self.assertEqual(
            self.deployed(self.package("tar.gz", {"wsgi.py": "raise RuntimeError('bad deploy')\n"}, "bad")), 0
        )
        self.assertIn("bad deploy", node.log)
        self.assertEqual(get(node.address)[0], 200)
        broken = {"wsgi.py": version(7), "requirements.txt": "./no-such-folder\n"}
        self.assertEqual(self.deployed(self.package("tar.bz2", broken, "broken")), 0)
        self.assertIn("There is no build that succeeded", node.log)
        self.assertEqual(get(node.address)[0], before[0])
        self.assertNotEqual(get(node.address)[1], "v7")
        self.assertEqual(self.deployed(self.package("zip", {"wsgi.py": version(8)}, "good")), 0)
        self.expect("v8")

    def check_size(self) -> None:
        """Cloudlets come and go; the master stays, and nobody is refused."""
        node, master = self.node, self.node.master()
        cores = len(os.sched_getaffinity(0))
        with Load(node.address) as load:
            for memory, workers in ((128, 1), (512, 2), (32768, 2 * cores + 1)):
                self.assertEqual(node.resize(memory), 0, node.log)
                self.assertEqual(len(children(master)), workers, f"{memory} MB")
        self.assertEqual(load.failures, [])
        self.assertEqual(node.master(), master)

    def test_the_files_that_the_agent_reads(self) -> None:
        for size in (16, 32, 64):
            header = (CARTRIDGE / f"jelastic/logo_{size}x{size}.png").read_bytes()[:24]
            self.assertEqual(header[:8], b"\x89PNG\r\n\x1a\n")
            self.assertEqual(header[16:], size.to_bytes(4, "big") * 2)
        names = '"$Node_Mission" "$Engine_Type" "$App_User" "$Single_Context" "$Web_Access"'
        script = f". jelastic/jelastic.conf; echo {names}"
        shell = subprocess.run(["bash", "-euc", script], cwd=CARTRIDGE, check=True, capture_output=True, text=True)
        said = shell.stdout
        self.assertEqual(said.split(), ["cp", "python", "jelastic", "1", "1"])
        lines = (CARTRIDGE / "jelastic/file_manager.conf").read_text().splitlines()
        sections = [line.strip("[]") for line in lines if line.startswith("[")]
        self.assertEqual(sections, ["conf", "webroot", "cron", "keys"])
        # Those that managed_files.yml names, the agent takes for variables.
        listed = manifest.load_yaml(CARTRIDGE / "metadata/managed_files.yml")["processed_templates"]
        self.assertFalse([name for name in listed if name.startswith("env/")])


if __name__ == "__main__":
    unittest.main()
