from django.contrib import admin
from django.urls import path

from guestbook import views

urlpatterns = [
    path("", views.book),
    path("health", views.health),
    path("admin/", admin.site.urls),
]
