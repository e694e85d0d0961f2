"""What a tap's card proof says: decrypts and checks it, before the ledger is asked.

Answers for the proof by itself: whose card it is (as a keyed digest of its UID, or of its address)
and whether its MAC or its signature holds. Whether that card is known, whether its counter rose and
whom it may pay is decided by `authorize` on what the ledger holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final

from taprail_common import sun
from taprail_common.errors import InputError
from taprail_common.wire import (
    PlainSunProof,
    SignedProof,
    SunProof,
    TerminalPayment,
    UidProof,
)
from taprail_gateway import card_authorization
from taprail_gateway.authorize import Evidence, Profile
from taprail_gateway.reasons import Reason
from taprail_gateway.remembered import CacheUse

_CARDS_CACHED: Final = 10_000
"""Diversified keys kept in memory, about 300 bytes each; a miss costs two AES-CMACs and an HMAC."""


@dataclass(frozen=True, slots=True)
class IssuerKeys:
    """The issuer's keys of one version: AES-128, 16 bytes each. Never shown."""

    sun_master_key: bytes = field(repr=False)
    meta_read_key: bytes = field(repr=False)


class ProofReader:
    """Reads card proofs with the issuer's keys; `uid_digest` is the ledger's name for a UID, and
    `token_separator` the EIP-712 domain of the token that cards sign for."""

    def __init__(
        self,
        keys: Mapping[int, IssuerKeys],
        uid_digest: Callable[[bytes], str],
        token_separator: bytes,
    ) -> None:
        self._separator = token_separator
        self._keys: dict[int, IssuerKeys] = {}
        self.learn(keys)
        self._uid_digest = lru_cache(_CARDS_CACHED)(uid_digest)
        self._card_key = lru_cache(_CARDS_CACHED)(self._derive)

    def learn(self, keys: Mapping[int, IssuerKeys]) -> None:
        """Read by these keys from now on; a version never changes."""
        self._keys = dict(sorted(keys.items(), reverse=True))  # most cards have the newest

    @property
    def newest_version(self) -> int:
        """Of the keys that are known here; 0 without any."""
        return max(self._keys, default=0)

    @property
    def use(self) -> CacheUse:
        """How often a card's own key was there already."""
        info = self._card_key.cache_info()
        return CacheUse(info.hits, info.misses)

    def evidence(self, payment: TerminalPayment) -> Evidence:
        """What this tap says of its card. A proof that does not hold is evidence too: it is
        declined, by a signed verdict, and not an error."""
        if isinstance(payment.proof, UidProof):
            digest = self._uid_digest(bytes.fromhex(payment.proof.uid))
            return Evidence(Profile.UID, digest, payment.card_uuid)
        if isinstance(payment.proof, SignedProof):
            return self._signed(payment, payment.proof)
        evidence = self._sun(payment.proof, payment.card_uuid)
        if payment.counter not in {None, evidence.counter} and evidence.problem is None:
            return Evidence(
                Profile.SUN, evidence.uid_digest, problem=Reason.CARD_PROOF_INVALID
            )  # the terminal read another counter than the card encrypted: not one tap
        return evidence

    def _signed(self, payment: TerminalPayment, proof: SignedProof) -> Evidence:
        digest = self._uid_digest(account_bytes(proof.payer))
        try:
            signed = card_authorization.checked(payment, proof, self._separator)
        except InputError:
            return Evidence(Profile.SIGNED, digest, problem=Reason.CARD_PROOF_INVALID)
        if payment.counter is not None:  # such a card has none
            return Evidence(Profile.SIGNED, digest, problem=Reason.CARD_PROOF_INVALID)
        return Evidence(Profile.SIGNED, digest, payment.card_uuid, authorization=signed)

    def _sun(self, proof: SunProof | PlainSunProof, card_uuid: str | None) -> Evidence:
        digest: str | None = None
        mac = bytes.fromhex(proof.mac)
        for version, keys in self._keys.items():
            picc = _picc_data(proof, keys)
            if picc is None:
                continue
            digest = self._uid_digest(picc.uid)
            if sun.mac_matches(self._card_key(version, picc.uid), picc, mac):
                return Evidence(Profile.SUN, digest, card_uuid, picc.counter, version)
        problem = Reason.CARD_UNKNOWN if digest is None else Reason.CARD_PROOF_INVALID
        return Evidence(Profile.SUN, digest, card_uuid, problem=problem)

    def _derive(self, version: int, uid: bytes) -> bytes:
        return sun.diversify(self._keys[version].sun_master_key, uid)


def _picc_data(proof: SunProof | PlainSunProof, keys: IssuerKeys) -> sun.PiccData | None:
    """What the tap says of the card; None when no card of these keys would say it."""
    if isinstance(proof, PlainSunProof):
        return sun.plain_picc_data(proof.uid, proof.read_counter)
    try:
        return sun.decrypt_picc_data(keys.meta_read_key, bytes.fromhex(proof.picc_data))
    except InputError:
        return None


def account_bytes(address: str) -> bytes:
    """What names a signing card instead of a UID: 20 bytes, which no UID has."""
    return bytes.fromhex(address.removeprefix("0x"))
