"""The same two uploads in four frameworks: `/raw` answers with the body, `/form` with the field `a` of a form."""

import io

import bottle
import django
import falcon
import flask
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path

bottle_app = bottle.Bottle()


@bottle_app.post("/raw")
def bottle_raw():
    return bottle.request.body.read()


@bottle_app.post("/form")
def bottle_form():
    return bottle.request.forms.get("a")


class FalconRaw:
    def on_post(self, request, response):
        response.data = request.bounded_stream.read()


class FalconForm:
    def on_post(self, request, response):
        response.text = request.get_media()["a"]


falcon_app = falcon.App()
falcon_app.add_route("/raw", FalconRaw())
falcon_app.add_route("/form", FalconForm())

flask_app = flask.Flask(__name__)


@flask_app.post("/raw")
def flask_raw():
    return flask.request.get_data()


@flask_app.post("/form")
def flask_form():
    return flask.request.form["a"]


urlpatterns = [
    path("raw", lambda request: HttpResponse(request.body)),
    path("form", lambda request: HttpResponse(request.POST["a"])),
]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], SECRET_KEY="of no use")
django.setup()
django_app = get_wsgi_application()


def declared(environ, start_response):
    """What the environ says of the body, and what `wsgi.input` holds."""
    length, coding = environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")
    text = f"{length} {coding} {len(environ['wsgi.input'].read())}"
    start_response("200 OK", [])
    return io.BytesIO(text.encode())
