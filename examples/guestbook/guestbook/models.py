from django.db import models


class Entry(models.Model):
    """What a guest has written."""

    author = models.CharField(max_length=80)
    text = models.TextField()
    written = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ("-written",)
        verbose_name_plural = "entries"

    def __str__(self) -> str:
        return f"{self.author}: {self.text[:40]}"
