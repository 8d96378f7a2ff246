from django.apps import AppConfig


class ConfigConfig(AppConfig):
    name = "config"
    verbose_name = "OneLoop"

    def ready(self) -> None:
        # Registers the system checks, and makes this Celery app the current one for every job.
        from config import celery, checks, durability, safety, sentry, tallies  # noqa: F401

        sentry.start()
