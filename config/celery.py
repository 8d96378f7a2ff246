import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

app = Celery("oneloop")
app.config_from_object("django.conf:settings", namespace="CELERY")
# "Task" is a domain word here, so the modules that hold Celery's tasks are called jobs.
app.autodiscover_tasks(related_name="jobs")
