"""keccak-256, the hash of Ethereum, which differs from SHA3-256 in its padding."""

from __future__ import annotations

from Crypto.Hash import keccak


def keccak256(data: bytes) -> bytes:
    """Hash any bytes to 32 bytes."""
    digest: bytes = keccak.new(digest_bits=256, data=data).digest()
    return digest
