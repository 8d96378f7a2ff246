"""Failures reach a real server that speaks Sentry's protocol, and secrets do not."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from config.version import release

REPOSITORY = Path(__file__).resolve().parent.parent.parent
# A view that fails while it has secrets in hand, asked by somebody with a cookie.
PROGRAM = """
import io, sys, types
from wsgiref.util import setup_testing_defaults
import django
django.setup()
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from django.urls import path
import sentry_sdk

def fail(request):
    comment = request.POST["comment"]
    raise ValueError("no connection to postgresql://oneloop:hidden-1@db/oneloop")

urls = types.ModuleType("failing_urls")
urls.urlpatterns = [path("fail/", fail)]
sys.modules["failing_urls"] = urls
# Without those that would look for the session in a database.
middleware = ["config.requests.watched", "django.middleware.common.CommonMiddleware"]
with override_settings(
    ROOT_URLCONF="failing_urls", ALLOWED_HOSTS=["testserver"], MIDDLEWARE=middleware
):
    body = b"comment=hidden-4"
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/fail/",
        "QUERY_STRING": "q=hidden-3",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "HTTP_HOST": "testserver",
        "HTTP_COOKIE": "sessionid=hidden-2",
        "HTTP_AUTHORIZATION": "Bearer hidden-5",
        "HTTP_X_REQUEST_ID": "request-77",
    }
    setup_testing_defaults(environ)
    list(get_wsgi_application()(environ, lambda status, headers, error=None: None))
sentry_sdk.flush(10)
"""


@pytest.fixture
def sentry() -> Iterator[tuple[str, list[bytes]]]:
    received: list[bytes] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            received.append(unpacked(body, self.headers.get("Content-Encoding", "")))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://key@127.0.0.1:{server.server_port}/1", received
    server.shutdown()
    server.server_close()


def unpacked(body: bytes, encoding: str) -> bytes:
    if encoding == "br":  # where that package happens to be installed
        import brotli

        return bytes(brotli.decompress(body))
    return gzip.decompress(body) if encoding == "gzip" else body


def run(program: str, tmp_path: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    given = {"DJANGO_SETTINGS_MODULE": "config.settings", "ONELOOP_DATA": str(tmp_path)}
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY,
        env=os.environ | given | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.slow
def test_a_failure_arrives_without_what_it_was_about(
    sentry: tuple[str, list[bytes]], tmp_path: Path
) -> None:
    dsn, received = sentry
    result = run(PROGRAM, tmp_path, SENTRY_DSN=dsn)
    assert result.returncode == 0, result.stderr
    whole = b"\n".join(received).decode()
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    event = next(line for line in lines if "exception" in line)
    assert event["release"] == release()
    assert event["tags"]["request_id"] == "request-77"
    assert event["exception"]["values"][-1]["type"] == "ValueError"
    assert event["request"] == {"method": "POST", "url": "http://testserver/fail/"}
    assert "hidden-" not in whole


def test_it_says_which_package_is_missing(tmp_path: Path) -> None:
    # Python looks for modules here first; this one is not to be had.
    (tmp_path / "sentry_sdk.py").write_text("raise ImportError\n")
    program = "import django; django.setup()"
    result = run(program, tmp_path, SENTRY_DSN="http://k@h/1", PYTHONPATH=str(tmp_path))
    assert result.returncode != 0
    assert 'pip install "oneloop[sentry]", or unset SENTRY_DSN' in result.stderr
