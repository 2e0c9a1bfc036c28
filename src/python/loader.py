"""Finds the application that an APP_MODULE argument names.

Python rather than Rust because the expression after the colon is Python: `ast` parses it and `ast.literal_eval` is what
makes a factory's arguments literals and nothing more. It is imported where there is something to parse: it brings half
a dozen other modules along, which would lie in every worker's memory.
"""

import os
import sys
from keyword import iskeyword

# The name of a script as a module. It has none of its own that could be imported.
SCRIPT_MODULE = "_wsgi_script"

# The scripts that were executed, for `--reload`.
scripts = []


class AppError(Exception):
    """The module was imported, but it holds no usable application."""


def load(spec):
    """Returns the callable that `spec` names: `module`, `module:name` or `module:factory("x", k=1)`."""
    module_name, colon, expression = spec.partition(":")
    if not colon:
        expression = "application"
    return find_in(import_module(module_name, expression), module_name, expression)


def load_script(spec):
    """Returns the callable of a script, whatever its suffix: `PATH`, `PATH:name` or `PATH:factory("x", k=1)`."""
    path, expression = spec, "application"
    if not os.path.exists(spec) and ":" in spec:
        path, _, expression = spec.partition(":")
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise AppError(f"Failed to find the WSGI script {path!r}.")
    return find_in(run_script(path), path, expression)


def run_script(path):
    """The script as a module, without bytecode beside it: nobody expects a `__pycache__` there."""
    scripts.append(path)
    with open(path, "rb") as file:
        source = file.read()
    # As for a script that Python is given: what lies beside it can be imported.
    folder = os.path.dirname(path)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = type(sys)(SCRIPT_MODULE)
    module.__file__ = path
    # Frameworks look there for the folder of their templates.
    sys.modules[SCRIPT_MODULE] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[SCRIPT_MODULE]
        raise
    return module


def find_in(module, module_name, expression):
    name, call = parse(expression)
    try:
        app = getattr(module, name)
    except AttributeError:
        raise AppError(f"Failed to find attribute {name!r} in {module_name!r}.") from None
    if call is not None:
        app = call_factory(app, *call)
    if app is None:
        raise AppError(f"Failed to find application object: {expression!r}")
    if not callable(app):
        raise AppError("Application object must be callable.")
    return app


def import_module(name, expression):
    try:
        __import__(name)
        return sys.modules[name]
    except ImportError:
        # `monoceros app.py` is a common mistake; anything else is the module's own error and keeps its traceback.
        if name.endswith(".py") and os.path.exists(name):
            raise ImportError(f"Failed to find application, did you mean '{name[:-3]}:{expression}'?") from None
        raise


def parse(expression):
    """Splits `name` or `name(literals)` into the name and, for a call, its arguments."""
    if expression.isidentifier() and not iskeyword(expression):
        return expression, None
    import ast

    unusable = AppError(f"Failed to parse {expression!r} as an attribute name or function call.")
    try:
        node = ast.parse(expression, mode="eval").body
    except SyntaxError:
        raise unusable from None
    if isinstance(node, ast.Name):
        return node.id, None
    if not isinstance(node, ast.Call):
        raise unusable
    if not isinstance(node.func, ast.Name):
        raise AppError(f"Function reference must be a simple name: {expression!r}")
    try:
        positional = [ast.literal_eval(argument) for argument in node.args]
        keywords = {keyword.arg: ast.literal_eval(keyword.value) for keyword in node.keywords}
    except ValueError:
        raise AppError(f"Failed to parse arguments as literal values: {expression!r}") from None
    return node.func.id, (positional, keywords)


def call_factory(factory, positional, keywords):
    try:
        return factory(*positional, **keywords)
    except TypeError as error:
        # Without a frame below this one the call did not fit the signature: the sentence says more than a traceback.
        if error.__traceback__.tb_next is None:
            raise AppError(f"TypeError: {error}") from None
        raise


def is_asgi(app):
    """Whether calling `app` makes a coroutine, as an ASGI application does."""
    # Where nobody has imported functools there is no partial.
    while isinstance(app, getattr(sys.modules.get("functools"), "partial", ())):
        app = app.func
    called = app if hasattr(app, "__code__") else type(app).__call__
    # A slot, whose value is what is called.
    if not hasattr(called, "__code__") and hasattr(called, "__get__"):
        called = called.__get__(app)
    # inspect.CO_COROUTINE, without the modules that inspect brings along.
    return bool(getattr(getattr(called, "__code__", None), "co_flags", 0) & 0x80)


def files_of(error, traceback):
    """The source files that a failed import has executed, and the one that could not be parsed."""
    files = [error.filename] if isinstance(error, SyntaxError) and error.filename else []
    while traceback is not None:
        files.append(traceback.tb_frame.f_code.co_filename)
        traceback = traceback.tb_next
    return [file for file in files if os.path.isfile(file)]
