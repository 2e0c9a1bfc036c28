"""The server hooks: which there are, what each is called with, and how a value becomes one.

Apart from `config`, so that the table stands on its own. It must not know when a hook is called.
"""

from gunicorn import util

# Each hook's parameters, in order. Those of post_request may be cut after two or three.
PARAMETERS = {
    "on_starting": ("server",),
    "on_reload": ("server",),
    "when_ready": ("server",),
    "pre_fork": ("server", "worker"),
    "post_fork": ("server", "worker"),
    "post_worker_init": ("worker",),
    "worker_int": ("worker",),
    "worker_abort": ("worker",),
    "pre_exec": ("server",),
    "pre_request": ("worker", "req"),
    "post_request": ("worker", "req", "environ", "resp"),
    "child_exit": ("server", "worker"),
    "worker_exit": ("server", "worker"),
    "nworkers_changed": ("server", "new_value", "old_value"),
    "on_exit": ("server",),
    "ssl_context": ("config", "default_ssl_context_factory"),
    "on_dirty_starting": ("arbiter",),
    "dirty_post_fork": ("arbiter", "worker"),
    "dirty_worker_init": ("worker",),
    "dirty_worker_exit": ("arbiter", "worker"),
}
FEWEST_OF_POST_REQUEST = 2


def default(name):
    """The hook where the user has set none. It does nothing, and shows its setting's name."""
    if name == "ssl_context":
        def hook(config, default_ssl_context_factory):
            return default_ssl_context_factory()
    else:
        def hook(*arguments):
            return None
    hook.__name__ = hook.__qualname__ = name
    return hook


def resolve(name, value):
    """The callable that `value` is, or that it names by a dotted path. TypeError if it cannot be the hook `name`."""
    hook = _import(value) if isinstance(value, str) else value
    if not callable(hook):
        raise TypeError(f"{value!r} is not callable")
    check_arity(name, hook)
    return hook


def _import(path):
    module, _, attribute = path.rpartition(".")
    if not module:
        raise TypeError(f"{path!r} is not an import path, such as package.module.function")
    import importlib

    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError as error:
        raise TypeError(f"{path!r} cannot be imported: {error}") from error
    except AttributeError:
        raise TypeError(f"there is no {attribute!r} in {module!r}") from None


def check_arity(name, hook):
    """TypeError unless `hook` takes as many positional arguments as it is called with."""
    if name not in PARAMETERS:
        return
    try:
        arity = util.get_arity(hook)
    except ValueError:
        raise TypeError(f"the parameters of {hook!r} cannot be told; wrap it in a function") from None
    parameters = PARAMETERS[name]
    if arity == len(parameters):
        return
    if name == "post_request" and FEWEST_OF_POST_REQUEST <= arity < len(parameters):
        return
    wanted = "2 to 4 arguments" if name == "post_request" else _arguments(len(parameters))
    raise TypeError(f"{hook!r} must take {wanted} ({', '.join(parameters)}), and takes {arity}")


def _arguments(count):
    return "1 argument" if count == 1 else f"{count} arguments"


def shortened(hook, arity):
    """`hook`, made to take `arity` arguments by leaving out the last ones."""
    own = util.get_arity(hook)
    if own == arity:
        return hook
    return lambda *arguments: hook(*arguments[:own])
