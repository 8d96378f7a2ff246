"""Requests to addresses that people typed in: never into this machine's own network.

A name is resolved once, every address it has must be public, and the connection goes to the address
that was checked, so that a second answer of the name server changes nothing. Redirects are not
followed, nothing of the answer but its code is kept, and whoever answers drop by drop is cut off.
"""

from __future__ import annotations

import http.client
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import SplitResult, quote, urlsplit

from django.conf import settings
from django.utils.translation import gettext as _

CONNECT_SECONDS, READ_SECONDS, TOTAL_SECONDS = 5.0, 10.0, 20.0
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
NOT_OURS = [
    ipaddress.ip_network("2002::/16"),  # carries IPv4 addresses, private ones too
    ipaddress.ip_network("192.0.0.0/24"),  # for protocols' own use; a cloud answers there
    ipaddress.ip_network("168.63.129.16/32"),  # what a machine in Azure asks about itself
]
URL_SAFE = "!$%&'()*+,-./:;=?@_~"  # what a path and a query may hold as it is


class OutsideError(Exception):
    """One readable sentence: why nothing was sent, or how it failed."""


def check(url: str) -> SplitResult:
    """The parts of an address that may be written to, as far as it says itself."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise OutsideError(_("“%(url)s” is no web address.") % {"url": url}) from None
    if parts.scheme != "https" and not (
        parts.scheme == "http" and settings.WEBHOOK_PRIVATE_ADDRESSES
    ):
        raise OutsideError(_("The address must begin with https://."))
    if not parts.hostname or port == 0:
        raise OutsideError(_("“%(url)s” is no web address.") % {"url": url})
    if parts.username or parts.password:
        raise OutsideError(
            _("The address must not hold a password; the signature proves who sends.")
        )
    return parts


def check_typed(url: str) -> None:
    """What can be said of an address without asking a name server."""
    host = check(url).hostname or ""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        if host != "localhost" and not host.endswith(".localhost"):
            return
    address_of(host, 443)


def address_of(host: str, port: int) -> str:
    """One of the host's addresses, all of which are public, unless the settings allow others."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise OutsideError(_("The name “%(host)s” is not known.") % {"host": host}) from None
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not settings.WEBHOOK_PRIVATE_ADDRESSES:
        for address in addresses:
            if not _is_public(ipaddress.ip_address(address)):
                raise OutsideError(
                    _("“%(host)s” leads to the private address %(address)s: nothing is sent there.")
                    % {"host": host, "address": address}
                )
    return addresses[0]


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return _is_public(address.ipv4_mapped)
        # Everything else, NAT64's and old IPv4-compatible addresses too, leads into some network.
        if address not in GLOBAL_IPV6:
            return False
    if any(address in net for net in NOT_OURS):
        return False
    return address.is_global and not address.is_multicast


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The code of the answer; OutsideError where there was none."""
    parts = check(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = address_of(host, port)
    path = quote((parts.path or "/") + (f"?{parts.query}" if parts.query else ""), safe=URL_SAFE)
    with _cut_off(TOTAL_SECONDS) as (hold, late):
        try:
            raw = hold(socket.create_connection((address, port), CONNECT_SECONDS))
            with closing(http.client.HTTPConnection(host, port)) as connection:
                raw.settimeout(READ_SECONDS)
                connection.sock = _encrypted(raw, host, hold) if secure else raw
                connection.request("POST", path, body, {**headers, "Host": _ascii(parts)})
                # Its head is read, which has bounds; its body is not.
                status = connection.getresponse().status
                if late.is_set():
                    raise TimeoutError
                return status
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = (
                _("it took longer than %(seconds)d seconds.") % {"seconds": TOTAL_SECONDS}
                if late.is_set()
                else str(error) or type(error).__name__
            )
            raise OutsideError(_("No answer: %(error)s") % {"error": reason}) from None


def _encrypted(
    raw: socket.socket, host: str, hold: Callable[[socket.socket], socket.socket]
) -> socket.socket:
    """Certificates are checked for the name that was typed in, not for the address."""
    context = ssl.create_default_context()
    wrapped = context.wrap_socket(raw, server_hostname=host, do_handshake_on_connect=False)
    hold(wrapped)
    wrapped.do_handshake()
    return wrapped


def _ascii(parts: SplitResult) -> str:
    host = parts.hostname or ""
    name = f"[{host}]" if ":" in host else host.encode("idna").decode()
    return f"{name}:{parts.port}" if parts.port else name


@contextmanager
def _cut_off(
    seconds: float,
) -> Iterator[tuple[Callable[[socket.socket], socket.socket], threading.Event]]:
    """Whatever still reads or writes on the sockets it holds fails when the time is up."""
    held: list[socket.socket] = []
    late = threading.Event()

    def hold(one: socket.socket) -> socket.socket:
        held.append(one)
        return one

    def cut() -> None:
        late.set()
        for one in held:
            with suppress(OSError):
                # Not the encrypted socket's own, which takes its state from under the reader.
                socket.socket.shutdown(one, socket.SHUT_RDWR)

    timer = threading.Timer(seconds, cut)
    timer.daemon = True
    timer.start()
    try:
        yield hold, late
    finally:
        timer.cancel()
        for one in held:
            one.close()
