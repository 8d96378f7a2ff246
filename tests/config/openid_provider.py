"""A small OpenID provider on this machine: discovery, authorize, token, userinfo and keys.

It keeps the rules of the code flow, as a real one does: a known client and redirect address, one
use per code, PKCE, the client's secret, an RS256 signature. Whoever comes to its login page is
`person`, at once. Its public attributes let a test make it misbehave.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa

CLIENT = "oneloop"
SECRET = "a secret of the client"
CALLBACK = "/oidc/sso/login/callback/"


def new_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


class Provider:
    def __init__(self) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.key = new_key()
        self.person: dict[str, Any] = {}
        self.refuses = False  # the person clicks “cancel”
        self.signs_with = self.key
        self.claims: dict[str, Any] = {}  # put over those of the id_token
        self.sends_id_token = True
        self.userinfo: dict[str, Any] = {}  # put over the person's
        self.codes: dict[str, dict[str, str]] = {}
        self.tokens: dict[str, dict[str, Any]] = {}
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(10)

    # What it answers ----------------------------------------------------------------------------

    def discovery(self) -> dict[str, Any]:
        return {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "userinfo_endpoint": f"{self.url}/userinfo",
            "jwks_uri": f"{self.url}/keys",
            "response_types_supported": ["code"],
            "id_token_signing_alg_values_supported": ["RS256"],
            "token_endpoint_auth_methods_supported": ["client_secret_post"],
            "code_challenge_methods_supported": ["S256"],
        }

    def keys(self) -> dict[str, Any]:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        return {"keys": [public | {"kid": "one", "use": "sig", "alg": "RS256"}]}

    def authorize(self, asked: dict[str, str]) -> str | None:
        """Where the browser is sent; None refuses without sending it anywhere."""
        back = asked.get("redirect_uri", "")
        if asked.get("client_id") != CLIENT or urlsplit(back).path != CALLBACK:
            return None
        is_whole = asked.get("response_type") == "code" and "openid" in asked["scope"].split()
        if not is_whole or asked.get("code_challenge_method") != "S256":
            return f"{back}?{urlencode({'error': 'invalid_request', 'state': asked['state']})}"
        if self.refuses:
            return f"{back}?{urlencode({'error': 'access_denied', 'state': asked['state']})}"
        code = secrets.token_urlsafe()
        self.codes[code] = asked
        return f"{back}?{urlencode({'code': code, 'state': asked['state']})}"

    def token(self, sent: dict[str, str]) -> dict[str, Any] | None:
        asked = self.codes.pop(sent.get("code", ""), None)
        if asked is None or sent.get("grant_type") != "authorization_code":
            return None
        if (sent.get("client_id"), sent.get("client_secret")) != (CLIENT, SECRET):
            return None
        digest = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if challenge != asked["code_challenge"] or sent["redirect_uri"] != asked["redirect_uri"]:
            return None
        access = secrets.token_urlsafe()
        self.tokens[access] = self.person | self.userinfo
        answer = {"access_token": access, "token_type": "Bearer", "expires_in": 300}
        return answer | ({"id_token": self.id_token()} if self.sends_id_token else {})

    def id_token(self) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300}
        claims |= {"sub": self.person["sub"]} | self.claims
        return jwt.encode(claims, self.signs_with, algorithm="RS256", headers={"kid": "one"})


def _handler_of(provider: Provider) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/.well-known/openid-configuration":
                self.answer(provider.discovery())
            elif parts.path == "/keys":
                self.answer(provider.keys())
            elif parts.path == "/authorize":
                self.send(provider.authorize(_flat(parts.query)))
            elif parts.path == "/userinfo":
                access = self.headers.get("Authorization", "").removeprefix("Bearer ")
                self.answer(provider.tokens.get(access), 401)
            else:
                self.answer(None, 404)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            self.answer(provider.token(_flat(body)), 400)

        def answer(self, content: dict[str, Any] | None, otherwise: int = 400) -> None:
            data = json.dumps(content if content is not None else {"error": "refused"}).encode()
            self.send_response(200 if content is not None else otherwise)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def send(self, address: str | None) -> None:
            if address is None:
                self.answer(None)
                return
            self.send_response(302)
            self.send_header("Location", address)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

    return Handler


def _flat(query: str) -> dict[str, str]:
    return {key: values[0] for key, values in parse_qs(query).items()}
