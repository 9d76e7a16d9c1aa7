"""Certificates for the TLS tests, made with openssl in a temporary directory at test time.

Nothing is committed and nothing expires. Two authorities: the one in use, and another one that nobody trusts.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_DAYS = "2"
_CURVE = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]


@dataclass
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: Path
    private_key: Path


@dataclass
class Certificates:
    """`server` is good for 127.0.0.1 and localhost. `stranger` is a client certificate of `other_ca`."""

    ca: Pair
    server: Pair
    client: Pair
    other_ca: Pair
    stranger: Pair


def make(directory):
    """Makes the whole set in `directory`."""
    directory = Path(directory)
    ca = _authority(directory, "ca", "TernMQ test authority")
    other = _authority(directory, "other_ca", "Another authority")
    server_names = "subjectAltName=IP:127.0.0.1,DNS:localhost\nextendedKeyUsage=serverAuth\n"
    return Certificates(
        ca=ca,
        server=_signed(directory, "server", "localhost", ca, server_names),
        client=_signed(directory, "client", "device-1", ca, "extendedKeyUsage=clientAuth\n"),
        other_ca=other,
        stranger=_signed(directory, "stranger", "device-1", other, "extendedKeyUsage=clientAuth\n"),
    )


def _pair(directory, name):
    return Pair(directory / f"{name}.pem", directory / f"{name}.key")


def _authority(directory, name, common_name):
    pair = _pair(directory, name)
    _openssl(
        *["req", "-x509", *_CURVE, "-days", _DAYS, "-subj", f"/CN={common_name}"],
        *["-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign,cRLSign"],
        *["-keyout", pair.private_key, "-out", pair.certificate],
    )
    return pair


def _signed(directory, name, common_name, authority, extensions):
    pair = _pair(directory, name)
    request, extension_file = directory / f"{name}.csr", directory / f"{name}.ext"
    extension_file.write_text("basicConstraints=critical,CA:FALSE\nkeyUsage=critical,digitalSignature\n" + extensions)
    _openssl("req", "-new", *_CURVE, "-subj", f"/CN={common_name}", "-keyout", pair.private_key, "-out", request)
    _openssl(
        *["x509", "-req", "-in", request, "-days", _DAYS, "-CA", authority.certificate],
        *["-CAkey", authority.private_key, "-CAcreateserial", "-extfile", extension_file],
        *["-out", pair.certificate],
    )
    return pair


def _openssl(*arguments):
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, f"openssl {arguments[0]}: {done.stderr}"
