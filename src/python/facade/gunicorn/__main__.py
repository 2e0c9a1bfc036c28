"""``python -m gunicorn``, where a program's gunicorn is the server's (docs/moving-from-gunicorn.md). It must not serve."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run(prog="gunicorn")
