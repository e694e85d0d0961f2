"""The gateway's own TLS: a certificate that terminals know by its SHA-256, and the one after it.

Nobody has to have signed it, and it may be as old as it likes: a terminal learns its SHA-256 when
it is paired, and that of the next one from each hello, which the gateway's key has signed.
"""

from __future__ import annotations

import hashlib
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID

from taprail_common.errors import OperatorError
from taprail_common.secret_files import secret_file_problem
from taprail_common.signing import write_secret_file

_YEARS: Final = 10
_MAKE: Final = "make one with `taprail admin tls make`"


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """What the port speaks; raises OperatorError that names the file that cannot be used."""
    problem = secret_file_problem(key)
    if problem is not None:
        raise OperatorError(f"gateway.tls_key_file {key} {problem}", fix=_MAKE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as exc:
        raise OperatorError(f"certificate {certificate} cannot be used ({exc})", fix=_MAKE) from exc
    return context


def pin_of(certificate: Path) -> str:
    """The SHA-256 that terminals know a certificate by; raises OperatorError."""
    try:
        first = x509.load_pem_x509_certificate(certificate.read_bytes())
    except (OSError, ValueError) as exc:
        raise OperatorError(f"certificate {certificate} cannot be read", fix=_MAKE) from exc
    return hashlib.sha256(first.public_bytes(serialization.Encoding.DER)).hexdigest()


def make_certificate(certificate: Path, key_file: Path, host: str, now: datetime) -> str:
    """Make a key and a certificate that it has signed itself; its SHA-256. Both files are new."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now.astimezone(UTC) - timedelta(days=1))
        .not_valid_after(now.astimezone(UTC) + timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    try:
        write_secret_file(key_file, private.decode())
        write_secret_file(certificate, made.public_bytes(serialization.Encoding.PEM).decode())
    except FileExistsError as exc:
        raise OperatorError(f"{exc.filename} exists already", fix="name new files") from None
    return pin_of(certificate)
