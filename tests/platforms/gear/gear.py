"""An OpenShift v2 gear: the order in which the node calls a cartridge, and what it finds there.

Written from the cartridge guide and from what the node's own code does (v2_cart_model,
application_container and its extensions, Environ, ManagedFiles). Left out are accounts, SELinux,
quotas, the front end's Apache and the broker.

The two ways in which nodes have laid out deployments are both here. By links, app-root/runtime/repo
points into app-deployments, and an activation points it elsewhere. By copies, which came later, it
is one folder that a push empties and fills, also while a hot deploy lets the old code serve.
"""

import hashlib
import http.client
import ipaddress
import json
import os
import secrets
import shutil
import socket
import subprocess
import tarfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from enum import Enum
from pathlib import Path

import manifest
from manifest import Manifest

# What the node gives a verb at the most; its own default is an hour for the command line of a gear.
VERB_SECONDS = 180
RUNTIME_FOLDERS = ("repo", "dependencies", "build-dependencies")
# By the folder that they are in: the key of managed_files.yml that names folders of the cartridge.
DEPENDENCY_KEYS = {"dependencies": "dependency_dirs", "build-dependencies": "build_dependency_dirs"}
# What a cartridge may print to reach the user.
SDK = """
client_result() { echo "CLIENT_RESULT: $1"; }
client_message() { echo "CLIENT_MESSAGE: $1"; }
client_error() { echo "CLIENT_ERROR: $1"; }
"""


class ActionFailed(Exception):
    """A script of the cartridge or a hook has ended with another status than 0."""

    def __init__(self, action: str, status: int, output: str) -> None:
        super().__init__(f"{action} ended with {status}:\n{output}")
        self.status = status
        self.output = output


class Flow(Enum):
    """How the runtime folders get a deployment's content."""

    LINKS = "links"
    COPIES = "copies"


@dataclass
class Deployment:
    """What metadata.json of a deployment holds."""

    id: str | None = None
    hot_deploy: bool = False
    force_clean_build: bool = False
    checksum: str | None = None
    activations: list[float] = field(default_factory=list)


class Gear:
    """One gear with one cartridge. `root` is where the node keeps gears; `runner` goes in front of
    every command."""

    def __init__(
        self,
        root: Path,
        cartridge: Path,
        *,
        path: str,
        flow: Flow = Flow.LINKS,
        version: str | None = None,
        memory_mb: int = 512,
        runner: list[str] | None = None,
    ) -> None:
        self.uuid = secrets.token_hex(12)
        self.home = root / self.uuid
        self.cartridge_source = cartridge
        self.flow = flow
        self.runner = runner or []
        self.manifest: Manifest = manifest.read(cartridge / "metadata/manifest.yml", version)
        self.directory = self.home / self.manifest.name
        # What was called, in order: (script or verb, environment).
        self.calls: list[str] = []
        self.is_started = False
        self.node_environment = {
            "PATH": path,
            "LANG": "C.UTF-8",
            "OPENSHIFT_CARTRIDGE_SDK_BASH": str(root / "sdk"),
            "OPENSHIFT_BROKER_HOST": "broker.example.com",
        }
        (root / "sdk").write_text(SDK)
        self.create(memory_mb)

    # -- The gear itself ---------------------------------------------------------------------------

    def create(self, memory_mb: int) -> None:
        runtime = self.home / "app-root/runtime"
        for name in (".env/user_vars", ".tmp", "app-root/data", "app-root/logs", "app-deployments/by-id", "git"):
            (self.home / name).mkdir(parents=True)
        runtime.mkdir(parents=True)
        first = self.create_deployment()
        self.write_metadata(first, Deployment(activations=[time.time()]))
        for name in RUNTIME_FOLDERS:
            if self.flow is Flow.COPIES:
                (runtime / name).mkdir()
            else:
                (runtime / name).symlink_to(Path("../../app-deployments") / first / name)
        slash = f"{runtime}/repo/"
        self.set_variables(
            {
                "HOME": str(self.home),
                "TMPDIR": f"{self.home}/.tmp/",
                "OPENSHIFT_HOMEDIR": f"{self.home}/",
                "OPENSHIFT_REPO_DIR": slash,
                "OPENSHIFT_DATA_DIR": f"{self.home}/app-root/data/",
                "OPENSHIFT_LOG_DIR": f"{self.home}/app-root/logs/",
                "OPENSHIFT_TMP_DIR": f"{self.home}/.tmp/",
                "OPENSHIFT_DEPENDENCIES_DIR": f"{runtime}/dependencies/",
                "OPENSHIFT_BUILD_DEPENDENCIES_DIR": f"{runtime}/build-dependencies/",
                "OPENSHIFT_APP_NAME": "shop",
                "OPENSHIFT_APP_UUID": self.uuid,
                "OPENSHIFT_APP_DNS": "shop-test.example.com",
                "OPENSHIFT_GEAR_NAME": "shop",
                "OPENSHIFT_GEAR_UUID": self.uuid,
                "OPENSHIFT_GEAR_DNS": "shop-test.example.com",
                "OPENSHIFT_GEAR_MEMORY_MB": str(memory_mb),
                "OPENSHIFT_SECRET_TOKEN": secrets.token_hex(32),
            }
        )

    def set_variables(self, variables: Mapping[str, str], folder: str = ".env") -> None:
        """One file a variable. `rhc env set` writes to .env/user_vars, another cartridge to
        .env/NAME."""
        (self.home / folder).mkdir(parents=True, exist_ok=True)
        for name, value in variables.items():
            (self.home / folder / name).write_text(value)

    def environment(self) -> dict[str, str]:
        """What every command gets: the node's variables, the gear's, those of all cartridges, and
        the user's."""
        found = dict(self.node_environment) | load(self.home / ".env")
        theirs = {
            name: value
            for name, value in load(self.home / ".env/user_vars").items()
            if name == "OPENSHIFT_SECRET_TOKEN" or name not in found
        }
        found |= load(self.directory / "env")
        for folder in sorted((self.home / ".env").iterdir()):
            if folder.is_dir() and folder.name != "user_vars":
                found |= load(folder)
        elements = [
            value for name, value in found.items() if name.endswith("_PATH_ELEMENT") and "LD_LIBRARY" not in name
        ]
        found["PATH"] = ":".join([*elements, found["PATH"]])
        return found | theirs

    def run(
        self, command: list[str], *, folder: Path, environment: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """In the gear: with these variables and no others, nothing on stdin, and as long as a verb
        may take."""
        # Files, because what a cartridge leaves running may hold a pipe open for ever.
        output = self.home / ".tmp" / f"output-{secrets.token_hex(4)}"
        with output.open("w") as file:
            done = subprocess.run(
                [*self.runner, *command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                timeout=VERB_SECONDS,
                check=False,
            )
        said = output.read_text(errors="replace")
        output.unlink()
        return subprocess.CompletedProcess(command, done.returncode, said)

    def expect(self, action: str, command: list[str], folder: Path, environment: Mapping[str, str]) -> str:
        self.calls.append(action)
        done = self.run(command, folder=folder, environment=environment)
        if done.returncode != 0:
            raise ActionFailed(action, done.returncode, done.stdout)
        return done.stdout

    # -- Adding and removing the cartridge ---------------------------------------------------------

    def configure(self, virtualenvs: Path | None = None) -> None:
        """Everything up to an application that serves its template. What is in `virtualenvs` is in
        the cartridge's cache already."""
        self.copy_cartridge()
        self.create_endpoints()
        before = set(self.home.iterdir())
        self.make_dependency_folders()
        if virtualenvs:
            copy(virtualenvs, self.directory / "virtenv/cache")
        self.render(sorted((self.directory / "env").glob("*.erb")))
        self.cartridge_action("setup")
        self.render(self.managed("processed_templates"))
        self.cartridge_action("install")
        illegal = {path for path in set(self.home.iterdir()) - before if not path.name.startswith(".")}
        if illegal:
            raise AssertionError(f"the cartridge has made these in the gear's home: {illegal}")
        copy(self.directory / "template", self.home / "git")
        self.lock()
        overridden = (load(self.home / ".env").keys() & load(self.directory / "env").keys()) - {
            "PATH",
            "LD_LIBRARY_PATH",
        }
        if overridden:
            raise AssertionError(f"the cartridge overrides the gear's {overridden}")
        if self.manifest.is_built_at_first:
            self.push({})
            self.start_cartridge("restart")
        else:
            self.archive()
            self.start_cartridge("start")
        self.cartridge_action("post_install")

    def copy_cartridge(self) -> None:
        self.directory.mkdir()
        for entry in sorted(self.cartridge_source.iterdir()):
            target = self.directory / entry.name
            if entry.name == "usr":
                target.symlink_to(entry)
            elif entry.is_dir():
                shutil.copytree(entry, target, symlinks=True)
            else:
                shutil.copy2(entry, target)
        short = self.manifest.short_name
        (self.directory / f"env/OPENSHIFT_{short}_DIR").write_text(f"{self.directory}/")
        (self.directory / f"env/OPENSHIFT_{short}_IDENT").write_text(self.manifest.ident)
        self.set_variables({"OPENSHIFT_PRIMARY_CARTRIDGE_DIR": f"{self.directory}/"})

    def create_endpoints(self) -> None:
        """An address of its own in 127/8, of which each gear has 128, and the port of the manifest,
        which must be free."""
        addresses: dict[str, str] = {}
        for endpoint in self.manifest.endpoints:
            address = addresses.setdefault(endpoint.ip_name, free_address(len(addresses) + 1, endpoint.port))
            variables = {endpoint.ip_name: address, endpoint.port_name: str(endpoint.port)}
            if endpoint.public_port_name:
                variables[endpoint.public_port_name] = str(35531 + len(addresses))
            self.set_variables(variables)

    def make_dependency_folders(self) -> None:
        for kind, key in DEPENDENCY_KEYS.items():
            for name in self.managed_names(key):
                target = self.home / "app-root/runtime" / kind / self.manifest.name / name
                target.mkdir(parents=True, exist_ok=True)
                if not (self.directory / name).exists():
                    (self.directory / name).symlink_to(target)

    def managed_names(self, kind: str) -> list[str]:
        path = self.directory / "metadata/managed_files.yml"
        return (manifest.load_yaml(path) or {}).get(kind) or [] if path.exists() else []

    def managed(self, kind: str) -> list[Path]:
        """The files that managed_files.yml names; those that the platform itself keeps are never
        among them."""
        found: list[Path] = []
        for name in self.managed_names(kind):
            below, pattern = (self.home, name[2:]) if name.startswith("~/") else (self.directory, name)
            found += sorted(below.glob(pattern)) if "*" in pattern else [below / pattern]
        env = self.directory / "env"
        immutable = {
            self.directory / "metadata/manifest.yml",
            self.directory / "metadata/managed_files.yml",
            *env.glob("OPENSHIFT_*_IDENT"),
            *env.glob("OPENSHIFT_*_DIR"),
        }
        return [path for path in found if path not in immutable]

    def render(self, templates: list[Path]) -> None:
        """ERB with the gear's variables; the template goes."""
        for template in templates:
            if not template.exists():
                raise AssertionError(f"{template} is declared in processed_templates and does not exist")
            script = "require 'erb'; print ERB.new(File.read(ARGV[0])).result"
            done = self.run(["ruby", "-e", script, str(template)], folder=self.home, environment=self.environment())
            if done.returncode != 0:
                raise ActionFailed(f"rendering {template.name}", done.returncode, done.stdout)
            template.with_suffix("").write_text(done.stdout)
            template.unlink()

    def lock(self) -> None:
        """What the user may not change is not writable while no script of the installation runs."""
        for path in self.managed("locked_files"):
            if path.is_file():
                path.chmod(path.stat().st_mode & ~0o222)

    def unlock(self) -> None:
        for path in self.managed("locked_files"):
            if path.is_file():
                path.chmod(path.stat().st_mode | 0o200)

    def cartridge_action(self, name: str) -> str:
        script = self.directory / "bin" / name
        if not script.exists():
            return ""
        return self.expect(name, [str(script), "--version", self.manifest.version], self.directory, self.environment())

    def upgrade(self, cartridge: Path) -> None:
        """To a newer cartridge: the files are laid over, and if the versions are not compatible it
        is set up again."""
        newer = manifest.read(cartridge / "metadata/manifest.yml", self.manifest.version)
        is_compatible = self.manifest.cartridge_version in newer.compatible_versions
        before = self.manifest.cartridge_version
        self.unlock()
        if not is_compatible:
            self.control("stop")
        for name in ("bin", "hooks", "metadata"):
            copy(cartridge / name, self.directory / name)
        (self.directory / "usr").unlink()
        (self.directory / "usr").symlink_to(cartridge / "usr")
        self.manifest = newer
        (self.directory / f"env/OPENSHIFT_{newer.short_name}_IDENT").write_text(newer.ident)
        script = [str(self.directory / "bin/upgrade"), newer.version, before, newer.cartridge_version]
        self.expect("upgrade", script, self.directory, self.environment())
        if not is_compatible:
            self.cartridge_action("setup")
            self.control("start")
        self.lock()

    def destroy(self) -> None:
        self.control("stop")
        self.unlock()
        self.expect("teardown", [str(self.directory / "bin/teardown")], self.directory, self.environment())
        shutil.rmtree(self.home)

    # -- Verbs -------------------------------------------------------------------------------------

    def control(
        self,
        verb: str,
        *,
        pre: bool = True,
        post: bool = True,
        prefix: bool = True,
        overrides: Mapping[str, str] | None = None,
    ) -> str:
        """A verb of bin/control between the hooks of the user: those of the application run, those
        of the cartridge are sourced around the verb, in one shell with -e."""
        environment = self.environment() | dict(overrides or {})
        hooks = Path(environment["OPENSHIFT_REPO_DIR"]) / ".openshift/action_hooks"
        name = verb.replace("-", "_")
        said = self.hook(hooks, f"pre_{name}" if prefix else name, environment) if pre else ""
        lines = ["set -e"]
        for around in ("pre", verb, "post"):
            if around == verb:
                lines.append(f"{self.directory}/bin/control {verb}")
                continue
            script = hooks / f"{around}_{verb}_{self.manifest.name}"
            if script.exists():
                lines.append(f"source {script}")
        said += self.expect(verb, ["bash", "-c", "; ".join(lines)], self.directory, environment)
        return said + (self.hook(hooks, f"post_{name}" if prefix else name, environment) if post else "")

    def hook(self, hooks: Path, name: str, environment: Mapping[str, str]) -> str:
        script = hooks / name
        if not os.access(script, os.X_OK):
            return ""
        return self.expect(f"hook {name}", [str(script)], self.home, environment)

    def start_cartridge(self, verb: str, *, hot: bool = False) -> None:
        self.is_started = True
        if not hot:
            self.control(verb)

    def stop_cartridge(self, *, hot: bool = False) -> None:
        if not hot:
            self.is_started = False
            self.control("stop")

    def connect(self, cartridge: str, variables: Mapping[str, str]) -> None:
        """Another cartridge publishes variables; the hook that subscribes to them runs, if it is
        there."""
        environment = self.environment()
        self.set_variables(variables, f".env/{cartridge}")
        hook = self.directory / "hooks/set-env"
        pairs = " ".join(f"{name}={value};" for name, value in variables.items())
        self.expect(
            "set-env", [str(hook), "shop", "test", self.uuid, f"'{cartridge}'='{pairs}'"], self.directory, environment
        )

    # -- Deployments -------------------------------------------------------------------------------

    def push(self, changes: Mapping[str, str | None], *, executable: tuple[str, ...] = ()) -> None:
        """git push: these files changed, those with None removed."""
        git = self.home / "git"
        for name, content in changes.items():
            if content is None:
                (git / name).unlink()
            else:
                (git / name).parent.mkdir(parents=True, exist_ok=True)
                (git / name).write_text(content)
                (git / name).chmod(0o755 if name in executable else 0o644)
        markers = git / ".openshift/markers"
        is_hot = self.is_started and (markers / "hot_deploy").exists()
        self.pre_receive(Deployment(hot_deploy=is_hot, force_clean_build=(markers / "force_clean_build").exists()))
        self.post_receive()

    def pre_receive(self, deployment: Deployment) -> None:
        self.stop_cartridge(hot=deployment.hot_deploy)
        stamp = self.create_deployment()
        self.write_metadata(stamp, deployment)
        self.prune(stamp)

    def post_receive(self) -> None:
        self.control("pre-repo-archive", pre=False, post=False)
        stamp = self.latest()
        deployment = self.metadata(stamp)
        overrides = self.build_folders(stamp)
        self.archive(overrides)
        if deployment.force_clean_build:
            self.clean_dependencies(overrides)
        self.control("update-configuration", pre=False, post=False, overrides=overrides)
        try:
            for verb in ("pre-build", "build"):
                self.control(verb, pre=False, prefix=False, overrides=overrides)
        except ActionFailed:
            if self.deployments_to_keep() > 1:
                self.start_cartridge("start", hot=deployment.hot_deploy)
            raise
        hooks = (
            Path(overrides.get("OPENSHIFT_REPO_DIR", self.home / "app-root/runtime/repo")) / ".openshift/action_hooks"
        )
        self.hook(hooks, "prepare", self.environment() | overrides)
        self.prepare(stamp)
        self.activate(self.metadata(stamp).id or "")

    def archive(self, overrides: Mapping[str, str] | None = None) -> None:
        """The repository's content takes the place of what was in the folder."""
        repo = Path((overrides or {}).get("OPENSHIFT_REPO_DIR", f"{self.home}/app-root/runtime/repo/"))
        replace_content(self.home / "git", repo)

    def build_folders(self, stamp: str) -> dict[str, str]:
        """By links, a build happens in the new deployment, with a copy of the dependencies of the
        active one."""
        if self.flow is Flow.COPIES:
            return {}
        folder = self.home / "app-deployments" / stamp
        active = (self.home / "app-root/runtime/dependencies").resolve()
        if active != folder / "dependencies":
            replace_content(active, folder / "dependencies")
        return {"OPENSHIFT_REPO_DIR": f"{folder}/repo/", "OPENSHIFT_DEPENDENCIES_DIR": f"{folder}/dependencies/"}

    def clean_dependencies(self, overrides: Mapping[str, str]) -> None:
        folder = Path(overrides.get("OPENSHIFT_DEPENDENCIES_DIR", self.home / "app-root/runtime/dependencies"))
        for path in folder.iterdir():
            shutil.rmtree(path)
        for name in self.managed_names("dependency_dirs"):
            (folder / self.manifest.name / name).mkdir(parents=True)

    def prepare(self, stamp: str) -> None:
        deployment = self.metadata(stamp)
        deployment.id = secrets.token_hex(4)
        (self.home / "app-deployments/by-id" / deployment.id).symlink_to(Path("..") / stamp)
        if self.flow is Flow.COPIES:
            for name in RUNTIME_FOLDERS:
                replace_content(self.home / "app-root/runtime" / name, self.home / "app-deployments" / stamp / name)
        deployment.checksum = checksum(self.home / "app-deployments" / stamp / "repo")
        self.write_metadata(stamp, deployment)

    def activate(self, identifier: str, *, hot: bool | None = None) -> None:
        """A deployment becomes the one that is served. Also how an older one is served again, and
        what another gear of a scaled application does with one that was built elsewhere."""
        stamp = os.readlink(self.home / "app-deployments/by-id" / identifier).rpartition("/")[2]
        deployment = self.metadata(stamp)
        is_hot = deployment.hot_deploy if hot is None else hot
        if self.is_started:
            self.stop_cartridge(hot=is_hot)
        for name in RUNTIME_FOLDERS:
            target = self.home / "app-root/runtime" / name
            if self.flow is Flow.COPIES:
                replace_content(self.home / "app-deployments" / stamp / name, target)
            else:
                point(target, Path("../../app-deployments") / stamp / name)
        point(self.home / "app-deployments/current", Path(stamp))
        self.control("update-configuration", pre=False, post=False)
        self.control("deploy", pre=False, prefix=False)
        self.start_cartridge("start", hot=is_hot)
        self.control("post-deploy", pre=False, prefix=False)
        deployment.activations.append(time.time())
        self.write_metadata(stamp, deployment)

    def distribute(self, other: "Gear") -> None:
        """rsync of all deployments to another gear of the application."""
        for entry in sorted((self.home / "app-deployments").iterdir()):
            target = other.home / "app-deployments" / entry.name
            if entry.name not in ("current", "by-id") and not target.exists():
                copy(entry, target)
        for link in (self.home / "app-deployments/by-id").iterdir():
            point(other.home / "app-deployments/by-id" / link.name, Path(os.readlink(link)))

    def create_deployment(self) -> str:
        now = datetime.now(tz=timezone.utc)
        stamp = now.strftime("%Y-%m-%d_%H-%M-%S.") + f"{now.microsecond // 1000:03}"
        for name in RUNTIME_FOLDERS:
            (self.home / "app-deployments" / stamp / name).mkdir(parents=True)
        self.write_metadata(stamp, Deployment())
        return stamp

    def deployments(self) -> list[str]:
        """From the one that was activated first, or never, to the one that was last."""
        folder = self.home / "app-deployments"
        names = sorted(path.name for path in folder.iterdir() if path.name not in ("current", "by-id"))
        return sorted(names, key=lambda name: (self.metadata(name).activations or [0.0])[-1])

    def latest(self) -> str:
        return max(name for name in self.deployments() if not self.metadata(name).activations)

    def prune(self, new: str) -> None:
        """Keeps as many as the user wants, the new one among them, and what the runtime folders are links into."""
        linked = (self.home / "app-root/runtime/repo").resolve().parent.name
        others = [name for name in self.deployments() if name not in (new, linked)]
        for name in others[: max(0, len(others) - self.deployments_to_keep() + 1)]:
            identifier = self.metadata(name).id
            if identifier:
                (self.home / "app-deployments/by-id" / identifier).unlink()
            shutil.rmtree(self.home / "app-deployments" / name)

    def deployments_to_keep(self) -> int:
        return int(self.environment().get("OPENSHIFT_KEEP_DEPLOYMENTS", "1"))

    def metadata(self, stamp: str) -> Deployment:
        return Deployment(**json.loads((self.home / "app-deployments" / stamp / "metadata.json").read_text()))

    def write_metadata(self, stamp: str, deployment: Deployment) -> None:
        (self.home / "app-deployments" / stamp / "metadata.json").write_text(json.dumps(deployment.__dict__))

    # -- Snapshots ---------------------------------------------------------------------------------

    def snapshot(self, archive: Path) -> None:
        """rhc snapshot save: everything but what the cartridge excludes."""
        self.stop_cartridge()
        self.control("pre-snapshot", prefix=False)
        excluded = [os.path.relpath(path, self.home) for path in self.managed("snapshot_exclusions")]
        with tarfile.open(archive, "w") as tar:
            for name in ("app-root/data", "git", self.manifest.name, "app-deployments"):
                tar.add(self.home / name, name, filter=lambda member: None if member.name in excluded else member)
        self.control("post-snapshot", prefix=False)
        self.start_cartridge("start")

    def restore(self, archive: Path) -> None:
        """rhc snapshot restore: the repository's content, built anew."""
        self.stop_cartridge()
        self.control("pre-restore", prefix=False)
        with tarfile.open(archive) as tar:
            wanted = [member for member in tar.getmembers() if member.name.partition("/")[0] in ("git", "app-root")]
            shutil.rmtree(self.home / "git")
            tar.extractall(self.home, wanted, filter="tar")
        self.pre_receive(Deployment(force_clean_build=True))
        self.post_receive()
        self.control("post-restore", prefix=False)

    # -- From outside ------------------------------------------------------------------------------

    @property
    def address(self) -> tuple[str, int]:
        endpoint, variables = self.manifest.endpoints[0], load(self.home / ".env")
        return variables[endpoint.ip_name], int(variables[endpoint.port_name])

    def get(self, path: str = "/") -> tuple[int, str]:
        """Status and body of one request, as the front end sends it."""
        return get(self.address, path)


def get(address: tuple[str, int], path: str = "/", timeout: float = 10) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request("GET", path, headers={"X-Forwarded-Proto": "https"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    finally:
        connection.close()


def load(folder: Path) -> dict[str, str]:
    """The variables of a folder: their names are the files', their values what is in them."""
    if not folder.is_dir():
        return {}
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and path.suffix != ".erb"]
    return {path.name: path.read_text().removesuffix("\n") for path in files}


def copy(source: Path, target: Path) -> None:
    """cp -a: links stay links, times stay as they are, and what is there is laid over.

    Files of a virtualenv become hard links, which is faster: nobody writes into one.
    """
    target.mkdir(parents=True, exist_ok=True)
    how = "-al" if "dependencies" in target.parts else "-a"
    subprocess.run(["cp", how, "--remove-destination", f"{source}/.", str(target)], check=True)


def replace_content(source: Path, target: Path) -> None:
    """What rsync -a --delete comes to; less gentle, because the folder is empty for a while."""
    for path in list(target.iterdir()):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    copy(source, target)


def point(link: Path, target: Path) -> None:
    new = link.with_name(f"{link.name}.new")
    new.symlink_to(target)
    new.replace(link)


def checksum(folder: Path) -> str:
    total = hashlib.sha1(usedforsecurity=False)
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            total.update(path.read_bytes())
    return total.hexdigest()


def free_address(host: int, port: int) -> str:
    """The next gear's address in 127/8 at which nobody listens. The first thousand users are the
    system's."""
    for user in range(1000 + os.getpid() % 60000, 1000 + 2**17):
        address = str(ipaddress.IPv4Address((127 << 24) + (user << 7) + host))
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError:
                continue
            return address
    raise AssertionError("127/8 is full")
