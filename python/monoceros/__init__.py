"""A pre-fork WSGI server that takes gunicorn's place.

Run it as ``monoceros`` or ``python -m monoceros``. Importing this package starts nothing.
"""

try:
    from monoceros._monoceros import __version__, main
except ImportError as error:
    from monoceros import _diagnosis

    raise ImportError(_diagnosis.explain(error)) from error

__all__ = ["__version__", "main"]
