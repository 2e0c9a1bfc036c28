from typing import Final, NoReturn

__all__ = ["__version__", "main"]

__version__: Final[str]

def main() -> NoReturn:
    """Serve as the command line in ``sys.argv`` says.

    To be called in the main thread. It does not come back: it ends the process, with gunicorn's exit statuses.
    """
