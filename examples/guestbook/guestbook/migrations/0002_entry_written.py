from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    dependencies = (("guestbook", "0001_initial"),)
    operations = (
        migrations.AddField(
            model_name="entry",
            name="written",
            field=models.DateTimeField(auto_now_add=True, default=timezone.now),
            preserve_default=False,
        ),
        migrations.AlterModelOptions(
            name="entry", options={"ordering": ("-written",), "verbose_name_plural": "entries"}
        ),
    )
