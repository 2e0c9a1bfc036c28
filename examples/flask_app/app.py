"""A Flask app made by a factory.

    pip install flask
    monoceros --workers 2 --chdir examples/flask_app 'app:create_app(greeting="Hello")'

The server finds Flask in the virtualenv that is active (VIRTUAL_ENV). A factory's arguments are literals.
"""

from flask import Flask, jsonify, request, stream_with_context


def create_app(greeting="Hi"):
    """Make the app; called once in every worker."""
    app = Flask(__name__)

    @app.get("/")
    def hello():
        return f"{greeting} from Flask\n"

    @app.post("/sum")
    def add():
        # The body is here in full before Flask is entered, however slowly the client sent it.
        return jsonify(sum=sum(request.get_json()))

    @app.get("/count")
    def count():
        # Each block of a generator leaves for the client at once.
        def lines():
            for number in range(int(request.args.get("to", 5))):
                yield f"{number}\n"

        return stream_with_context(lines()), {"Content-Type": "text/plain"}

    return app
