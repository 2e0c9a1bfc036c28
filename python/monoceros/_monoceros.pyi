from typing import Final, NoReturn

__all__ = ["__version__", "carry_gunicorn", "main"]

__version__: Final[str]

def main() -> NoReturn:
    """Serve as the command line in ``sys.argv`` says.

    To be called in the main thread. It does not come back: it ends the process, with gunicorn's exit statuses.
    """

def carry_gunicorn() -> None:
    """Make the ``gunicorn`` package that the server carries importable, with a ``BaseApplication`` that serves here."""
