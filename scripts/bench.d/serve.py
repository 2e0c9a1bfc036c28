"""Starts the servers that have no command line of their own: serve.py SERVER APP PORT THREADS."""

import sys

import apps

HOST = "127.0.0.1"


def bjoern(app, port, threads):
    import bjoern

    bjoern.run(app, HOST, port)


def fastwsgi(app, port, threads):
    import fastwsgi

    fastwsgi.run(app, HOST, port, loglevel=0)


def fastpysgi(app, port, threads):
    import fastpysgi

    fastpysgi.run(app, HOST, port, loglevel=0)


def waitress(app, port, threads):
    import waitress

    waitress.serve(app, host=HOST, port=port, threads=threads, _quiet=True)


def gevent_pywsgi(app, port, threads):
    from gevent import monkey

    monkey.patch_all()
    from gevent.pywsgi import WSGIServer

    WSGIServer((HOST, port), app, log=None).serve_forever()


if __name__ == "__main__":
    server, app, port, threads = sys.argv[1:]
    globals()[server](getattr(apps, app), int(port), int(threads))
