"""The Flask app of tests/flask.rs: JSON, an upload, a stream with its context, server-sent events."""

import hashlib
import time

from flask import Flask, Response, jsonify, request, session, stream_with_context

application = Flask(__name__)
application.secret_key = "for the tests only"


@application.post("/json")
def json_echo():
    return jsonify(received=request.get_json(), method=request.method)


@application.post("/upload")
def upload():
    file = request.files["file"]
    data = file.read()
    return jsonify(name=file.filename, size=len(data), sha256=hashlib.sha256(data).hexdigest())


@application.get("/stream")
def stream():
    def lines():
        for number in range(int(request.args["lines"])):
            yield f"{request.path} {number}\n"

    return Response(stream_with_context(lines()), mimetype="text/plain")


@application.get("/events")
def events():
    """The first event at once, the next only after the client has been made to wait."""

    def feed():
        yield "data: first\n\n"
        time.sleep(float(request.args.get("pause", 1)))
        yield "data: second\n\n"

    return Response(stream_with_context(feed()), mimetype="text/event-stream")


@application.get("/count")
def count():
    session["count"] = session.get("count", 0) + 1
    return jsonify(count=session["count"])


@application.get("/broken")
def broken():
    raise RuntimeError("broken on purpose")
