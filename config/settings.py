"""Settings of every process, read from the environment.

Without any variable this is one machine: an embedded PostgreSQL and broker that `manage.py up`
starts, files under `.data`. `DATABASE_URL`, `CELERY_BROKER_URL` and `S3_*` replace those parts
one by one.
"""

from pathlib import Path
from typing import Any

import dj_database_url

from config import env
from config.database import Connection
from config.runtime import paths

BASE_DIR = Path(__file__).resolve().parent.parent
DATA_DIR = Path(env.text("ONELOOP_DATA", str(BASE_DIR / ".data"))).expanduser().resolve()

# A deployment that others rely on: config/safety.py refuses to start one whose settings are unsafe.
PRODUCTION = env.choice("ONELOOP_ENV", ["development", "production"]) == "production"
DEBUG = env.flag("DEBUG", default=False)
SECRET_KEY = env.secret("SECRET_KEY") or paths.secret_key(DATA_DIR)
SECRET_KEY_FALLBACKS = env.secret("SECRET_KEY_FALLBACKS").split()
ALLOWED_HOSTS = env.words("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CSRF_TRUSTED_ORIGINS = env.words("CSRF_TRUSTED_ORIGINS")

INSTALLED_APPS = [
    "config",
    "modeling",
    "annotation",
    "generation",
    "config.admin_apps.AuditedAdmin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "allauth.usersessions",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
    "django_celery_beat",
    "django_htmx",
    "rest_framework",
    "drf_spectacular",
]

MIDDLEWARE = [
    # The first: it counts and writes down every request, as it was answered.
    "config.requests.watched",
    "config.middleware.security_headers",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    # Every page asks for a login unless its view says @login_not_required.
    "django.contrib.auth.middleware.LoginRequiredMiddleware",
    "generation.audit.remember_request",
    "config.sessions.end_idle",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "config.second_factor.require",
]

ROOT_URLCONF = "config.urls"
WSGI_APPLICATION = "config.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "config.context_processors.navigation",
                "config.context_processors.languages",
                "config.context_processors.sign_in",
                "config.context_processors.version",
            ],
        },
    },
]

# Database ---------------------------------------------------------------------------------------

DATABASE_URL = env.secret("DATABASE_URL") or paths.database_url(DATA_DIR)
DATABASE_IS_EMBEDDED = not env.secret("DATABASE_URL")
_database: dict[str, Any] = dict(dj_database_url.parse(DATABASE_URL))
_database |= {
    # The pool replaces persistent connections. The health check is what turns a restarted
    # database into a new connection rather than into an error page.
    "CONN_MAX_AGE": 0,
    "CONN_HEALTH_CHECKS": True,
    "OPTIONS": _database.get("OPTIONS", {})
    | {
        "pool": {
            "min_size": 0,
            "max_size": env.integer("DATABASE_POOL_SIZE", 10),
            "timeout": 10,
            "connection_class": Connection,
        }
    },
}
# How long one statement of the web may take, and a transaction lie idle: one page that went wrong
# must not hold up all others. Workers have no such limit.
if STATEMENT_SECONDS := env.integer("DATABASE_STATEMENT_SECONDS", 0):
    _limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    _said = " ".join(f"-c {name}={STATEMENT_SECONDS}s" for name in _limits)
    _database["OPTIONS"]["options"] = f"{_database['OPTIONS'].get('options', '')} {_said}".strip()
DATABASES = {"default": _database}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Jobs -------------------------------------------------------------------------------------------

CELERY_BROKER_URL = env.secret("CELERY_BROKER_URL") or paths.broker_url(DATA_DIR)
if CELERY_BROKER_URL.startswith(("redis", "sentinel")):
    # A page that rings a worker does not wait for a broker that is away.
    CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 3}
BROKER_IS_EMBEDDED = not env.secret("CELERY_BROKER_URL")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_TASK_DEFAULT_QUEUE = "default"
# A job is a doorbell: acknowledged before it runs. Long work is owned by a row with a lease, and
# beat rings again for rows whose worker died; the broker never redelivers.
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_IGNORE_RESULT = True
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
# CUDA cannot be initialised in a forked child, so the worker of the gpu queue spawns.
CELERY_WORKER_POOL_START_METHOD = env.text("CELERY_WORKER_POOL_START_METHOD", "fork")
# A worker's process ends after so many jobs, or with so much memory (0: never), and a new one goes
# on: what a library leaks does not add up.
CELERY_WORKER_MAX_TASKS_PER_CHILD = env.integer("WORKER_JOBS", 500) or None
CELERY_WORKER_MAX_MEMORY_PER_CHILD = env.integer("WORKER_MEMORY_MB", 0) * 1024 or None
# Generations, and trainings, that one person may have waiting or running.
OPEN_RUNS_PER_PERSON = env.integer("OPEN_RUNS_PER_PERSON", 20)
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
# Who ranks and makes pictures for people who wait. A worker of its own (`-Q serve`) keeps them from
# waiting for a training, where the GPU has room for both.
SERVE_QUEUE = env.text("SERVE_QUEUE", "gpu")
# What needs the models. All other jobs are of the default queue.
CELERY_TASK_ROUTES = {
    "generation.jobs.make_candidates": {"queue": "gpu"},
    "modeling.jobs.execute_run": {"queue": "gpu"},
    "modeling.jobs.execute_step": {"queue": "gpu"},
    "modeling.jobs.check_rule": {"queue": "gpu"},
    "modeling.jobs.make_edit": {"queue": SERVE_QUEUE},
    "modeling.jobs.rank_waiting": {"queue": SERVE_QUEUE},
}
# Whether webhooks may go to this machine and its network, and by plain http.
WEBHOOK_PRIVATE_ADDRESSES = env.flag("WEBHOOK_PRIVATE_ADDRESSES", default=False)
RING_SECONDS = env.integer("RING_SECONDS", 10)
# Beat reads its schedule from the database: rows of the admin's "Periodic tasks". These here are
# written there at each of its starts; whoever turned one off in the admin finds it off.
CELERY_BEAT_SCHEDULER = "config.clock:Scheduler"
CELERY_TIMEZONE = TIME_ZONE = env.text("TIME_ZONE", "UTC")
# A bell that is not heard before the next one rings is dropped.
CELERY_BEAT_SCHEDULE: dict[str, dict[str, Any]] = {
    "ring the loop": {"task": "modeling.jobs.ring", "schedule": 10.0, "options": {"expires": 10}},
    "check the rules that start rounds": {
        "task": "modeling.jobs.check_rules",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "expire leases": {
        "task": "annotation.jobs.expire_leases",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "ring additions": {
        "task": "annotation.jobs.ring_additions",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "ring aggregations": {
        "task": "annotation.jobs.ring_aggregations",
        "schedule": 60.0,
        "options": {"expires": 60},
    },
    "ring exports": {
        "task": "annotation.jobs.ring_exports",
        "schedule": 30.0,
        "options": {"expires": 30},
    },
    "ring serving": {
        "task": "modeling.jobs.ring_serving",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "ring deliveries": {
        "task": "generation.jobs.ring_deliveries",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
    "look at what takes long": {
        "task": "config.jobs.examine_slowly",
        "schedule": 300.0,
        "options": {"expires": 300},
    },
    "ring generation": {
        "task": "generation.jobs.ring_generation",
        "schedule": 10.0,
        "options": {"expires": 10},
    },
}

# Durability and limits --------------------------------------------------------------------------

# How long a worker that says nothing any more keeps its work; it says something six times as often.
JOB_LEASE_SECONDS = env.integer("JOB_LEASE_SECONDS", 30)
# How long `migrate` waits for a table that is in use before it lets others pass and tries again.
MIGRATE_LOCK_SECONDS = env.integer("MIGRATE_LOCK_SECONDS", 2)

# What is not kept for ever (config/retention.py), in days; 0 keeps it.
RETAIN_ADDRESS_DAYS = env.integer("RETAIN_ADDRESS_DAYS", 90)  # in the audit log
RETAIN_DELIVERY_DAYS = env.integer("RETAIN_DELIVERY_DAYS", 30)
RETAIN_EXPORT_DAYS = env.integer("RETAIN_EXPORT_DAYS", 0)  # their archives
RETAIN_UNUSED_DAYS = env.integer("RETAIN_UNUSED_DAYS", 0)  # pictures that nothing refers to
CELERY_BEAT_SCHEDULE["clean up"] = {
    "task": "config.jobs.clean_up",
    "schedule": 24 * 3600.0,
    "options": {"expires": 3600},
}

# Files ------------------------------------------------------------------------------------------

MEDIA_ROOT = env.text("MEDIA_ROOT", str(DATA_DIR / "media"))
MEDIA_URL = env.text("MEDIA_URL", "/media/")
# How pictures travel once it is known that the person may see them (generation/delivery.py): by
# this process; by the proxy, from this internal address of its (X-Accel-Redirect); or, with an
# object store, by the store itself, from an address that ends after so many seconds.
MEDIA_ACCEL = env.text("MEDIA_ACCEL")
MEDIA_REDIRECT_SECONDS = env.integer("MEDIA_REDIRECT_SECONDS", 0)
# The store as browsers reach it, e.g. https://pictures.example.org; pages may show what lies there.
MEDIA_ORIGINS = env.words("MEDIA_ORIGINS")
# How long a link to one picture works for whoever has it.
IMAGE_LINK_SECONDS = env.integer("IMAGE_LINK_SECONDS", 3600)
# The object store's endpoint as browsers reach it, where that is not S3_ENDPOINT_URL.
S3_PUBLIC_URL = env.text("S3_PUBLIC_URL")
# Pictures, exports and, for other machines, checkpoints: a folder, or a bucket where one is named.
S3_BUCKET = env.text("S3_BUCKET")
if S3_BUCKET:
    from config import storage

    _media: dict[str, Any] = {
        "BACKEND": "config.storage.ObjectStore",
        "OPTIONS": storage.options(
            bucket=S3_BUCKET,
            endpoint_url=env.text("S3_ENDPOINT_URL"),
            region=env.text("S3_REGION"),
            access_key=env.secret("S3_ACCESS_KEY_ID"),
            secret_key=env.secret("S3_SECRET_ACCESS_KEY"),
            prefix=env.text("S3_PREFIX"),
            addressing_style=env.text("S3_ADDRESSING_STYLE", "auto"),
            timeout_seconds=env.integer("S3_TIMEOUT_SECONDS", 30),
        ),
    }
else:
    _media = {
        "BACKEND": env.text("MEDIA_BACKEND", "django.core.files.storage.FileSystemStorage"),
        "OPTIONS": env.mapping("MEDIA_OPTIONS"),
    }
STORAGES = {
    "default": _media,
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_URL = "/static/"
STATIC_ROOT = env.text("STATIC_ROOT", str(BASE_DIR / "staticfiles"))
# Static files are served from where they lie; there is no build or collect step to forget.
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 2**20
DATA_UPLOAD_MAX_NUMBER_FIELDS = 5000
FILE_UPLOAD_MAX_MEMORY_SIZE = 10 * 2**20

# Models -----------------------------------------------------------------------------------------

STARTER_WEIGHTS = BASE_DIR / "modeling" / "starter" / "weights"
# Directories that weights are loaded from, beside DATA_DIR and the starter's. Empty, in production
# only those two, otherwise any.
MODEL_ROOTS = env.words("MODEL_ROOTS")
# Models of the hub that may be loaded; patterns such as Qwen/*.
MODEL_ALLOWED_HUB_IDS = env.words(
    "MODEL_ALLOWED_HUB_IDS",
    "black-forest-labs/FLUX.1-*,bytedance-research/OneReward,Qwen/Qwen2-VL-*,Qwen/Qwen2.5-VL-*,"
    "Qwen/Qwen3-VL-*,openai/clip-vit-*",
)

# Pictures from outside --------------------------------------------------------------------------

# They are decoded in processes of their own, so many for each process that reads pictures; each
# may take so much memory (of address space), and so many seconds of computing for one picture.
DECODER_PROCESSES = env.integer("DECODER_PROCESSES", 2)
DECODER_MEMORY_MB = env.integer("DECODER_MEMORY_MB", 2048)
DECODER_SECONDS = env.integer("DECODER_SECONDS", 30)

# People -----------------------------------------------------------------------------------------

LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": env.integer("PASSWORD_LENGTH", 12 if PRODUCTION else 8)},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
# Single sign-on; a system check explains what is missing when only a part is set.
OIDC = {
    "server_url": env.text("OIDC_SERVER_URL").rstrip("/"),
    "client_id": env.text("OIDC_CLIENT_ID"),
    "client_secret": env.secret("OIDC_CLIENT_SECRET"),
}
OIDC_MISSING = [f"OIDC_{key.upper()}" for key, value in OIDC.items() if not value]
OIDC = {} if OIDC_MISSING else OIDC | {"name": env.text("OIDC_NAME", "single sign-on")}
# What somebody becomes in the default project at their first single sign-on; empty: nothing.
OIDC_DEFAULT_ROLE = env.text("OIDC_DEFAULT_ROLE").lower()
# Where the provider's own login page is, if not on the server that OIDC_SERVER_URL names.
OIDC_LOGIN_ORIGINS = env.words("OIDC_LOGIN_ORIGINS")
ACCOUNT_ADAPTER = "config.sign_in.Passwords"
SOCIALACCOUNT_ADAPTER = "config.sign_in.People"
ACCOUNT_EMAIL_VERIFICATION = "none"
ACCOUNT_RATE_LIMITS = False  # config/log_in.py counts for all processes together
# Who must have a second factor: nobody (empty), staff, managers (staff, and who manages a project)
# or everyone. Anybody may have one.
REQUIRE_SECOND_FACTOR = env.choice("REQUIRE_SECOND_FACTOR", ["", "staff", "managers", "everyone"])
MFA_ADAPTER = "config.second_factor.Adapter"
MFA_FORMS = {"authenticate": "config.account_forms.LogInCodeForm"}
MFA_TOTP_TOLERANCE = 1  # half minutes that a phone's clock may be off
MFA_ALLOW_UNVERIFIED_EMAIL = True  # e-mails are verified nowhere here
# The admin's address, e.g. a word that only staff know.
ADMIN_PATH = env.text("ADMIN_PATH", "admin/").strip("/") + "/"
ACCOUNT_UNIQUE_EMAIL = False  # people are matched by the provider's own id, never by e-mail
ACCOUNT_DEFAULT_HTTP_PROTOCOL = (
    "https" if env.flag("SECURE_COOKIES", default=PRODUCTION) else "http"
)
SESSION_ENGINE = "config.sessions"
AUTHENTICATION_BACKENDS = ["config.sessions.Backend"]

# Transport, cookies, headers --------------------------------------------------------------------

# A proxy that ends TLS must set X-Forwarded-Proto itself and drop what the visitor sent.
BEHIND_PROXY = env.flag("BEHIND_TLS_PROXY", default=False)
if BEHIND_PROXY:
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SECURE_SSL_REDIRECT = env.flag("SECURE_SSL_REDIRECT", default=PRODUCTION)
# Asked inside the machine, where there is no TLS.
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$", r"^metrics$"]
SECURE_HSTS_SECONDS = env.integer("HSTS_SECONDS", 365 * 24 * 3600 if PRODUCTION else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = env.flag("HSTS_INCLUDE_SUBDOMAINS", default=PRODUCTION)
SECURE_HSTS_PRELOAD = env.flag("HSTS_PRELOAD", default=False)
SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
X_FRAME_OPTIONS = "DENY"
SECURE_COOKIES = env.flag("SECURE_COOKIES", default=PRODUCTION)
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_COOKIES
# A browser takes a __Host- cookie only from this very host, over TLS.
SESSION_COOKIE_NAME = "__Host-sessionid" if SECURE_COOKIES else "sessionid"
CSRF_COOKIE_NAME = "__Host-csrftoken" if SECURE_COOKIES else "csrftoken"
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = CSRF_COOKIE_SAMESITE = "Lax"
# Readable by scripts: the labelling page goes on after somebody logged in again in another window.
CSRF_COOKIE_HTTPONLY = False
SESSION_COOKIE_AGE = env.integer("SESSION_HOURS", 14 * 24) * 3600
# A session that nobody used for so long ends; 0: only by its age.
SESSION_IDLE_MINUTES = env.integer("SESSION_IDLE_MINUTES", 0)
SILENCED_SYSTEM_CHECKS = [
    # To be in the browsers' preload lists is a promise for a whole domain, not this program's.
    "security.W021",
    # Checks whose risk the operator takes, by id, e.g. oneloop.E110; SECURITY.md lists them.
    *env.words("ACCEPTED_RISKS"),
]

REST_FRAMEWORK = {
    # The first one decides how somebody unknown is answered: 401 and a way to do better.
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "generation.authentication.TokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["rest_framework.parsers.JSONParser"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "generation.asking.FirstLook",
    "DEFAULT_THROTTLE_CLASSES": ["generation.asking.Often"],
    "EXCEPTION_HANDLER": "generation.problems.handler",
    "DEFAULT_METADATA_CLASS": None,
    "DEFAULT_SCHEMA_CLASS": "config.schema.Schema",
    "URL_FORMAT_OVERRIDE": None,
}
# Of one person, in each process of the server; above it the API answers 429.
API_REQUESTS_PER_MINUTE = env.integer("API_REQUESTS_PER_MINUTE", 600)
SPECTACULAR_SETTINGS: dict[str, Any] = {
    "TITLE": "OneLoop",
    "VERSION": "1",
    "OAS_VERSION": "3.1.0",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "PREPROCESSING_HOOKS": ["config.schema.of_the_api"],
    # Choices stay where they are used: many fields are called “state”.
    "POSTPROCESSING_HOOKS": ["config.schema.finished"],
    "SERVE_INCLUDE_SCHEMA": False,
}

# Metrics: a token that Prometheus sends, or networks it may ask from; with neither there are none.
METRICS_TOKEN = env.secret("METRICS_TOKEN")
METRICS_NETWORKS = env.networks("METRICS_ADDRESSES")
# Where failures are sent to, if anywhere; needs the extra `sentry`.
SENTRY_DSN = env.secret("SENTRY_DSN")
# Of each web process. Python runs one of them at a time; more of them only share the same core and
# spread the work over more connections to the database, each with caches of its own. Whoever starts
# the server with another number says so: /healthz answers 503 when all but one are stuck.
WEB_THREADS = env.integer("WEB_THREADS", 4)
# Requests of labelling that a web process answers at once (config/balance.py); 0: all of them.
WEB_LABELLING = env.integer("WEB_LABELLING", 1)

# Words, time, logs ------------------------------------------------------------------------------

LANGUAGE_CODE = "en-gb"
# Each in its own words. Which one a reader gets: the language chosen in the bar at the top, kept in
# a cookie, else what the browser asks for.
LANGUAGES = [("en-gb", "English"), ("zh-hans", "简体中文"), ("ja", "日本語")]
LOCALE_PATHS = [BASE_DIR / "config" / "locale"]
LANGUAGE_COOKIE_AGE = 365 * 24 * 3600
LANGUAGE_COOKIE_HTTPONLY = True
LANGUAGE_COOKIE_SAMESITE = "Lax"
LANGUAGE_COOKIE_SECURE = SECURE_COOKIES
USE_I18N = True
USE_TZ = True

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "filters": {"left to others": {"()": "config.logs.LeftToOthers"}},
    "formatters": {
        "text": {
            "()": "config.logs.Line",
            "format": "{asctime} {levelname} {name}: {message}",
            "style": "{",
        },
        "json": {"()": "config.logs.Json"},
    },
    "handlers": {
        "console": {
            "class": "logging.StreamHandler",
            "formatter": env.choice("LOG_FORMAT", ["text", "json"]),
        }
    },
    "root": {"handlers": ["console"], "level": env.text("LOG_LEVEL", "INFO").upper()},
    "loggers": {
        "httpx": {"level": "WARNING"},
        # Django's own handlers would say everything a second time.
        "django": {"handlers": [], "level": "INFO"},
        "django.request": {"filters": ["left to others"]},
    },
}
