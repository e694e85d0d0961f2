"""Other people on the chain: strangers, holders of accounts, the token's issuer, thieves."""

from __future__ import annotations

from enum import Enum
from typing import Final

from eth_abi.abi import encode
from eth_account import Account

from tests.model import signed, world
from tests.model.fake_chain import GWEI, FakeChain, RefusedError, Stranger
from tests.model.shop import CARD_ACCOUNTS, address, secret
from tests.support.eip3009 import MOVE_FIELDS

_THIEFS_FEE_WEI: Final = 1_000 * GWEI
"""More than any cap of ours: it goes before, and nothing of ours replaces it."""


class Holder(Enum):
    """What the holder of an account may do to our payments, or its issuer to the account."""

    BURNS = "cancels the authorization of a payment"
    USES_NONCE = "uses its nonce for a transfer to somebody else"
    DRAINS = "takes all the money away"
    GETS_CODE = "delegates the account to code (EIP-7702)"
    LOSES_CODE = "takes the code away"
    IS_FROZEN = "the issuer blocks the account"
    IS_FREE = "the issuer lets it go on"


class Theft(Enum):
    """Which nonce of a lane's wallet somebody else uses, who has its key."""

    LOWEST = "the next that the chain takes"
    MIDDLE = "one between ours"
    NEXT = "the one behind ours"
    BEYOND = "the one after that: it waits for ours"


def execute(chain: FakeChain, choice: int) -> None:
    """A stranger carries out an authorization that was seen on its way."""
    seen = list(chain.seen_authorizations().values())
    if seen:
        it = seen[choice % len(seen)]
        chain.strangers.append(Stranger(_STRANGER, world.TOKEN, call_data(it)))


def tamper(chain: FakeChain, how: Holder, payer: str, payment: str) -> None:
    """Something is done to a payment that was sold, or to its account."""
    now = chain.world
    if how is Holder.GETS_CODE:
        now.delegated.add(payer)
    elif how is Holder.LOSES_CODE:
        now.delegated.discard(payer)
    elif how is Holder.IS_FROZEN:
        now.blocked.add(payer)
    elif how is Holder.IS_FREE:
        now.blocked.discard(payer)
    else:
        data = _holder_call(chain, how, payer, payment)
        chain.strangers.append(Stranger(payer, world.TOKEN, data))


def _holder_call(chain: FakeChain, how: Holder, payer: str, payment: str) -> bytes:
    if how is Holder.BURNS:
        return world.CANCEL + encode(
            ["address", "bytes32", "uint8", "bytes32", "bytes32"],
            [payer, bytes.fromhex(payment[2:]), 27, b"\1" * 32, b"\1" * 32],
        )
    if how is Holder.USES_NONCE:
        return call_data(authorize(payer, _ELSEWHERE, 1, payment, 2**40))
    units = chain.world.tokens.get(payer, 0)
    return world.PLAIN_TRANSFER + encode(["address", "uint256"], [_ELSEWHERE, units])


def steal_nonce(chain: FakeChain, lane: int, nonce: int) -> str:
    """Somebody else sends with a lane's key; the transaction's hash, taken by the pool or not."""
    signed_ = Account.sign_transaction(
        {
            "chainId": world.CHAIN_ID,
            "nonce": nonce,
            "to": bytes.fromhex(_ELSEWHERE[2:]),
            "value": 1,
            "gas": world.PLAIN_GAS,
            "maxFeePerGas": _THIEFS_FEE_WEI,
            "maxPriorityFeePerGas": _THIEFS_FEE_WEI,
        },
        secret(f"lane {lane}"),
    )
    raw = bytes(signed_.raw_transaction)
    try:
        return chain.offer(raw)
    except RefusedError:
        return signed.transaction(raw).tx_hash


def authorize(
    payer: str, payee: str, amount_units: int, nonce: str, valid_before_s: int
) -> signed.Authorization:
    """An authorization signed by eth_account with the key of a card's account."""
    domain = {
        "name": world.TOKEN_NAME,
        "version": world.TOKEN_VERSION,
        "chainId": world.CHAIN_ID,
        "verifyingContract": world.TOKEN,
    }
    fields = {
        "from": payer,
        "to": payee,
        "value": amount_units,
        "validAfter": 0,
        "validBefore": valid_before_s,
        "nonce": nonce,
    }
    key = secret(f"card {CARD_ACCOUNTS.index(payer)}")
    it = Account.sign_typed_data(key, domain, {"TransferWithAuthorization": MOVE_FIELDS}, fields)
    return signed.Authorization(
        payer,
        payee,
        amount_units,
        0,
        valid_before_s,
        nonce,
        it.v,
        it.r.to_bytes(32),
        it.s.to_bytes(32),
    )


def call_data(it: signed.Authorization) -> bytes:
    """The call that carries an authorization out."""
    return signed.TRANSFER_WITH_AUTHORIZATION + encode(
        signed.AUTHORIZATION_TYPES,
        [
            *(it.payer, it.payee, it.amount_units, it.valid_after_s, it.valid_before_s),
            *(bytes.fromhex(it.nonce[2:]), it.v, it.r, it.s),
        ],
    )


_STRANGER: Final = address("stranger")
_ELSEWHERE: Final = address("elsewhere")
