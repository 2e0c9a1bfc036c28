"""The server of a PasteDeploy file: ``[server:main]`` with ``use = egg:monoceros#main``."""

from typing import Any

from monoceros import _monoceros


def serve(app: Any, global_conf: dict[str, str], **local_conf: str) -> None:
    """Serves ``app`` with the settings of the section, and ends the process."""
    _monoceros.carry_gunicorn()
    from gunicorn.app import pasterapp

    pasterapp.serve(app, global_conf, **local_conf)
