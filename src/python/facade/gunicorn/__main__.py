"""``python -m gunicorn``, where the server replaces gunicorn (docs/moving-from-gunicorn.md). It must not serve."""

from gunicorn.app.wsgiapp import run

if __name__ == "__main__":
    run(prog="gunicorn")
