"""Faults of what a node answers: late heads, receipts that come and go, and lies."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from taprail_hwsim.rpc_proxy.exchange import Call, Exchange, Fault

RECEIPT: Final = ("eth_getTransactionReceipt",)
_TAGS: Final = ("latest", "pending")
_REMEMBERED: Final = 10_000
"""Transactions that a fault keeps in mind: more than are ever under way at once."""


@dataclass
class LaggingHead(Fault):
    """`latest` and `pending` are those of `blocks` ago: of a replica that is behind."""

    blocks: int = 2
    is_per_call = True

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        self._head = max(0, int(await exchange.ask("eth_blockNumber") or "0x0", 16) - self.blocks)
        for call in calls:
            if call.method == "eth_blockNumber":
                call.give(hex(self._head))
            elif call.method == "eth_getBlockByNumber" and self._is_ahead(call.params[:1]):
                call.give(None)
            else:
                call.ask_with([self._seen(item) for item in call.params])

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            if isinstance(call.result, list):
                call.give([item for item in call.result if not self._is_new(item)])
            elif call.method in RECEIPT and self._is_new(call.result):
                call.give(None)

    def _seen(self, item: Any) -> Any:
        if isinstance(item, dict):
            return {key: self._seen(value) for key, value in item.items()}
        return hex(self._head) if item in _TAGS else item

    def _is_ahead(self, numbers: Sequence[Any]) -> bool:
        return any(str(item).startswith("0x") and int(item, 16) > self._head for item in numbers)

    def _is_new(self, item: Any) -> bool:
        """Whether a log or a receipt is of a block that this replica has not seen."""
        return isinstance(item, dict) and self._is_ahead([item.get("blockNumber")])


class _ReceiptFault(Fault):
    """Meets receipts that are there; a transaction that is not mined yet has none."""

    methods = RECEIPT
    is_per_call = True
    is_of_answer = True

    def wants(self, call: Call) -> bool:
        return isinstance(call.result, dict)


@dataclass
class NullReceipt(_ReceiptFault):
    """A mined transaction's receipt is null for the first `polls` times that it is asked for."""

    polls: int = 2
    _left: OrderedDict[str, int] = field(default_factory=OrderedDict, init=False, repr=False)

    def wants(self, call: Call) -> bool:
        return super().wants(call) and self._left.get(_subject(call), 1) > 0

    def goes_on(self, call: Call) -> bool:
        return _subject(call) in self._left

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            _remember(self._left, _subject(call), self._left.get(_subject(call), self.polls) - 1)
            call.give(None)


@dataclass
class ReceiptThenNull(NullReceipt):
    """A receipt is given once and is then null for `polls` times, as after a short reorg."""

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        again = [call for call in calls if self.goes_on(call)]
        for call in calls:
            if call not in again:
                _remember(self._left, _subject(call), self.polls)
        await super().after(exchange, again)


@dataclass
class FlippedStatus(_ReceiptFault):
    """A receipt says the contrary of what became of its transaction."""

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            status = "0x0" if call.result.get("status") == "0x1" else "0x1"
            call.give({**call.result, "status": status})


@dataclass
class WrongBlockHash(_ReceiptFault):
    """A receipt, and each log in it, names a block that does not exist."""

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            wrong = {"blockHash": f"0x{exchange.random.getrandbits(256):064x}"}
            logs = [{**log, **wrong} for log in call.result.get("logs", [])]
            call.give({**call.result, **wrong, "logs": logs})


@dataclass
class ForeignReceipt(_ReceiptFault):
    """The receipt of another transaction is given: of the last one seen, else of one made up."""

    _last: dict[str, Any] | None = field(default=None, init=False, repr=False)

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            true, other = call.result, self._last
            self._last = true
            if other is None or other["transactionHash"] == true["transactionHash"]:
                made_up = f"0x{exchange.random.getrandbits(256):064x}"
                other = {**true, "transactionHash": made_up, "logs": []}
            call.give(other)


@dataclass
class MissingLogs(Fault):
    """`eth_getLogs` finds nothing, as of a node that has not indexed its blocks yet."""

    methods = ("eth_getLogs",)
    is_per_call = True
    is_of_answer = True

    def wants(self, call: Call) -> bool:
        return isinstance(call.result, list) and bool(call.result)

    async def after(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            call.give([])


@dataclass
class InternalError(Fault):
    """A call is refused with -32603 `internal error`; the node does not hear of it."""

    is_per_call = True

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            call.refuse(-32603, "internal error")


@dataclass
class WrongChainId(Fault):
    """The node says that it is on chain `id`."""

    id: int = 1
    methods = ("eth_chainId", "net_version")
    is_per_call = True

    async def before(self, exchange: Exchange, calls: Sequence[Call]) -> None:
        for call in calls:
            call.give(hex(self.id) if call.method == "eth_chainId" else str(self.id))


def _subject(call: Call) -> str:
    return str(call.params[:1])


def _remember(memory: OrderedDict[str, int], subject: str, value: int) -> None:
    memory[subject] = value
    memory.move_to_end(subject)
    while len(memory) > _REMEMBERED:
        memory.popitem(last=False)
