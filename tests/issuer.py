"""An issuer of tokens as a real HTTP server of this machine, with keys of its own."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

LIMIT_S = 30.0


@dataclass
class LocalIssuer:
    """Says who it is and which keys it has, and signs what it is told to.

    Attributes:
        url: Its address.
        keys: Private keys by their ids.
        asked: Paths that were asked for, in order.
        claimed: What it says its address is; its address, unless a test says otherwise.
        answers: While it is not set, nothing is answered.
    """

    url: str = ""
    keys: dict[str, Any] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    claimed: str = ""
    answers: threading.Event = field(default_factory=threading.Event)

    def add_key(self, id: str, *, curve: bool = False) -> None:
        """Make a key that the next fetch of the keys shows."""
        made = ec.generate_private_key(ec.SECP256R1()) if curve else None
        self.keys[id] = made or rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def public(self, id: str) -> bytes:
        """Return a public key as PEM, which some libraries take for a shared secret."""
        public: bytes = (
            self.keys[id].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        )
        return public

    def sign(self, id: str = "k1", algorithm: str = "RS256", **claims: Any) -> str:
        """Make a token; a claim that is None is left out."""
        now = int(time.time())
        usual = {"iss": self.url, "sub": "mira", "aud": "http://127.0.0.1", "iat": now}
        given = {**usual, "exp": now + 300, "scope": "openid persona:read", **claims}
        told = {name: value for name, value in given.items() if value is not None}
        return jwt.encode(told, self.keys[id], algorithm=algorithm, headers={"kid": id})

    def document(self, path: str) -> dict[str, Any] | None:
        """Return what is answered at a path."""
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.claimed or self.url, "jwks_uri": f"{self.url}/keys"}
        return {"keys": [self._jwk(id, key) for id, key in self.keys.items()]}

    def _jwk(self, id: str, key: Any) -> dict[str, Any]:
        kind = (
            jwt.algorithms.RSAAlgorithm
            if isinstance(key, rsa.RSAPrivateKey)
            else jwt.algorithms.ECAlgorithm
        )
        return {**json.loads(kind.to_jwk(key.public_key())), "kid": id, "use": "sig"}


@contextmanager
def local_issuer() -> Iterator[LocalIssuer]:
    """Run an issuer with one key while the block lasts."""
    issuer = LocalIssuer()
    issuer.add_key("k1")
    issuer.answers.set()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked.append(self.path)
            issuer.answers.wait(LIMIT_S)
            body = json.dumps(issuer.document(self.path)).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    issuer.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, name="issuer")
    thread.start()
    try:
        yield issuer
    finally:
        issuer.answers.set()
        server.shutdown()
        thread.join(LIMIT_S)
        server.server_close()
