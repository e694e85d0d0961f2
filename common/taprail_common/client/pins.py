"""A gateway that is known by the certificates that it shows, and not by who has signed them.

Answers for comparing the SHA-256 of a certificate with those that are known, at each connection.
Where none is known, certificates are checked as a browser would.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable
from typing import Final

import aiohttp

_ANY: Final = hashlib.sha256(b"no certificate").digest()


class PinnedCertificates(aiohttp.Fingerprint):
    """For `ssl=` of a connector. With `learns` any certificate passes, and is noted: whoever asks
    so must find out by other means whose it is."""

    def __init__(self, pins: Iterable[str], *, learns: bool = False) -> None:
        super().__init__(_ANY)
        self.pins = tuple(pins)
        self.learns = learns
        self.seen: str | None = None

    def check(self, transport: asyncio.Transport) -> None:
        """Raise aiohttp's ServerFingerprintMismatch for a certificate that is not known."""
        tls = transport.get_extra_info("ssl_object")
        if tls is None:
            return
        self.seen = hashlib.sha256(tls.getpeercert(binary_form=True)).hexdigest()
        if self.seen not in self.pins and not self.learns:
            host, port, *_ = transport.get_extra_info("peername")
            known = bytes.fromhex(self.pins[0]) if self.pins else _ANY
            raise aiohttp.ServerFingerprintMismatch(known, bytes.fromhex(self.seen), host, port)
