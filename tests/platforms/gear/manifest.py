"""A cartridge's manifest as the two platforms read it: OpenShift as YAML with rules of its own,
Jelastic line by line."""

import json
import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CATEGORIES = {"web_framework", "plugin", "service", "embedded", "web_proxy", "ci_builder", "external"}
NUMBERS = re.compile(r"(\d+\.*)+")


class InvalidManifest(Exception):
    """The platform would not take the cartridge. The text says why."""


@dataclass
class Endpoint:
    """An address that the gear gets, by the names of the variables that hold it."""

    ip_name: str
    port_name: str
    port: int
    public_port_name: str | None


@dataclass
class Manifest:
    """What the platform keeps of a manifest."""

    name: str
    short_name: str
    vendor: str
    version: str
    cartridge_version: str
    compatible_versions: list[str]
    is_built_at_first: bool
    actions: list[str]
    endpoints: list[Endpoint]

    @property
    def ident(self) -> str:
        return ":".join([self.vendor, self.name, self.version, self.cartridge_version])


def load_yaml(path: Path) -> Any:
    """YAML as Ruby reads it, which is what the platform is written in."""
    script = "require 'yaml'; require 'json'; print JSON.dump(YAML.load_file(ARGV[0]))"
    return json.loads(subprocess.run(["ruby", "-e", script, str(path)], check=True, capture_output=True).stdout)


def check(is_right: bool, sentence: str) -> None:
    if not is_right:
        raise InvalidManifest(sentence)


def read(path: Path, version: str | None = None) -> Manifest:
    """A manifest for one of its versions, by the rules of OpenShift's own reader."""
    said = load_yaml(path)
    check("Version" in said, "Version is a required element")
    versions = said.get("Versions") or []
    check(isinstance(versions, list), "Versions is a list")
    compatible = said.get("Compatible-Versions") or []
    check(isinstance(compatible, list), "Compatible-Versions is a list")
    versions = list(dict.fromkeys([*versions, said["Version"]]))
    # A number that YAML takes for a float has lost its last zero: 3.10 would be 3.1.
    check(all(isinstance(number, str) for number in [*versions, *compatible]), "versions are quoted")
    version = version or said["Version"]
    check(version in versions, f"there is no version {version}")
    said |= (said.get("Version-Overrides") or {}).get(version, {})
    check_names(said)
    check_numbers(said, versions)
    short = said["Cartridge-Short-Name"].upper()
    return Manifest(
        name=said["Name"],
        short_name=short,
        vendor=said["Cartridge-Vendor"],
        version=version,
        cartridge_version=str(said["Cartridge-Version"]),
        compatible_versions=compatible,
        is_built_at_first=bool(said.get("Install-Build-Required", False)),
        actions=said.get("Additional-Control-Actions") or [],
        endpoints=[endpoint(short, entry) for entry in said.get("Endpoints") or []],
    )


def check_names(said: dict[str, Any]) -> None:
    name, vendor = said.get("Name", ""), said.get("Cartridge-Vendor", "")
    check(bool(re.fullmatch(r"[a-z0-9]([-._a-z0-9]*[a-z0-9])?", name)) and len(name) <= 32, f"the name is {name!r}")
    check(name not in ("app-root", "git"), f"{name} is reserved")
    check(
        bool(re.fullmatch(r"[a-z0-9]([a-z0-9_]*[a-z0-9])?", vendor)) and len(vendor) <= 32, f"the vendor is {vendor!r}"
    )
    check(vendor != "redhat", "redhat is reserved")
    check(bool(said.get("Cartridge-Short-Name")) and "-" not in said["Cartridge-Short-Name"], "there is a short name")


def check_numbers(said: dict[str, Any], versions: list[str]) -> None:
    for number in [*versions, str(said.get("Cartridge-Version"))]:
        check(bool(NUMBERS.fullmatch(number)), f"{number} would count as 0.0.0")
    categories = set(said.get("Categories") or [])
    check(bool(categories & CATEGORIES), "one of the platform's categories is there")
    check(not {"web_framework", "external"} <= categories, "what is external is no web framework")
    scaling = said.get("Scaling") or {}
    check(0 not in (scaling.get("Min", 1), scaling.get("Max", -1)), "a cartridge does not scale to 0")


def endpoint(short: str, entry: dict[str, Any]) -> Endpoint:
    for key in ("Private-IP-Name", "Private-Port-Name", "Private-Port"):
        check(bool(entry.get(key)), f"{key} is a required element")
    check(isinstance(entry["Private-Port"], int), "Private-Port is a number")
    public = entry.get("Public-Port-Name")
    return Endpoint(
        ip_name=f"OPENSHIFT_{short}_{entry['Private-IP-Name']}",
        port_name=f"OPENSHIFT_{short}_{entry['Private-Port-Name']}",
        port=entry["Private-Port"],
        public_port_name=f"OPENSHIFT_{short}_{public}" if public else None,
    )


def read_by_line(path: Path) -> dict[str, str]:
    """What Jelastic's agent keeps: lines with "name", "private" or "version=" in them, as
    assignments that a shell reads."""
    kept = []
    for line in path.read_text().splitlines():
        # The first character behind the colon is lost, which should be the space.
        assigned = re.sub(r" *=", "=", re.sub(r":[^:/]", '="', line) + '"')
        if re.search(r"name|private|version=", assigned, re.IGNORECASE):
            assigned = re.sub(r"^-", "", assigned).replace("-", "_").replace(" _", "").replace(" ", "")
            kept.append(assigned.replace("\"'", '"').replace("'\"", '"'))
    script = "\n".join(
        [*kept, "declare -p Name Cartridge_Short_Name Version Private_IP_Name Private_Port_Name Private_Port"]
    )
    said = subprocess.run(["bash", "-ec", script], check=True, capture_output=True, text=True).stdout
    words = (shlex.split(line)[2].partition("=") for line in said.splitlines())
    return {name: value for name, _, value in words}
