"""The program that `gunicorn` is, as a class: an app that the command line names. It must not parse the name itself."""

import _monoceros
from gunicorn import util
from gunicorn.app.base import Application
from gunicorn.errors import ConfigError


class WSGIApplication(Application):
    """The app that APP_MODULE, `wsgi_app` or `paste` names."""

    def init(self, parser, opts, args):
        self.app_uri = None
        if paste := getattr(opts, "paste", None):
            from gunicorn.app.pasterapp import has_logging_config

            self.cfg.set("default_proc_name", paste)
            self.app_uri = paste
            config_file = paste.partition("#")[0]
            return {"logconfig": config_file} if has_logging_config(config_file) else None
        if args:
            self.cfg.set("default_proc_name", args[0])
            self.app_uri = args[0]
        return None

    def load_config(self):
        super().load_config()
        if self.app_uri is None:
            self.app_uri = self.cfg.wsgi_app
        if self.app_uri is None:
            raise ConfigError("No application module specified.")

    def load_wsgiapp(self):
        return util.import_app(self.app_uri)

    def load_pasteapp(self):
        from gunicorn.app.pasterapp import get_wsgi_app

        return get_wsgi_app(self.app_uri, defaults=self.cfg.paste_global_conf)

    def load(self):
        return self.load_pasteapp() if self.cfg.paste else self.load_wsgiapp()


def run(prog=None):
    """Serves the app that the command line names."""
    run_command_line = getattr(_monoceros, "run_command_line", None)
    if run_command_line is not None:
        run_command_line()
    WSGIApplication("%(prog)s [OPTIONS] [APP_MODULE]", prog=prog).run()
