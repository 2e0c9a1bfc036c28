"""Flask-SocketIO in gevent's mode, over the client's own socket (`gunicorn.socket`)."""

import time

from flask import Flask
from flask_socketio import SocketIO

application = Flask(__name__)
# simple-websocket takes the socket out of the environ; gevent-websocket is not needed.
sockets = SocketIO(application, async_mode="gevent")


@sockets.on("say")
def say(word):
    time.sleep(0.05)
    sockets.emit("said", {"word": word.upper()})


@application.route("/")
def index():
    return sockets.async_mode
