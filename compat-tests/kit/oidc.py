"""An OpenID provider on loopback: keys that sign tokens (JWKS), and tokens for whoever shows a client's id and secret.

    GET  /keys                 the keys, as RFC 7517 has them
    POST /token                a token: client credentials (RFC 6749, 4.4), or a JWT that the client signed (RFC 7523)
    GET  /token?…              as Azure's service of instance metadata answers
    POST /token/badformat      a token that is none
    POST /token/expired        a token of yesterday

The signatures are openssl's. What it is asked is counted, by path, in `asked`.
"""

import base64
import collections
import http.server
import json
import pathlib
import ssl
import subprocess
import threading
import time
import urllib.parse

CLIENT, SECRET = "klamm-client", "planted-client-secret"
SCOPES = {"", "test"}
ISSUER, AUDIENCE, SUBJECT = "https://issuer.example", "kafka-cluster", "oidc-user"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"


def encoded(data):
    if not isinstance(data, bytes):
        data = json.dumps(data).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decoded(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def openssl(*arguments, stdin=None):
    done = subprocess.run(["openssl", *map(str, arguments)], input=stdin, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr.decode(errors='replace')}"
    return done.stdout


class Key:
    """An RSA key of 2048 bits; `encrypted` is the same under `password`."""

    def __init__(self, folder, name, password="planted-key-password"):
        self.id, self.password = name, password
        self.file, self.encrypted, self.public = (pathlib.Path(folder, f"{name}.{end}") for end in ("pem", "enc.pem", "pub.pem"))
        openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.file)
        openssl("pkey", "-in", self.file, "-pubout", "-out", self.public)
        openssl("pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", self.file, "-passout", f"pass:{password}", "-out", self.encrypted)

    def jwk(self):
        modulus = openssl("rsa", "-in", self.file, "-noout", "-modulus").decode().strip().split("=")[1]
        n = bytes.fromhex(modulus)
        return {"kty": "RSA", "kid": self.id, "use": "sig", "alg": "RS256", "n": encoded(n), "e": encoded(b"\x01\x00\x01")}

    def sign(self, claims):
        signed = f"{encoded({'alg': 'RS256', 'kid': self.id})}.{encoded(claims)}"
        return f"{signed}.{encoded(openssl('dgst', '-sha256', '-sign', self.file, stdin=signed.encode()))}"

    def has_signed(self, token, folder):
        signed, _, signature = token.rpartition(".")
        try:
            if json.loads(decoded(signed.split(".")[0]))["alg"] != "RS256":
                return False
        except (KeyError, ValueError):
            return False
        file = pathlib.Path(folder, f"signature-{threading.get_ident()}")
        file.write_bytes(decoded(signature))
        command = ["openssl", "dgst", "-sha256", "-verify", self.public, "-signature", file]
        done = subprocess.run(command, input=signed.encode(), capture_output=True, timeout=60, check=False)
        return done.returncode == 0


class Provider:
    """Serves until it is closed. `seconds`: how long its tokens are good; `certificate`: (PEM, key), for https."""

    def __init__(self, folder, seconds=10, certificate=None, port=0):
        self.folder, self.seconds = pathlib.Path(folder), seconds
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key, self.client_key = Key(folder, "signs"), Key(folder, "client-signs")
        self.keys = [self.key]
        self.asked = collections.Counter()
        handler = type("Handler", (Handler,), {"provider": self})
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
        self.server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            # Hands are shaken by the thread of the connection, not by the one that accepts.
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"{'https' if certificate else 'http'}://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def renew(self, name):
        """Signs with another key from now on, and knows that one alone."""
        self.key = Key(self.folder, name)
        self.keys = [self.key]

    def token(self, seconds=None, subject=SUBJECT):
        now, seconds = time.time(), self.seconds if seconds is None else seconds
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "client_id": CLIENT, "exp": int(now + seconds)}
        return self.key.sign({**claims, "iat": int(min(now, now + seconds) - 1)})

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Refused(Exception):
    pass


class Handler(http.server.BaseHTTPRequestHandler):
    provider = None

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def serve(self, body):
        self.provider.asked[urllib.parse.urlsplit(self.path).path] += 1
        try:
            self.answer(200, body())
        except Refused as why:
            self.answer(400, {"error": "invalid_request", "error_description": str(why)})
        except (BrokenPipeError, ConnectionResetError):
            pass

    def do_GET(self):
        self.serve(self.get)

    def do_POST(self):
        self.serve(self.post)

    def get(self):
        url = urllib.parse.urlsplit(self.path)
        if url.path == "/keys":
            return {"keys": [key.jwk() for key in self.provider.keys]}
        query = dict(urllib.parse.parse_qsl(url.query))
        missing = {"api-version", "resource", "client_id"} - query.keys()
        if url.path != "/token" or self.headers.get("Metadata") != "true" or missing:
            raise Refused(f"{url.path}: not asked as one asks for metadata, without {sorted(missing)}")
        return self.given(self.provider.token())

    def post(self):
        length = int(self.headers.get("Content-Length") or 0)
        form = dict(urllib.parse.parse_qsl(self.rfile.read(length).decode()))
        if self.path == "/token/expired":
            return self.given(self.provider.token(seconds=-3600))
        if self.path == "/token/badformat":
            return self.given("no.token")
        if self.path != "/token":
            raise Refused(f"there is no {self.path}")
        if form.get("scope", "") not in SCOPES:
            raise Refused(f"an unknown scope: {form['scope']}")
        if form.get("grant_type") == JWT_BEARER:
            if not self.provider.client_key.has_signed(form.get("assertion", ""), self.provider.folder):
                raise Refused("another key than the client's signed the assertion")
        elif form.get("grant_type") != "client_credentials" or not self.is_client():
            raise Refused("neither a client's credentials nor an assertion")
        return self.given(self.provider.token())

    def is_client(self):
        wanted = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        return self.headers.get("Authorization") == f"Basic {wanted}"

    def given(self, token):
        return {"access_token": token, "token_type": "Bearer", "expires_in": self.provider.seconds}
