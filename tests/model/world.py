"""What an EVM chain knows after a block, and what a call does to it: token, Multicall3, coins.

Answers for the rules of EIP-3009 and of Multicall3's `aggregate3` as far as settlement can notice
them. Blocks, pools and nodes are elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from eth_abi.abi import decode, encode
from eth_utils.crypto import keccak

from tests.model import signed

CHAIN_ID: Final = 31337
TOKEN: Final = "0x" + "70" * 20
MULTICALL: Final = "0xca11bde05977b3631167028862be2a173976ca11"
TOKEN_NAME: Final = "Model Dollar"
TOKEN_VERSION: Final = "1"

TRANSFER: Final = signed.topic("Transfer(address,address,uint256)")
USED: Final = signed.topic("AuthorizationUsed(address,bytes32)")
CANCELED: Final = signed.topic("AuthorizationCanceled(address,bytes32)")

BALANCE_OF: Final = signed.selector("balanceOf(address)")
AUTHORIZATION_STATE: Final = signed.selector("authorizationState(address,bytes32)")
PLAIN_TRANSFER: Final = signed.selector("transfer(address,uint256)")
CANCEL: Final = signed.selector("cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)")

# Orders of magnitude from measurements of the published token: what matters is only that a batch
# costs less than its calls alone, and that limits taken from too low a figure run out.
TRANSFER_GAS: Final = 44_000
UNCHANGED_GAS: Final = 2 * 2_800  # EIP-2200: less for two balances that stay what they are
NEW_PAYEE_GAS: Final = 17_100
PLAIN_GAS: Final = 21_000  # EIP-2028 and the yellow paper: a transaction without data

_DOMAIN: Final = keccak(
    text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"
)
DOMAIN_SEPARATOR: Final = keccak(
    encode(
        ["bytes32", "bytes32", "bytes32", "uint256", "address"],
        [_DOMAIN, keccak(text=TOKEN_NAME), keccak(text=TOKEN_VERSION), CHAIN_ID, TOKEN],
    )
)
_ERROR: Final = signed.selector("Error(string)")
# An EIP-7702 delegation: 0xef0100 and the address of the code.
DELEGATION: Final = bytes.fromhex("ef0100") + b"\x77" * 20


class RevertedError(Exception):
    """A call reverted, with the token's own words."""

    @property
    def data(self) -> bytes:
        """What it returns: Solidity's `Error(string)`."""
        return _ERROR + encode(["string"], [str(self)])


@dataclass(frozen=True, slots=True)
class Event:
    """A log of the token before it has its place in a block."""

    topics: tuple[str, ...]
    data: str


@dataclass
class World:
    """The state after a block."""

    coins_wei: dict[str, int] = field(default_factory=dict)
    nonces: dict[str, int] = field(default_factory=dict)
    tokens: dict[str, int] = field(default_factory=dict)
    spent: set[tuple[str, str]] = field(default_factory=set)
    delegated: set[str] = field(default_factory=set)
    blocked: set[str] = field(default_factory=set)
    """Accounts that the token's issuer has frozen."""
    is_paused: bool = False
    """The issuer has stopped the whole token."""

    def copy(self) -> World:
        """The same, to be changed."""
        return World(
            dict(self.coins_wei),
            dict(self.nonces),
            dict(self.tokens),
            set(self.spent),
            set(self.delegated),
            set(self.blocked),
            self.is_paused,
        )

    def code(self, address: str) -> bytes:
        """The code at an address."""
        if address in {TOKEN, MULTICALL}:
            return b"\xfe"
        return DELEGATION if address in self.delegated else b""


@dataclass
class Call:
    """One call in one block, with what it does: events, and the gas it took."""

    world: World
    time_s: int
    sender: str
    events: list[Event] = field(default_factory=list)
    gas_used: int = 0

    def run(self, to: str, data: bytes) -> bytes:
        """What it returns; RevertedError leaves the world as it was."""
        if to == MULTICALL and data[:4] == signed.AGGREGATE3:
            return self._aggregate(data)
        if to == TOKEN:
            return self._token(data)
        return b""

    def _aggregate(self, data: bytes) -> bytes:
        before, events = self.world.copy(), len(self.events)
        results = []
        for to, may_fail, inner in signed.calls(data):
            caller, self.sender = self.sender, MULTICALL
            try:
                results.append((True, self.run(to, inner)))
            except RevertedError as exc:
                if not may_fail:
                    self.world.__dict__.update(before.__dict__)
                    del self.events[events:]
                    raise RevertedError("Multicall3: call failed") from exc
                results.append((False, exc.data))
            finally:
                self.sender = caller
        return encode(["(bool,bytes)[]"], [results])

    def _token(self, data: bytes) -> bytes:
        method, arguments = data[:4], data[4:]
        if method == BALANCE_OF:
            (account,) = decode(["address"], arguments)
            return _word(self.world.tokens.get(account.lower(), 0))
        if method == AUTHORIZATION_STATE:
            payer, nonce = decode(["address", "bytes32"], arguments)
            return _word(int((payer.lower(), "0x" + nonce.hex()) in self.world.spent))
        if self.world.is_paused:
            raise RevertedError("Pausable: paused")
        if method == PLAIN_TRANSFER:
            payee, amount = decode(["address", "uint256"], arguments)
            self._move(self.sender, payee.lower(), amount)
            return _word(1)
        if method == CANCEL:
            return self._cancel(arguments)
        authorization = signed.authorization(data)
        if authorization is None:
            raise RevertedError("no such function")
        self._carry_out(authorization)
        return b""

    def _cancel(self, arguments: bytes) -> bytes:
        """The model lets only the holder call it, and checks no signature."""
        payer, nonce = decode(["address", "bytes32"], arguments[:64])
        key = (payer.lower(), "0x" + nonce.hex())
        if key in self.world.spent:
            raise RevertedError("authorization is used or canceled")
        self.world.spent.add(key)
        self.events.append(Event((CANCELED, _topic(key[0]), key[1]), "0x"))
        return b""

    def _carry_out(self, it: signed.Authorization) -> None:
        self.gas_used += TRANSFER_GAS if it.amount_units else TRANSFER_GAS - UNCHANGED_GAS
        if {it.payer, it.payee} & self.world.blocked:
            raise RevertedError("Blacklistable: account is blacklisted")
        if self.time_s <= it.valid_after_s:
            raise RevertedError("authorization is not yet valid")
        if self.time_s >= it.valid_before_s:
            raise RevertedError("authorization is expired")
        if (it.payer, it.nonce) in self.world.spent:
            raise RevertedError("authorization is used or canceled")
        if it.payer in self.world.delegated or not signed.is_signed_by_payer(it, DOMAIN_SEPARATOR):
            raise RevertedError("invalid signature")
        if self.world.tokens.get(it.payer, 0) < it.amount_units:
            raise RevertedError("transfer amount exceeds balance")
        self.world.spent.add((it.payer, it.nonce))
        self.events.append(Event((USED, _topic(it.payer), it.nonce), "0x"))
        self._move(it.payer, it.payee, it.amount_units)

    def _move(self, payer: str, payee: str, amount_units: int) -> None:
        tokens = self.world.tokens
        if tokens.get(payer, 0) < amount_units:
            raise RevertedError("transfer amount exceeds balance")
        if amount_units and not tokens.get(payee, 0):
            self.gas_used += NEW_PAYEE_GAS
        tokens[payer] = tokens.get(payer, 0) - amount_units
        tokens[payee] = tokens.get(payee, 0) + amount_units
        data = "0x" + _word(amount_units).hex()
        self.events.append(Event((TRANSFER, _topic(payer), _topic(payee)), data))


def intrinsic_gas(data: bytes) -> int:
    """What a transaction costs before it does anything (EIP-2028: 4 and 16 a byte)."""
    zeros = data.count(0)
    return PLAIN_GAS + 4 * zeros + 16 * (len(data) - zeros)


def transfers(events: Sequence[Event]) -> dict[str, tuple[str, str, int]]:
    """The transfers that authorizations made, by their nonce: payer, payee, units."""
    found = {}
    for used, moved in pairwise(events):
        if used.topics[0] == USED and moved.topics[0] == TRANSFER:
            payer, payee = ("0x" + each[-40:] for each in moved.topics[1:])
            found[used.topics[2]] = (payer, payee, int(moved.data, 16))
    return found


def _word(number: int) -> bytes:
    return number.to_bytes(32, "big")


def _topic(address: str) -> str:
    return "0x" + address[2:].rjust(64, "0")
