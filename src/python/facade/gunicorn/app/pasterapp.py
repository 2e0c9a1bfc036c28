"""Apps that a PasteDeploy file describes, and the server that such a file asks for.

PasteDeploy is not a dependency: a project with such a file has it installed. It must not read the file's format itself.
"""

import configparser

from gunicorn import util
from gunicorn.app.base import Application
from gunicorn.config import get_default_config_file


def get_wsgi_app(config_uri, name=None, defaults=None):
    """The app of a PasteDeploy file: `FILE.ini` or `FILE.ini#NAME`."""
    from paste.deploy import loadapp

    uri = config_uri if ":" in config_uri else f"config:{config_uri}"
    return loadapp(uri, name=name, relative_to=util.getcwd(), global_conf=defaults)


def has_logging_config(config_file):
    """Whether the file also configures Python's logging."""
    parser = configparser.ConfigParser()
    parser.read([config_file])
    return parser.has_section("loggers")


def serve(app, global_conf, **local_conf):
    """Serves `app` with the settings of a `[server:main]` section; the entry point that such a section names."""
    _PasteApplication(app, global_conf, local_conf).run()


class _PasteApplication(Application):
    def __init__(self, app, global_conf, local_conf):
        self._app = app
        self._file = global_conf.get("__file__")
        self._section = local_conf
        super().__init__()

    def load_config(self):
        section = dict(self._section)
        config, host, port = (section.pop(name, None) for name in ("config", "host", "port"))
        if self._file:
            self.cfg.set("default_proc_name", self._file)
            if has_logging_config(self._file):
                self.cfg.set("logconfig", self._file)
        config = config or get_default_config_file()
        if config:
            self.load_config_from_file(config)
        # As gunicorn reads them: a port alone means nothing, a host alone may be several addresses.
        if host and port:
            section["bind"] = f"{host}:{port}"
        elif host:
            section["bind"] = host.split(",")
        for name, value in section.items():
            self.cfg.set(name.lower(), value)

    def load(self):
        return self._app
