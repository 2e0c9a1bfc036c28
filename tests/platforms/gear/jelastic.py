"""A Jelastic node with a cartridge: the same cartridge in another layout, called by another agent.

Written from what the public agent (JEM) does. /opt/repo is both the cartridge and the repository,
the application lies in /opt/repo/ROOT, the address is 0.0.0.0, and variables are kept in one file.
The agent's own init script is not public: that `service cartridge VERB` runs bin/control VERB is
inferred from how the agent calls it.
"""

import re
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import manifest

# Result codes of the agent, by what failed.
CODES = {"stop": 4054, "restart": 4055, "reload": 4056, "status": 4057, "start": 4058}
CANNOT_UNPACK, CANNOT_DOWNLOAD, DEPLOY_FAILED = 4071, 4078, 4060
BAD_CONTEXT, PRE_HOOK_FAILED, POST_HOOK_FAILED = 4079, 4125, 4126
# The agent's limit for a deploy, hooks included.
DEPLOY_SECONDS = 900


class Node:
    """A container of the cloud. Everything is below `root`, which the real one has as /."""

    def __init__(self, root: Path, cartridge: Path, *, path: str, port: int, memory_mb: int = 512) -> None:
        self.root = root
        self.home = root / "opt/repo"
        self.hooks = root / "var/lib/jelastic/hooks"
        self.environment_file = root / "etc/jelastic/environment"
        self.port = port
        self.log = ""
        for folder in (self.hooks, self.environment_file.parent, root / "var/run/cartridges", root / "bin"):
            folder.mkdir(parents=True)
        shutil.copytree(cartridge, self.home, symlinks=True)
        self.set_memory(memory_mb)
        self.variables: dict[str, str] = {"PATH": f"{root}/bin:{path}"}

    def set_memory(self, megabytes: int) -> None:
        """What `free -m` shows in the container, which is how the agent finds its size."""
        free = self.root / "bin/free"
        free.write_text(f"#!/bin/sh\nprintf 'total used\\nMem: {megabytes} 1\\nSwap: 0 0\\n'\n")
        free.chmod(0o755)

    def configure(self, version: str) -> None:
        """The agent's doConfigure --version: variables, templates, setup, install; not
        post_install, whose name it gets wrong."""
        said = manifest.read_by_line(self.home / "metadata/manifest.yml")
        short = said["Cartridge_Short_Name"]
        self.variables |= {
            "CARTRIDGE_HOME": str(self.home),
            "Name": said["Name"],
            f"OPENSHIFT_{short}_DIR": f"{self.home}/",
            "OPENSHIFT_REPO_DIR": f"{self.home}/",
            f"OPENSHIFT_{short}_PID_DIR": str(self.root / "var/run/cartridges"),
            f"OPENSHIFT_{short}_LOG_DIR": str(self.home / "logs"),
            "OPENSHIFT_APP_NAME": said["Name"],
            "OPENSHIFT_APP_DNS": "env-1234567.example.com",
            "OPENSHIFT_GEAR_DNS": "env-1234567.example.com",
            "OPENSHIFT_DATA_DIR": f"{self.root}/opt/{said['Name']}/data",
            "OPENSHIFT_TMP_DIR": f"{self.root}/opt/{said['Name']}/tmp",
            "OPENSHIFT_GEAR_MEMORY_MB": "512",
            f"OPENSHIFT_{short}_{said['Private_IP_Name']}": "0.0.0.0",
            f"OPENSHIFT_{short}_{said['Private_Port_Name']}": said["Private_Port"],
        }
        versions = self.home / "versions" / version
        for folder in (
            versions / "data",
            versions / "tmp",
            self.home / ".openshift/action_hooks",
            self.home / "keys",
            self.home / "cron",
        ):
            folder.mkdir(parents=True, exist_ok=True)
        (self.root / "opt" / said["Name"]).symlink_to(versions)
        # Templates up to three folders deep, ROOT left out. They stay beside what is made of them.
        for template in [path for path in self.home.glob("*/*.erb") if path.parent.name != "ROOT"]:
            script = "require 'erb'; print ERB.new(File.read(ARGV[0])).result"
            rendered = subprocess.run(
                ["ruby", "-e", script, str(template)], env=self.variables, check=True, capture_output=True
            )
            template.with_suffix("").write_bytes(rendered.stdout)
        self.save_variables()
        for path in (self.home / "env").iterdir():
            path.chmod(0o555)
        for script in ("setup", "install"):
            done = self.run([str(self.home / "bin" / script), "--version", version])
            if done.returncode != 0:
                raise AssertionError(f"{script} ended with {done.returncode}:\n{done.stdout}")
        self.save_variables()
        # Only for the test: two nodes on one machine cannot both have 8080.
        self.variables[f"OPENSHIFT_{short}_{said['Private_Port_Name']}"] = str(self.port)
        self.save_variables()

    def save_variables(self) -> None:
        """Everything of the platform's and of env/ goes into one file, for shells."""
        for path in sorted((self.home / "env").iterdir()):
            if path.suffix != ".erb":
                self.variables[path.name] = path.read_text()
        lines = [f"export {name}={shlex.quote(value)}" for name, value in self.variables.items()]
        self.environment_file.write_text("\n".join([*lines, ""]))

    def run(self, command: list[str], variables: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """As a service runs: without the variables, which the script finds in the file."""
        environment = {
            "PATH": self.variables["PATH"],
            "JELASTIC_ENVIRONMENT": str(self.environment_file),
            **(variables or {}),
        }
        output = self.root / "output"
        with output.open("w") as file:
            done = subprocess.run(
                command,
                cwd=self.home,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=DEPLOY_SECONDS,
                check=False,
            )
        said = output.read_text(errors="replace")
        self.log += said
        return subprocess.CompletedProcess(command, done.returncode, said)

    def service(self, verb: str) -> int:
        """`service cartridge VERB`: 0, or the result code of the verb."""
        done = self.run([str(self.home / "bin/control"), verb])
        return 0 if done.returncode == 0 else CODES.get(verb, done.returncode)

    def deploy(self, url: str, context: str = "ROOT") -> int:
        """What the dashboard's Deploy does: hooks, jelastic/scripts/deploy.sh, then build and
        deploy, whose status nobody asks for."""
        wanted = self.run(["bash", "-c", '. jelastic/jelastic.conf; printf %s "$Context_Regex"']).stdout
        if not re.search(wanted, context):
            return BAD_CONTEXT
        if not self.hook(f"preDeploy_{context}.sh"):
            return PRE_HOOK_FAILED
        script = f'. jelastic/scripts/deploy.sh; _deploy "{url}" "{context}"'
        done = self.run(["bash", "-c", script], {"CARTRIDGE_HOME": str(self.home)})
        if done.returncode != 0:
            return {156: CANNOT_DOWNLOAD, 56: CANNOT_UNPACK}.get(done.returncode, DEPLOY_FAILED)
        for verb in ("build", "deploy"):
            self.service(verb)
        return 0 if self.hook(f"postDeploy_{context}.sh") else POST_HOOK_FAILED

    def hook(self, name: str) -> bool:
        """A deploy hook of the user's, if there is one."""
        path = self.hooks / name
        return not path.exists() or self.run(["timeout", str(DEPLOY_SECONDS), "bash", str(path)]).returncode == 0

    def resize(self, memory_mb: int) -> int:
        """The number of cloudlets is changed; the agent writes the new size down and runs the
        cartridge's script."""
        self.set_memory(memory_mb)
        return self.run([str(self.home / "jelastic/scripts/generate_optimal_configs.sh")]).returncode

    def master(self) -> int:
        return int((self.root / "var/run/cartridges/monoceros.pid").read_text())

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port
