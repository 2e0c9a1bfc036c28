"""A Flask-Sock app: WebSocket over the client's own socket (`gunicorn.socket`)."""

from flask import Flask
from flask_sock import Sock

application = Flask(__name__)
sock = Sock(application)


@sock.route("/echo")
def echo(ws):
    while True:
        ws.send(ws.receive().upper())


@application.route("/")
def index():
    return "plain"
