"""Requests to addresses that people typed in: never into this machine's own network.

A name is resolved once, every address it has must be public, and the connection goes to the address
that was checked, so that a second answer of the name server changes nothing. Redirects are not
followed, and nothing of the answer but its code is kept.
"""

from __future__ import annotations

import ipaddress
import socket
from urllib.parse import SplitResult, urlsplit

import urllib3
from django.conf import settings
from django.utils.translation import gettext as _

CONNECT_SECONDS, READ_SECONDS = 5.0, 10.0
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
# They carry IPv4 addresses, private ones too, over IPv6.
TUNNELS = [ipaddress.ip_network(net) for net in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16")]


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
        if any(address in net for net in TUNNELS):
            return False
    return address.is_global and not address.is_multicast


def post(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The code of the answer; OutsideError where there was none."""
    parts = check(url)
    host = parts.hostname or ""
    secure = parts.scheme == "https"
    port = parts.port or (443 if secure else 80)
    address = address_of(host, port)
    timeout = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
    pool: urllib3.HTTPConnectionPool
    if secure:
        pool = urllib3.HTTPSConnectionPool(
            address, port, timeout=timeout, server_hostname=host, assert_hostname=host
        )
    else:
        pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout)
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        response = pool.urlopen(
            "POST",
            path,
            body=body,
            headers={**headers, "Host": parts.netloc},
            redirect=False,
            retries=False,
            preload_content=False,  # the answer's body is not read
        )
        return response.status
    except urllib3.exceptions.HTTPError as error:
        raise OutsideError(
            _("No answer: %(error)s") % {"error": str(error).rpartition(": ")[2]}
        ) from None
    finally:
        pool.close()
