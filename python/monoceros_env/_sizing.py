"""How many workers there is room for: Heroku's rule, which its config files and its users know.

It is the rule of the server's own ``workers = auto``, for servers that only know ``WEB_CONCURRENCY``.
"""

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path

# What a worker of a Django application takes, by that rule.
MIB_A_WORKER = 256
# Version 1 of the cgroups says "no limit" by a number near the end of the address space.
NO_LIMIT = 1 << 60


def web_concurrency(environ: Mapping[str, str], root: str = "/") -> int:
    """Two for each processor and one more, but no more than there is memory for at 256 MiB each; at least one.

    `root` is the root of the file system in which the kernel shows its figures.
    """
    workers = 2 * processors(environ, Path(root)) + 1
    memory = memory_limit(environ, Path(root))
    if memory:
        workers = min(workers, memory // (MIB_A_WORKER << 20))
    return max(workers, 1)


def processors(environ: Mapping[str, str], root: Path) -> int:
    """What ``MONOCEROS_CPUS`` says; else those that this process may use, or what a quota lets it have of them."""
    said = re.fullmatch(r"([0-9]+)(m|\.[0-9]+)?", environ.get("MONOCEROS_CPUS", "").strip(), re.ASCII)
    if said:
        count, unit = said.groups()
        # Whole thousandths, as Kubernetes counts.
        thousandths = int(count) if unit == "m" else int(count) * 1000 + int(f"{(unit or '.0')[1:4]:0<3}")
        if thousandths:
            return math.ceil(thousandths / 1000)
    count = len(os.sched_getaffinity(0))
    for folder in groups(root, "cpu"):
        quota, _, period = read(folder / "cpu.max").partition(" ")
        if not quota:
            quota, period = read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(period):
            count = min(count, math.ceil(int(quota) / int(period)))
    return max(count, 1)


def memory_limit(environ: Mapping[str, str], root: Path) -> int:
    """In bytes: the least of what the platform says, the cgroup may use, and there is; 0 where nobody says."""
    limits = [said_memory(environ)]
    for folder in groups(root, "memory"):
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = read(folder / name)
            if limit.isdecimal() and int(limit) < NO_LIMIT:
                limits.append(int(limit))
    total = re.search(r"^MemTotal:\s*([0-9]+) kB$", read(root / "proc/meminfo"), re.MULTILINE)
    if total:
        limits.append(int(total.group(1)) << 10)
    return min((limit for limit in limits if limit), default=0)


def said_memory(environ: Mapping[str, str]) -> int:
    """What Cloud Foundry or OpenShift says; 0 where they do not."""
    said = re.fullmatch(r"([0-9]+)([KMG])B?", environ.get("MEMORY_LIMIT", "").strip().upper(), re.ASCII)
    if said:
        count, unit = said.groups()
        return int(count) * {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}[unit]
    gear = environ.get("OPENSHIFT_GEAR_MEMORY_MB", "").strip()
    return int(gear) << 20 if re.fullmatch("[0-9]+", gear) else 0


def groups(root: Path, controller: str) -> list[Path]:
    """The folder of this process's cgroup and those around it: of the controller's own hierarchy (version 1), else of
    the one that all share (version 2). See cgroups(7)."""
    mount = root / "sys/fs/cgroup"
    lines = [line.split(":", 2)[1:] for line in read(root / "proc/self/cgroup").splitlines() if line.count(":") >= 2]
    paths = {name: path for names, path in reversed(lines) for name in names.split(",")}
    if controller in paths:
        mount /= controller
    elif "" not in paths:
        return []
    # In a container the path may be the host's, which cannot be seen from inside.
    inner = mount / paths.get(controller, paths.get("", "")).lstrip("/")
    if not inner.is_dir():
        inner = mount
    return [folder for folder in (inner, *inner.parents) if folder.is_relative_to(mount)]


def read(path: Path) -> str:
    """A file of the kernel's, without its line end; empty where there is none."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""
