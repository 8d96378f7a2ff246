"""Addresses that people typed in: which are written to, where the connection goes, for how long."""

from __future__ import annotations

import ipaddress
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from generation import outside
from generation.outside import OutsideError

Serve = Callable[[Callable[[socket.socket], None]], int]
REAL = socket.getaddrinfo


@pytest.fixture
def serve(settings: Any) -> Iterator[Serve]:
    """Answers each connection by a function in a thread; gives the port."""
    settings.WEBHOOK_PRIVATE_ADDRESSES = True
    servers: list[socket.socket] = []

    def start(answer: Callable[[socket.socket], None]) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        servers.append(server)

        def loop() -> None:
            while True:
                try:
                    connection, _address = server.accept()
                except OSError:
                    return
                with connection, suppress(OSError):  # they hung up
                    answer(connection)

        threading.Thread(target=loop, daemon=True).start()
        return int(server.getsockname()[1])

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What the name server says, one answer after the other; the rules are not the test's."""
    known: dict[str, list[str]] = {}

    def look_up(host: str, port: Any, *args: Any, **kwargs: Any) -> Any:
        return REAL(known[host].pop(0) if host in known else host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


@pytest.mark.parametrize(
    "address",
    [
        "::127.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:10.0.0.1",
        "64:ff9b::10.0.0.1",
        "64:ff9b:1::10.0.0.1",
        "2002:7f00:1::",
        "2001:0:7f00:1::",
        "fec0::1",
        "fe80::1%1",
        "fd00:ec2::254",
        "ff02::1",
        "100::1",
        "2001:db8::1",
        "5f00::1",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "198.18.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "0x7f.1",
        "0177.0.0.1",
        "127.1",
    ],
)
def test_it_knows_what_leads_into_a_network(address: str) -> None:
    with pytest.raises(OutsideError, match="leads to the private address"):
        outside.address_of(address, 443)


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946"])
def test_it_writes_to_public_addresses(address: str) -> None:
    assert outside.address_of(address, 443) == address


@given(st.ip_addresses(v=4))
@examples(max_examples=200, deadline=None)
def test_an_address_is_no_more_public_in_ipv6(address: ipaddress.IPv4Address) -> None:
    mapped = ipaddress.IPv6Address(f"::ffff:{address}")
    assert outside._is_public(mapped) == outside._is_public(address)
    for carried in (f"::{address}", f"64:ff9b::{address}"):
        assert not outside._is_public(ipaddress.IPv6Address(carried))


def take(connection: socket.socket) -> bytes:
    """The whole request. Its body comes by itself, and hanging up on it would take the answer."""
    request = b""
    while not request.endswith(b"\r\n\r\n{}") and (more := connection.recv(4096)):
        request += more
    return request


def test_a_name_is_asked_for_once(serve: Serve, names: dict[str, list[str]]) -> None:
    """A name server that answers otherwise the second time wins nothing."""
    asked: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        asked.append(take(connection))
        connection.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

    port = serve(answer)
    names["hook.test"] = ["127.0.0.1", "169.254.169.254"]
    assert outside.post(f"http://hook.test:{port}/a b/é?x=ü&y=%20", b"{}", {"X-A": "1"}) == 204
    assert names["hook.test"] == ["169.254.169.254"]
    [request] = asked
    assert request.startswith(b"POST /a%20b/%C3%A9?x=%C3%BC&y=%20 HTTP/1.1\r\n")
    assert f"Host: hook.test:{port}\r\n".encode() in request


def test_a_redirect_is_an_answer_and_no_order(serve: Serve) -> None:
    seen: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        seen.append(take(connection))
        connection.sendall(b"HTTP/1.1 307 X\r\nLocation: http://169.254.169.254/\r\n\r\n")

    assert outside.post(f"http://127.0.0.1:{serve(answer)}/", b"{}", {}) == 307
    assert len(seen) == 1


def drops(connection: socket.socket) -> None:
    take(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Drop: ")
    while True:
        connection.sendall(b"a")
        time.sleep(0.02)


def goes_on(connection: socket.socket) -> None:
    take(connection)
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


def says_nothing(connection: socket.socket) -> None:
    time.sleep(5)


@pytest.mark.parametrize("answer", [drops, goes_on])
def test_whoever_answers_drop_by_drop_is_cut_off(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, answer: Callable[[socket.socket], None]
) -> None:
    monkeypatch.setattr(outside, "TOTAL_SECONDS", 0.6)
    began = time.monotonic()
    with pytest.raises(OutsideError, match="No answer: it took longer than 0 seconds"):
        outside.post(f"http://127.0.0.1:{serve(answer)}/", b"{}", {})
    assert time.monotonic() - began < 3


def test_a_silent_handshake_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "TOTAL_SECONDS", 0.4)
    with pytest.raises(OutsideError, match="it took longer"):
        outside.post(f"https://127.0.0.1:{serve(says_nothing)}/", b"{}", {})


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"\r\n" * 9,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 99999 x\r\n\r\n",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
        b"HTTP/1.1 200 " + b"x" * 100_000,
        b"\xff" * 70_000,
    ],
)
def test_an_answer_that_is_none_is_an_error(serve: Serve, said: bytes) -> None:
    def answer(connection: socket.socket) -> None:
        take(connection)
        connection.sendall(said)

    with pytest.raises(OutsideError, match="No answer: "):
        outside.post(f"http://127.0.0.1:{serve(answer)}/", b"{}", {})


def certificate(folder: Path, name: str) -> Path:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    path = folder / f"{name}.pem"
    path.write_bytes(secret + made.public_bytes(pem))
    return path


def test_it_checks_the_certificate_for_the_name(
    serve: Serve,
    names: dict[str, list[str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = certificate(tmp_path, "hook.test")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)

    def answer(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secure:
            take(secure)
            secure.sendall(b"HTTP/1.1 200 OK\r\n\r\n")

    port = serve(answer)
    names |= {"hook.test": ["127.0.0.1"] * 2, "other.test": ["127.0.0.1"]}
    with pytest.raises(OutsideError, match="certificate verify failed"):
        outside.post(f"https://hook.test:{port}/", b"{}", {})
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    assert outside.post(f"https://hook.test:{port}/", b"{}", {}) == 200
    with pytest.raises(OutsideError, match="certificate"):
        outside.post(f"https://other.test:{port}/", b"{}", {})
