"""A pre-fork WSGI server that takes gunicorn's place.

Run it as ``monoceros`` or ``python -m monoceros``. Importing this package starts nothing.
"""

from monoceros._monoceros import __version__, main

__all__ = ["__version__", "main"]
