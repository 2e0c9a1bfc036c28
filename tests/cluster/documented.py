"""The values that examples/kubernetes documents, read from its files: what the laboratory runs is what users copy."""

import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

from pods import Probe, Template

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "examples/kubernetes/base"
PROGRAM = os.environ.get("MONOCEROS_TEST_PROGRAM") or shutil.which("monoceros") or ""


def lay_out(folder: Path) -> None:
    """What a pod finds in its image: the settings and the app."""
    for file in (BASE / "monoceros.toml", Path(__file__).with_name("app.py")):
        shutil.copy(file, folder)


def template(folder: Path, *arguments: str, **changes: object) -> Template:
    """The pods of the base, with more arguments for the server and other values where they are given."""
    text = (BASE / "deployment.yaml").read_text()
    # A worker for each processor that the pod asks for; two are two, whatever the machine.
    documented = Template(
        (PROGRAM, "--config", "monoceros.toml", *arguments, "app:app"), folder, startup=probe(text, "startupProbe"),
        readiness=probe(text, "readinessProbe"), liveness=probe(text, "livenessProbe"),
        grace=number(text, "terminationGracePeriodSeconds"), environment={"WEB_CONCURRENCY": "2"},
    )  # fmt: skip
    return replace(documented, **changes)  # type: ignore[arg-type]


def setting(name: str) -> float:
    """A number of monoceros.toml."""
    found = re.search(rf"(?m)^{name} = (\d+)$", (BASE / "monoceros.toml").read_text())
    assert found, f"monoceros.toml has {name}"
    return float(found[1])


def probe(text: str, name: str) -> Probe:
    """A probe of the Deployment, with Kubernetes' defaults for what it leaves out."""
    found = re.search(rf"(?m)^( +){name}:\n((?:\1 +.*\n)+)", text)
    assert found, f"the Deployment has a {name}"
    path = re.search(r"path: (\S+)", found[2])
    assert path, f"{name} asks by HTTP"
    return Probe(path[1], number(found[2], "periodSeconds", 10), number(found[2], "timeoutSeconds", 1),
                 int(number(found[2], "failureThreshold", 3)))  # fmt: skip


def number(text: str, name: str, default: float | None = None) -> float:
    found = re.search(rf"{name}: (\d+)", text)
    if found:
        return float(found[1])
    assert default is not None, f"the Deployment has {name}"
    return default
