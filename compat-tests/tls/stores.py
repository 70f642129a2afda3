"""Certificates, and the stores that openssl and keytool make of them."""

import pathlib
import subprocess

PASSWORD = "storepass"
EC = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{command}: {done.stderr or done.stdout}"
    return done.stdout


class Authority:
    """One that signs, with its certificate in `pem`, `jks` and `p12`."""

    def __init__(self, folder, name):
        self.folder, self.name = pathlib.Path(folder), name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.key, self.pem = self.folder / f"{name}.key", self.folder / f"{name}.pem"
        run("openssl", "req", "-x509", *EC, "-nodes", "-keyout", self.key, "-out", self.pem, "-subj", f"/CN={name}", "-days", 30)
        self.jks, self.p12 = self.folder / f"{name}.jks", self.folder / f"{name}.trust.p12"
        for kind, file in (("JKS", self.jks), ("PKCS12", self.p12)):
            run("keytool", "-importcert", "-noprompt", "-alias", "ca", "-file", self.pem, "-keystore", file,
                "-storetype", kind, "-storepass", PASSWORD)  # fmt: skip

    def issue(self, name, names=(), version1=False, rsa=False, file=None):
        return Identity(self, name, names, version1, rsa, file or name)


class Identity:
    """A key and its certificate: `key`, `certificate`, both in `pem`, and in `p12` and `jks`."""

    def __init__(self, authority, name, names, version1, rsa, file):
        at = authority.folder / file
        self.key, self.certificate = at.with_suffix(".key"), at.with_suffix(".crt")
        request, extensions = at.with_suffix(".csr"), at.with_suffix(".ext")
        kind = ["-newkey", "rsa:2048"] if rsa else EC
        run("openssl", "req", *kind, "-nodes", "-keyout", self.key, "-out", request, "-subj", f"/O=klamm/CN={name}")
        more = []
        if not version1:
            listed = ",".join(names) or "DNS:client"
            extensions.write_text(f"subjectAltName={listed}\nextendedKeyUsage=serverAuth,clientAuth\n")
            more = ["-extfile", extensions]
        run("openssl", "x509", "-req", "-in", request, "-CA", authority.pem, "-CAkey", authority.key, "-CAcreateserial",
            "-out", self.certificate, "-days", 30, *more)  # fmt: skip
        self.pem = at.with_suffix(".pem")
        self.pem.write_text(self.key.read_text() + self.certificate.read_text() + authority.pem.read_text())
        self.p12, self.jks = at.with_suffix(".p12"), at.with_suffix(".jks")
        run("openssl", "pkcs12", "-export", "-in", self.pem, "-name", name, "-passout", f"pass:{PASSWORD}", "-out", self.p12)
        run("keytool", "-importkeystore", "-noprompt", "-srckeystore", self.p12, "-srcstorepass", PASSWORD,
            "-destkeystore", self.jks, "-deststoretype", "JKS", "-deststorepass", PASSWORD)  # fmt: skip
        self.encrypted = at.with_suffix(".encrypted.pem")
        run("openssl", "pkcs8", "-topk8", "-v2", "aes-256-cbc", "-in", self.key, "-passout", f"pass:{PASSWORD}",
            "-out", self.encrypted)  # fmt: skip
        self.encrypted.write_text(self.encrypted.read_text() + self.certificate.read_text())
