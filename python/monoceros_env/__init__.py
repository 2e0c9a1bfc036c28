"""The credentials of bound services, in whichever way the platform hands them over.

    import monoceros_env

    monoceros_env.apply()                                            # DATABASE_URL and others, into os.environ
    DATABASES = {"default": monoceros_env.database(default="sqlite:///dev.db")}     # Django's form

They come from ``VCAP_SERVICES`` or the file ``VCAP_SERVICES_FILE_PATH`` (Cloud Foundry), the folders below
``SERVICE_BINDING_ROOT`` (servicebinding.io) and ``OPENSHIFT_*_DB_*`` (OpenShift 2, Jelastic). What a variable already
says stays. No text, representation or error of this module has a password in it.

It must not know the server: an application may use it with any.
"""

import os
from collections.abc import MutableMapping

from monoceros_env._bindings import Binding, read_bindings
from monoceros_env._sizing import web_concurrency
from monoceros_env._urls import Location, django_settings

__all__ = ["Binding", "apply", "bindings", "database", "database_url", "find", "variables"]

# What DATABASE_URL can be of.
DATABASES = {"postgresql", "mysql", "oracle", "mssql", "db2"}


def bindings(environ: "MutableMapping[str, str]" = os.environ) -> list[Binding]:
    """Every bound service, in the platform's order."""
    return read_bindings(environ)


def find(wanted: str, environ: "MutableMapping[str, str]" = os.environ) -> Binding:
    """The service of that name; else the first with that label, with or without its version, that tag or that kind."""
    found = bindings(environ)
    for fits in (
        lambda one: one.name == wanted,
        lambda one: wanted in (one.label, one.label.partition("-")[0]),
        lambda one: wanted in one.tags,
        lambda one: one.kind == wanted,
    ):
        for binding in found:
            if fits(binding):
                return binding
    names = ", ".join(binding.name for binding in found) or "none"
    raise LookupError(f"no bound service has the name, label, tag or kind {wanted!r}; bound are: {names}")


def database_url(wanted: str = "", environ: "MutableMapping[str, str]" = os.environ) -> str:
    """The URL of a database, and the empty string where there is none.

    That is the service `wanted`, as ``find`` takes it, or the one that ``MONOCEROS_DATABASE`` names; else
    ``DATABASE_URL``; else the first database that is bound.
    """
    wanted = wanted or environ.get("MONOCEROS_DATABASE", "")
    if wanted:
        return find(wanted, environ).url
    if given := environ.get("DATABASE_URL"):
        return Location.normal(given)
    return next((one.url for one in bindings(environ) if one.kind in DATABASES and one.url), "")


def database(
    wanted: str = "", default: str = "", environ: "MutableMapping[str, str]" = os.environ, **settings: object
) -> dict[str, object]:
    """An entry of Django's ``DATABASES``; `default` is the URL where nothing is bound, `settings` are added to it."""
    url = database_url(wanted, environ) or default
    if not url:
        raise LookupError("no database is bound, and there is no default")
    return {**django_settings(url), **settings}


def variables(environ: "MutableMapping[str, str]" = os.environ) -> dict[str, str]:
    """What ``apply`` sets: ``DATABASE_URL``, ``<SERVICE>_URL`` for each service that has a URL, ``WEB_CONCURRENCY``."""
    found = {}
    url = database_url(environ=environ)
    if url and (url != environ.get("DATABASE_URL")):
        found["DATABASE_URL"] = url
    for binding in bindings(environ):
        if binding.url and binding.variable not in environ:
            found.setdefault(binding.variable, binding.url)
    if not environ.get("WEB_CONCURRENCY"):
        found["WEB_CONCURRENCY"] = str(web_concurrency(environ))
    return found


def apply(environ: "MutableMapping[str, str]" = os.environ) -> None:
    """Sets the variables. One that is set stays, but ``DATABASE_URL`` gets the usual name of its scheme (``mysql2`` is
    ``mysql``, ``postgres`` is ``postgresql``), and is the URL of ``MONOCEROS_DATABASE`` where that is set."""
    environ.update(variables(environ))
