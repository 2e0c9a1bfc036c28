"""A Django project in a gear: its database is migrated before a release is served, and not at all for one that is not.

Long: pip fetches Django. Started by tests/gear.rs.
"""

import http.cookiejar
import re
import unittest
import urllib.parse
import urllib.request

from gear import ActionFailed, Gear
from load import Load
from test_gear import GearTest

MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
execute_from_command_line(sys.argv)
"""
SETTINGS = """
import os
BASE = os.path.dirname(os.path.dirname(__file__))
SECRET_KEY = os.environ["OPENSHIFT_SECRET_TOKEN"]
ALLOWED_HOSTS = ["*"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["OPENSHIFT_DATA_DIR"] + "shop.db"}}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "shop.urls"
STATIC_URL, STATIC_ROOT = "static/", os.path.join(BASE, "wsgi/static")
INSTALLED_APPS = ["django.contrib." + name for name in ("admin", "auth", "contenttypes", "sessions", "messages")]
INSTALLED_APPS += ["django.contrib.staticfiles", "stock"]
MIDDLEWARE = ["django.contrib.sessions.middleware.SessionMiddleware", "django.middleware.csrf.CsrfViewMiddleware"]
MIDDLEWARE += ["django.contrib.auth.middleware.AuthenticationMiddleware"]
MIDDLEWARE += ["django.contrib.messages.middleware.MessageMiddleware"]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "APP_DIRS": True, "OPTIONS": {
    "context_processors": ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth",
                           "django.contrib.messages.context_processors.messages"]}}]
"""
URLS = """
from django.contrib import admin
from django.http import HttpResponse
from django.urls import path
from stock.models import Item

def index(request):
    fields = ",".join(field.name for field in Item._meta.fields)
    return HttpResponse(f"v{} {Item.objects.count()} items with {fields}")

urlpatterns = [path("", index), path("admin/", admin.site.urls)]
"""
WSGI = """
import os
from django.core.wsgi import get_wsgi_application
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop.settings")
application = get_wsgi_application()
"""
MODELS = """
from django.contrib import admin
from django.db import models

class Item(models.Model):
    name = models.CharField(max_length=20)
    # more

admin.site.register(Item)
"""
MIGRATION = """
from django.db import migrations, models

class Migration(migrations.Migration):
    initial = {initial}
    dependencies = {dependencies}
    operations = [{operation}]
"""
CREATE = """migrations.CreateModel("Item", [
    ("id", models.BigAutoField(primary_key=True, auto_created=True, serialize=False, verbose_name="ID")),
    ("name", models.CharField(max_length=20)),
])"""
ADD = 'migrations.AddField("item", "{}", models.IntegerField(default=0))'


def migration(operation: str, after: str | None) -> str:
    dependencies = [("stock", after)] if after else []
    return MIGRATION.format(initial=after is None, dependencies=dependencies, operation=operation)


def release(number: int, *fields: str) -> dict[str, str | None]:
    """What changes from one release to the next: the page's number, and the model's further fields."""
    lines = "\n    ".join(f"{field} = models.IntegerField(default=0)" for field in fields)
    return {"shop/urls.py": URLS.replace("v{}", f"v{number}"), "stock/models.py": MODELS.replace("# more", lines)}


class Django(GearTest):
    def test_migrations_belong_to_their_release(self) -> None:
        gear = self.gear()
        user = {"USERNAME": "admin", "PASSWORD": "s3cret/:@", "EMAIL": "admin@example.com"}
        gear.set_variables({f"DJANGO_SUPERUSER_{name}": value for name, value in user.items()}, ".env/user_vars")
        first: dict[str, str | None] = {
            "wsgi.py": None,
            "requirements.txt": "Django==5.2.19\n",
            "manage.py": MANAGE,
            "shop/__init__.py": "",
            "shop/settings.py": SETTINGS,
            "shop/wsgi.py": WSGI,
            "stock/__init__.py": "",
            "stock/migrations/__init__.py": "",
            "stock/migrations/0001_initial.py": migration(CREATE, None),
            ".openshift/markers/hot_deploy": "",
        }
        gear.push({**first, **release(1)})
        self.expect(gear, "v1 0 items with id,name")
        self.assertEqual(gear.get("/static/admin/css/base.css")[0], 200)
        self.add_an_item(gear, user["PASSWORD"])
        self.expect(gear, "v1 1 items with id,name")
        with Load(gear.address) as load:
            load.expect_from_now_on(1)
            second = "stock/migrations/0002_price.py"
            gear.push({second: migration(ADD.format("price"), "0001_initial"), **release(2, "price")})
            load.expect_from_now_on(2)
            self.expect(gear, "v2 1 items with id,name,price")
            # The migration fails when it runs; the old release and its database stay as they are.
            fails = 'migrations.RunSQL("no such statement")'
            with self.assertRaises(ActionFailed) as failed:
                gear.push({"stock/migrations/0003_bad.py": migration(fails, "0002_price"), **release(3, "price")})
            self.assertIn("The release was refused", failed.exception.output)
            self.expect(gear, "v2 1 items with id,name,price")
            gear.push({"stock/migrations/0003_bad.py": None, **release(4, "price")})
            load.expect_from_now_on(4)
            self.expect(gear, "v4 1 items with id,name,price")
        self.assertEqual(load.failures, [])

    def add_an_item(self, gear: Gear, password: str) -> None:
        """As a person would, in the admin's forms."""
        site = "http://{}:{}".format(*gear.address)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))
        for path, fields in (
            ("/admin/login/?next=/admin/", {"username": "admin", "password": password}),
            ("/admin/stock/item/add/", {"name": "shoe"}),
        ):
            page = opener.open(site + path).read().decode()
            token = re.search(r'name="csrfmiddlewaretoken" value="([^"]+)"', page)
            assert token, page
            form = urllib.parse.urlencode({"csrfmiddlewaretoken": token[1], **fields}).encode()
            answer = opener.open(site + path, form)
            self.assertNotIn("errornote", answer.read().decode())


if __name__ == "__main__":
    unittest.main()
