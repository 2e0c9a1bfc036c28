"""How many workers the platform has room for: Heroku's rule, which its config files and its users know."""

import math
import os
from collections.abc import Mapping

# What a worker of a Django application takes, by that rule.
MIB_A_WORKER = 256
# More than any host has is how version 1 of the cgroups says that there is no limit.
NO_LIMIT = 1 << 40


def web_concurrency(environ: Mapping[str, str], cgroups: str = "/sys/fs/cgroup") -> int:
    """Two for each processor and one more, but no more than there is memory for at 256 MiB each; at least one."""
    workers = 2 * processors(cgroups) + 1
    memory = memory_limit(environ, cgroups)
    if memory:
        workers = min(workers, memory // (MIB_A_WORKER << 20))
    return max(workers, 1)


def processors(cgroups: str) -> int:
    """Those that this process may use, or what a quota lets it have of them."""
    count = len(os.sched_getaffinity(0))
    quota, _, period = read(f"{cgroups}/cpu.max").partition(" ")
    if not quota:
        quota, period = read(f"{cgroups}/cpu/cpu.cfs_quota_us"), read(f"{cgroups}/cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit() and int(period):
        count = min(count, math.ceil(int(quota) / int(period)))
    return max(count, 1)


def memory_limit(environ: Mapping[str, str], cgroups: str) -> int:
    """In bytes: what Cloud Foundry or OpenShift says, else the cgroup; 0 without a limit."""
    said = environ.get("MEMORY_LIMIT", "").strip().upper().removesuffix("B")
    factors = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    if said[:-1].isdigit() and said[-1] in factors:
        return int(said[:-1]) * factors[said[-1]]
    gear = environ.get("OPENSHIFT_GEAR_MEMORY_MB", "")
    if gear.isdigit():
        return int(gear) << 20
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        limit = read(f"{cgroups}/{name}")
        if limit.isdigit() and int(limit) < NO_LIMIT:
            return int(limit)
    return 0


def read(path: str) -> str:
    """A file of the kernel's, without its line end; empty where there is none."""
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
