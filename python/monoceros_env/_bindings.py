"""Reads bound services from the environment and from files. It knows the platforms' forms and no URLs."""

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from monoceros_env._urls import Location, kind_of

# What Cloud Foundry allows for all credentials together. A larger file is none.
LARGEST_FILE = 1 << 20


@dataclass(frozen=True)
class Binding:
    """A bound service. Its credentials and its URL are in no representation."""

    name: str
    label: str = ""
    tags: tuple[str, ...] = ()
    credentials: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def kind(self) -> str:
        """``postgresql``, ``mysql``, ``redis`` and so on, in the spelling of URLs; empty where nothing tells."""
        hints = [str(self.credentials.get("type", "")), self.label, *self.tags, self.name]
        return kind_of(self.credentials, hints)

    @property
    def location(self) -> Location:
        """Where the service is, and as whom to go there."""
        return Location.of_credentials(self.credentials, self.kind)

    @property
    def url(self) -> str:
        """The URL, with its parts quoted; empty where the credentials tell none."""
        return self.location.url

    @property
    def variable(self) -> str:
        """The variable that carries the URL: ``ORDERS_DB_URL`` for ``orders-db``."""
        return re.sub(r"\W+", "_", self.name, flags=re.ASCII).strip("_").upper() + "_URL"


def read_bindings(environ: Mapping[str, str]) -> list[Binding]:
    """From each of the places that the environment names."""
    found = []
    if text := environ.get("VCAP_SERVICES"):
        found += from_vcap(text, "VCAP_SERVICES")
    if path := environ.get("VCAP_SERVICES_FILE_PATH"):
        found += from_vcap(read_file(path), path)
    if root := environ.get("SERVICE_BINDING_ROOT"):
        found += from_folders(root)
    return found + from_openshift(environ)


def from_vcap(text: str, origin: str) -> list[Binding]:
    """Cloud Foundry's JSON: a list of services for each label."""
    try:
        services = [service for listed in json.loads(text).values() for service in listed]
        return [
            Binding(
                name=service.get("name") or service.get("instance_name") or service.get("label") or "",
                label=service.get("label") or "",
                tags=tuple(service.get("tags") or ()),
                credentials=service.get("credentials") or {},
            )
            for service in services
        ]
    except (AttributeError, TypeError, ValueError):
        # Not with the cause, which carries the text.
        raise ValueError(f"{origin} is not Cloud Foundry's JSON of services") from None


def from_folders(root: str) -> list[Binding]:
    """servicebinding.io: a folder for each service, a file for each value. Names with a dot in front are no values."""
    if not os.path.isdir(root):
        return []
    found = []
    for name in sorted(os.listdir(root)):
        folder = os.path.join(root, name)
        if name.startswith(".") or not os.path.isdir(folder):
            continue
        keys = [key for key in sorted(os.listdir(folder)) if os.path.isfile(os.path.join(folder, key))]
        values = values_of(folder, [key for key in keys if not key.startswith(".")])
        if any(key.startswith("instance") for key in values):
            # Cloud Foundry puts what it says of the service beside the credentials: this name is the service's.
            values.pop("name", None)
        tags = values.get("tags")
        label = str(values.get("label") or values.get("provider") or "")
        found.append(Binding(name, label, tuple(tags) if isinstance(tags, list) else (), values))
    return found


def values_of(folder: str, keys: list[str]) -> dict[str, Any]:
    """The values that are text. A Secret may hold anything, such as a key store, which nobody asks for here."""
    values = {}
    for key in keys:
        with contextlib.suppress(UnicodeDecodeError):
            values[key] = value_of(read_file(os.path.join(folder, key)))
    return values


def value_of(text: str) -> Any:
    """Lists and objects are written as JSON; everything else is its own text, without the line's end."""
    text = text.removesuffix("\n")
    if text[:1] in ("[", "{"):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def from_openshift(environ: Mapping[str, str]) -> list[Binding]:
    """The variables of OpenShift's database cartridges. The database has the application's name."""
    found = []
    for kind in ("postgresql", "mysql", "mongodb"):
        prefix = f"OPENSHIFT_{kind.upper()}_DB_"
        said = {name.removeprefix(prefix): value for name, value in environ.items() if name.startswith(prefix)}
        if not (said.get("HOST") or said.get("SOCKET") or said.get("URL")):
            continue
        credentials = {
            "type": kind,
            "uri": said.get("URL", ""),
            "host": said.get("HOST") or said.get("SOCKET", ""),
            "port": said.get("PORT", ""),
            "username": said.get("USERNAME", ""),
            "password": said.get("PASSWORD", ""),
            "database": environ.get("OPENSHIFT_APP_NAME", ""),
        }
        found.append(Binding(f"openshift-{kind}", kind, (), credentials))
    return found


def read_file(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        text = file.read(LARGEST_FILE + 1)
    if len(text) > LARGEST_FILE:
        raise ValueError(f"{path} has more than {LARGEST_FILE} characters, and is no credential")
    return text
