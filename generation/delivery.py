"""How stored files travel to somebody who may have them: by whom the bytes are sent.

Whoever calls has asked already whether the person may. Nothing in the store has an address of its
own: the proxy hands a file out only at this program's word (X-Accel-Redirect), an object store only
by an address that it signed and that ends soon.

Where there is no session, as in another program's page, a signed link shows one picture to whoever
has it, for a while, and only as long as the person who made it may see the picture.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import quote

from django.conf import settings
from django.contrib.auth.models import User
from django.core import signing
from django.core.files.storage import FileSystemStorage, default_storage, storages
from django.http import FileResponse, Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.http.response import HttpResponseRedirect
from django.utils.http import content_disposition_header
from django.utils.translation import gettext as _
from rest_framework.request import Request

from generation import images, pictures
from generation.models import Image

A_YEAR = 365 * 24 * 3600
PNG = "image/png"


def picture(request: HttpRequest | Request, row: Image, size: str = "") -> HttpResponse:
    """Raises ImageError where the file is gone."""
    if settings.MEDIA_ACCEL:
        response = _by_the_proxy(_name(row, size), PNG)
    elif _is_shown_by(request):
        response = _by_the_store(_name(row, size))
        # The browser asks here again before the store's address ends.
        response["Cache-Control"] = f"private, max-age={settings.MEDIA_REDIRECT_SECONDS // 2}"
        return response
    else:
        data = images.reduced(row, size) if size in images.SIDES else images.read_bytes(row)
        response = HttpResponse(data, content_type=PNG)
    # The address is the content's hash: what it names never changes. Only the person's own browser
    # keeps it, and only for this login: the session makes Django add “Vary: Cookie”.
    response["Cache-Control"] = f"private, max-age={A_YEAR}, immutable"
    return response


def attachment(
    request: HttpRequest | Request, name: str, *, filename: str, content_type: str
) -> HttpResponseBase:
    """A file of the store to keep. Raises OSError where it is gone."""
    if settings.MEDIA_ACCEL:
        response = _by_the_proxy(name, content_type)
        response["Content-Disposition"] = content_disposition_header(True, filename) or ""
        return response
    if _is_shown_by(request, "document"):
        disposition = content_disposition_header(True, filename)
        return _by_the_store(name, {"ResponseContentDisposition": disposition})
    file = default_storage.open(name)
    return FileResponse(file, as_attachment=True, filename=filename, content_type=content_type)


def _is_shown_by(request: HttpRequest | Request, as_what: str = "image") -> bool:
    """Whether the object store may answer: it may where a browser shows or keeps the file.

    Scripts that read a picture's pixels, and programs with a token, get the bytes from here: the
    first may not read what comes from elsewhere, the second would send their token there.
    """
    if not settings.MEDIA_REDIRECT_SECONDS or isinstance(default_storage, FileSystemStorage):
        return False
    return request.headers.get("Sec-Fetch-Dest") == as_what


def _by_the_proxy(name: str, content_type: str) -> HttpResponse:
    response = HttpResponse(content_type=content_type)
    response["X-Accel-Redirect"] = settings.MEDIA_ACCEL.rstrip("/") + "/" + quote(name)
    return response


def _by_the_store(name: str, parameters: dict[str, Any] | None = None) -> HttpResponse:
    seconds = settings.MEDIA_REDIRECT_SECONDS
    store = _store_as_browsers_reach_it(settings.S3_PUBLIC_URL)
    return HttpResponseRedirect(store.url(name, parameters=parameters, expire=seconds))


@lru_cache(maxsize=4)
def _store_as_browsers_reach_it(url: str) -> Any:
    """The address is part of what is signed, and inside the cluster the store has another."""
    if not url:
        return default_storage
    chosen = settings.STORAGES["default"]
    return storages.create_storage(chosen | {"OPTIONS": chosen["OPTIONS"] | {"endpoint_url": url}})


def _name(row: Image, size: str) -> str:
    """Where the file lies; a reduced copy is made first if it was never asked for."""
    name = f"images/{row.storage_key}"
    if size not in images.SIDES or max(row.width, row.height) <= images.SIDES[size]:
        return name
    name = f"{size}s/{row.storage_key}"
    if not default_storage.exists(name):
        images.reduced(row, size)
    return name


# Signed links -----------------------------------------------------------------------------------

SALT = "generation.delivery"


def sign(row: Image, user: User) -> str:
    return signing.dumps([row.sha256, user.pk], salt=SALT)


def signed(token: str) -> Image:
    """The picture of a link; Http404 says nothing of whether it was ever good."""
    try:
        sha256, user_id = signing.loads(token, salt=SALT, max_age=settings.IMAGE_LINK_SECONDS)
        user = User.objects.get(pk=user_id, is_active=True)
    except (signing.BadSignature, User.DoesNotExist):
        raise Http404(_("This link has ended, or it never was one. Ask for a new one.")) from None
    return pictures.get_for_user(user, sha256)
