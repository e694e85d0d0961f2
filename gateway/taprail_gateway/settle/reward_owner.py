"""What the owner of a rewards contract does, once: deploys it, and lets the gateway's wallets mint.

Sent from the owner's own account, which is nobody's lane and not in custody: its key is given for
one command and forgotten. A transaction that is not seen in time may be mined yet; that is said,
and nothing is sent twice.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from coincurve import PrivateKey

from taprail_common.errors import OperatorError
from taprail_gateway.custody import address_of
from taprail_gateway.settle import fees, mint_calls, replies
from taprail_gateway.settle.chain import Chain
from taprail_gateway.settle.errors import IN_POOL, ChainError, SendClass, classify
from taprail_gateway.settle.replies import Receipt
from taprail_gateway.settle.reward_check import owner_of
from taprail_gateway.settle.reward_contract import NewPoints, contract_address, creation_code
from taprail_gateway.settle.settings import SettlementSettings
from taprail_gateway.settle.signer import SignedTransaction, sign_transaction

_MINED_WITHIN_S: Final = 180.0
_LOOK_EVERY_S: Final = 0.5

# A block may come in between, in which what the call finds costs more.
_GAS_TO_SPARE: Final = 5
"""One part in so many, on top of the node's estimate."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The owner's account on a chain. Every method may raise ChainError or OperatorError."""

    chain: Chain
    key: PrivateKey
    settings: SettlementSettings

    @property
    def address(self) -> str:
        return address_of(self.key)

    async def deploy(self, points: NewPoints) -> str:
        """Put a new contract on the chain; its address."""
        nonce, _receipt = await self._send(None, creation_code(points))
        return contract_address(self.address, nonce)

    async def grant(self, contract: str, minter: str) -> None:
        """Let a wallet mint; refused when the contract is another's."""
        owner = await owner_of(self.chain, contract)
        if owner != self.address:
            raise OperatorError(
                f"the contract {contract} belongs to {owner}, not to {self.address}",
                fix="give the key of its owner",
            )
        await self._send(contract, mint_calls.set_minter(minter))

    async def _send(self, to: str | None, data: bytes) -> tuple[int, Receipt]:
        """Send one transaction and wait until it is mined; its nonce and its receipt."""
        head = await self.chain.head()
        quote = fees.quote(
            head.base_fee_wei, self.settings.priority_fee_wei, self.settings.max_fee_cap_wei
        )
        nonce, gas = await self._nonce(), await self._gas(to, data)
        signed = sign_transaction(
            self.key,
            chain_id=self.chain.token.chain_id,
            nonce=nonce,
            fees=quote,
            gas=gas,
            to=to or "",
            data=data,
        )
        await self._offer(signed)
        receipt = await self._mined(signed.tx_hash)
        if not receipt.succeeded:
            raise OperatorError(
                f"transaction {signed.tx_hash} was mined and reverted", fix="see why in an explorer"
            )
        return nonce, receipt

    async def _nonce(self) -> int:
        asked = [("eth_getTransactionCount", [self.address, "pending"])]
        (nonce,) = await self.chain.read(asked, replies.quantity)
        return nonce

    async def _gas(self, to: str | None, data: bytes) -> int:
        call: dict[str, Any] = {"from": self.address, "data": "0x" + data.hex()}
        if to is not None:
            call["to"] = to
        try:
            (gas,) = await self.chain.read([("eth_estimateGas", [call])], replies.quantity)
        except ChainError as exc:
            if classify(exc.reply) is SendClass.FUNDS:
                raise self._no_funds() from exc
            raise
        return gas + gas // _GAS_TO_SPARE

    async def _offer(self, signed: SignedTransaction) -> None:
        (outcome,) = await self.chain.send([signed])
        if outcome.meaning is SendClass.FUNDS:
            raise self._no_funds()
        # Nobody knows what an ambiguous answer means: the receipt will tell.
        if outcome.meaning not in {*IN_POOL, SendClass.AMBIGUOUS}:
            raise OperatorError(f"the node refused the transaction: {outcome.text}")

    async def _mined(self, tx_hash: str) -> Receipt:
        try:
            async with asyncio.timeout(_MINED_WITHIN_S):
                while True:
                    found = await self.chain.receipts([tx_hash])
                    if tx_hash in found:
                        return found[tx_hash]
                    await asyncio.sleep(_LOOK_EVERY_S)
        except TimeoutError:
            raise OperatorError(
                f"transaction {tx_hash} is not mined after {_MINED_WITHIN_S:.0f} s, and may be yet",
                fix="look for it in an explorer before you do this again",
            ) from None

    def _no_funds(self) -> OperatorError:
        return OperatorError(
            f"{self.address} has too little of the chain's coin for gas", fix="send it some"
        )
