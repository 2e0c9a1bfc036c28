"""Access lines as JSON where Python's logging writes them: the same objects that the server makes, and made by it."""

import _monoceros
from gunicorn.glogging import SafeAtoms


def line_of(record):
    """The line of a record of `gunicorn.access`: of a request's atoms, or as the server has rendered it."""
    atoms = record.args.raw if isinstance(record.args, SafeAtoms) else {}
    if "m" not in atoms:
        return record.getMessage()
    return _monoceros.access_object(_values_of(atoms))


def _values_of(atoms):
    id_header = _monoceros.access_log()[2]
    return {
        "remote_addr": atoms["h"],
        "user": None if atoms["u"] == "-" else atoms["u"],
        "method": atoms["m"],
        "target": atoms.get("{raw_uri}e", atoms["U"]),
        "protocol": atoms["H"],
        "status": int(atoms["s"]),
        "bytes": atoms["B"],
        "microseconds": atoms["D"],
        "referer": atoms.get("{referer}i"),
        "user_agent": atoms.get("{user-agent}i"),
        "host": atoms.get("{host}i"),
        "scheme": atoms.get("{wsgi.url_scheme}e"),
        "queue": atoms.get("{monoceros.queue_time}e"),
        "request_id": id_header and atoms.get(f"{{{id_header.lower()}}}i"),
        "traceparent": atoms.get("{traceparent}i"),
    }
