"""What the images of this folder serve: yours takes its place."""


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return [b"Hello from a container\n"]
