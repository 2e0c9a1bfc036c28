from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_http_methods

from guestbook.models import Entry


@require_http_methods(["GET", "HEAD", "POST"])
def book(request: HttpRequest) -> HttpResponse:
    """The newest entries; a new one is posted."""
    if request.method == "POST":
        Entry.objects.create(author=request.POST.get("author", "")[:80], text=request.POST.get("text", ""))
        return redirect("/")
    return render(request, "guestbook.html", {"entries": Entry.objects.all()[:20]})


def health(request: HttpRequest) -> HttpResponse:
    """What a health check asks for: answered without the database, whose absence is no reason for a restart."""
    return HttpResponse("1", content_type="text/plain")
