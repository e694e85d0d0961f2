"""One attack's props: its card, another one, the attacker's terminals, and how letters are made."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from typing import Any, Final

from eth_account.messages import encode_typed_data
from nacl.signing import SigningKey

from taprail_common.clock import rfc3339
from taprail_common.ids import new_id, payment_id
from taprail_common.signing import Domain, sign
from tests.attack.letters import Letter, Proof
from tests.attack.victims import ACCOUNTS, Shop, Victim
from tests.support.eip3009 import MOVE_FIELDS
from tests.support.gateway_fixtures import MERCHANT, TERMINAL, TOKEN_DOMAIN

MOST: Final = 1_000
"""Of an honest amount, so that limits are met only where a kind means to."""

SIGNED_FOR_S: Final = 3_600
"""How long a card's signature is valid at a terminal that means well (NFC.md: from its tap)."""

TOKEN: Final = {
    "name": TOKEN_DOMAIN.name,
    "version": TOKEN_DOMAIN.version,
    "chainId": TOKEN_DOMAIN.chain_id,
    "verifyingContract": TOKEN_DOMAIN.address,
}


@dataclass
class Scene:
    """`card` is this attack's alone for its time; `other` is somebody else's, of the same sort."""

    shop: Shop
    rng: random.Random
    card: Victim
    other: Victim

    @property
    def now_ms(self) -> int:
        return self.shop.gateway.now_ms()

    def amount(self) -> int:
        """An honest amount."""
        return self.rng.randint(2, MOST)

    # --- letters ------------------------------------------------------------------------------

    def tap(self, **changes: Any) -> Letter:
        """A fresh tap of this attack's SUN card."""
        proof, counter = self.card.tap()
        return self.letter(proof, counter, **changes)

    def letter(self, proof: Proof, counter: int | None = None, /, **changes: Any) -> Letter:
        """A request with this proof, as a genuine terminal makes it."""
        fields = self.shop.gateway.request(proof, amount=self.amount())
        made = Letter(b"", TERMINAL, card=self.card, counter=counter)
        return self.written(made, {**fields, **changes})

    def anew(self, letter: Letter, **changes: Any) -> Letter:
        """The same request under a new id, signed anew by the terminal that it is then by."""
        return self.same_id(letter, **{"requestId": new_id("req"), **changes})

    def same_id(self, letter: Letter, **changes: Any) -> Letter:
        """The same request with something changed, signed anew."""
        return self.written(letter, {**letter.fields, **changes})

    def with_proof(self, letter: Letter, **changes: Any) -> Letter:
        """A proof with something changed, under a new request id."""
        return self.anew(letter, proof={**letter.fields["proof"], **changes})

    def written(self, letter: Letter, fields: dict[str, Any]) -> Letter:
        """These fields, signed by the terminal that they name."""
        body = json.dumps(fields).encode()
        sender = str(fields["terminalId"])
        return self.signed_by(replace(letter, body=body, sender=sender), self.shop.keys[sender])

    def signed_by(
        self, letter: Letter, key: SigningKey, domain: Domain = Domain.PAYMENT_REQUEST
    ) -> Letter:
        """The same bytes under another signature."""
        return replace(letter, signature=sign(key, domain, letter.body))

    def at(self, ahead_ms: int) -> str:
        """A time of the gateway's clock as text."""
        return rfc3339(self.now_ms + ahead_ms)

    # --- cards that sign ----------------------------------------------------------------------

    def signing(
        self,
        *,
        terminal: str = TERMINAL,
        typed: str = "TransferWithAuthorization",
        token: dict[str, Any] = TOKEN,
        by: Victim | None = None,
        told: dict[str, Any] | None = None,
        **transfer: Any,
    ) -> Letter:
        """A request whose card has signed it; by eth_account's general encoder.

        `transfer` is what the card is made to sign instead, `told` what the proof says instead.
        """
        request_id = new_id("req")
        amount, until_s = self.amount(), self.now_ms // 1000 + SIGNED_FOR_S
        signed = {
            "from": self.card.account,
            "to": ACCOUNTS[MERCHANT],
            "value": amount,
            "validAfter": 0,
            "validBefore": until_s,
            "nonce": bytes.fromhex(payment_id(terminal, request_id)[2:]),
            **transfer,
        }
        message = encode_typed_data(token, {typed: MOVE_FIELDS}, signed)
        proof = {
            "profile": "signed",
            "payer": self.card.account,
            "payee": ACCOUNTS[MERCHANT],
            "validBefore": until_s,
            "signature": self.sign(message, by or self.card),
            **(told or {}),
        }
        return self.letter(proof, requestId=request_id, amount=amount, terminalId=terminal)

    @staticmethod
    def sign(message: Any, card: Victim) -> str:
        """r and s in hex of what a card signs."""
        if card.signer is None:
            raise AssertionError(f"a {card.sort} card does not sign")
        signed = card.signer.sign_message(message)
        return f"{signed.r:064x}{signed.s:064x}"
