import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

from config.balance import Balanced
from config.runtime import shared_counts

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
os.environ.setdefault("DATABASE_STATEMENT_SECONDS", "60")

shared_counts.prepare(settings.DATA_DIR)
application = Balanced(
    get_wsgi_application(), settings.DATA_DIR, lane="/label/", width=settings.WEB_LABELLING
)

from config import safety  # noqa: E402  (it needs the apps)

safety.refuse_unsafe()
