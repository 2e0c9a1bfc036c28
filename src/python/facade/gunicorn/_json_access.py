"""Access lines as JSON where Python's logging writes them: the same objects that logging/json.rs makes."""

import json
import os
from datetime import datetime

from gunicorn.glogging import SafeAtoms

# Characters that control terminals, which `json` does not escape.
_STEERING = {code: f"\\u{code:04x}" for code in (*range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A))}


def line_of(record):
    """The line of a record of `gunicorn.access`: of a request's atoms, or as the server has rendered it."""
    atoms = record.args.raw if isinstance(record.args, SafeAtoms) else {}
    if "m" not in atoms:
        return record.getMessage()
    return json.dumps(_object_of(atoms), ensure_ascii=False, separators=(",", ":")).translate(_STEERING)


def _object_of(atoms):
    return {
        "time": datetime.now().astimezone().isoformat(timespec="milliseconds"),
        "pid": os.getpid(),
        "remote_addr": atoms["h"],
        "user": None if atoms["u"] == "-" else atoms["u"],
        "method": atoms["m"],
        "target": atoms.get("{raw_uri}e", atoms["U"]),
        "protocol": atoms["H"],
        "status": int(atoms["s"]),
        "bytes": atoms["B"],
        "duration": atoms["D"] / 1_000_000,
        "referer": atoms.get("{referer}i"),
        "user_agent": atoms.get("{user-agent}i"),
    }
