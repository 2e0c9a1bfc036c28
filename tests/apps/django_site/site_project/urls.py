"""The views the tests drive, all in one place."""

import hashlib

from django.contrib import admin
from django.http import JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt


def visits(request):
    """Counts the visits of one session."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    return JsonResponse({"visits": request.session["visits"]})


@csrf_exempt
def upload(request):
    file = request.FILES["file"]
    digest = hashlib.sha256()
    for block in file.chunks():
        digest.update(block)
    return JsonResponse({"name": file.name, "size": file.size, "sha256": digest.hexdigest()})


def stream(request):
    return StreamingHttpResponse((f"line {number}\n" for number in range(1000)), content_type="text/plain")


def where(request):
    return JsonResponse({"uri": request.build_absolute_uri(), "secure": request.is_secure()})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("visits", visits),
    path("upload", upload),
    path("stream", stream),
    path("where/<path:rest>", lambda request, rest: where(request)),
]
