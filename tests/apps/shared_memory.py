"""What of the memory that the server's processes share a worker can write to."""

import ctypes
import json
import mmap
import os

libc = ctypes.CDLL(None, use_errno=True)


def mappings():
    """Each mapping of shared memory: its name, addresses, and whether it is writable."""
    with open("/proc/self/maps") as maps:
        for line in maps:
            addresses, access, *rest = line.split(maxsplit=5)
            start, end = (int(address, 16) for address in addresses.split("-"))
            if "s" in access and rest[-1].startswith("/memfd:monoceros"):
                yield {"name": rest[-1].split()[0], "start": start, "size": end - start, "writable": "w" in access}


def made_writable(mapping):
    """Whether the kernel lets anybody make it so; it is not written to."""
    address, size = ctypes.c_void_p(mapping["start"]), ctypes.c_size_t(mapping["size"])
    return libc.mprotect(address, size, mmap.PROT_READ | mmap.PROT_WRITE) == 0


def application(environ, start_response):
    found = list(mappings())
    if environ["PATH_INFO"] == "/spoil":
        rows = [one["start"] for one in found if one["name"].endswith("scoreboard") and not one["writable"]]
        ctypes.memset(rows[0], 255, 8)
    for mapping in found:
        mapping["made_writable"] = mapping["writable"] or made_writable(mapping)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "page": mmap.PAGESIZE, "mappings": found}).encode()]
