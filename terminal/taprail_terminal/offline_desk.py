"""Where sales without the gateway are allowed and counted: keeps the gateway's policy fresh while
it is there, and says what a card is to sign while it is away.

Answers for finding out in bounded time whether it is away, before a card signs: a request that was
made to be asked about at once is never turned into an offline one. What may be taken is decided in
`offline`, anew at each tap. What was taken is in the outbox; the copy of its count here only spares
a card a signature in vain.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass
from typing import Any, Final

import structlog
from nacl.signing import VerifyKey

from taprail_common.api.gateway import Hello
from taprail_common.clock import Clock, rfc3339
from taprail_common.errors import (
    InputError,
    LinkError,
    OperatorError,
    PartError,
    SignatureError,
)
from taprail_common.ids import payment_id
from taprail_common.offline_wire import POLICY_PATH, SETTLEMENT_S, OfflinePolicy
from taprail_common.wire import SignedProof
from taprail_terminal.charge import Charge
from taprail_terminal.gateway_link import GatewayKeyChangedError, GatewayLink, is_refusal
from taprail_terminal.offline import (
    Exposure,
    Moment,
    OfflineNo,
    believed,
    objection,
    refusal,
)
from taprail_terminal.outbox import Evidence, Outbox
from taprail_terminal.outcome import CardProof, NotOurs
from taprail_terminal.policy_store import PolicyStore
from taprail_terminal.timeline import Timeline

LOOK_LIMIT_S: Final = 1.0
"""So long a card is held while its terminal finds out whether the gateway is there; many round
trips of any network on which a tap is worth waiting for."""

_FRESH_SHARE: Final = 4
"""A policy is fetched anew when a quarter of its time is gone: an hour's outage finds most of it
left, and the disk is written a few times a day."""

_ACTIVE: Final = "active"
_LIMITS: Final = ("version", "per_tap_units", "max_count", "sum_units", "max_age_s")

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class OfflineSeller:
    """Whom a policy has to be for, and by which gateway."""

    terminal_id: str
    merchant_id: str
    currency: str
    gateway_key: VerifyKey


class OfflineDesk:
    """What may be taken while the gateway is away. Nothing, until a policy was heard."""

    def __init__(
        self,
        seller: OfflineSeller,
        store: PolicyStore,
        outbox: Outbox,
        link: GatewayLink,
        timeline: Timeline,
        clock: Clock,
    ) -> None:
        self._seller = seller
        self._store = store
        self._outbox = outbox
        self._link = link
        self._timeline = timeline
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._kept: Evidence | None = None
        self.exposure = Exposure()

    async def open(self) -> None:
        """Read what an earlier run has left."""
        try:
            self._kept = await asyncio.to_thread(self._store.get)
        except PartError as exc:
            _log.error("the offline policy cannot be read", reason=str(exc))
        await self.count()

    async def run(self) -> None:
        """Follow the gateway's policy for ever."""
        while True:
            greeting = self._link.greeting
            if greeting is not None:
                await self._follow(greeting.hello)
            await self._link.reach.next_greeting()

    async def count(self) -> None:
        """Something was stored or decided: count again."""
        self.exposure = await self._outbox.exposure()

    # --- at a tap -------------------------------------------------------------------------------

    def charge(
        self, request_id: str, amount_units: int, *, pin_wanted: bool
    ) -> Charge | NotOurs | None:
        """What a card is to sign now, or why it is not taken; None while the gateway is to be asked
        instead. Called in the reader's thread."""
        kept = self._kept
        if kept is None or self._is_there():
            return None
        policy = self._believed(kept)
        if policy is None:
            return refusal(OfflineNo.POLICY)
        if pin_wanted or self._takes_pin(amount_units):
            return refusal(OfflineNo.PIN)
        no = objection(policy, self.exposure, amount_units, self._moment())
        return refusal(no) if no is not None else self._charge(policy, request_id, amount_units)

    def refuses(self, card: CardProof) -> NotOurs | None:
        """Why this card is not taken, whatever it would pay: it proves nothing to whoever cannot
        ask."""
        is_offline = self._kept is not None and self._link.reach.away
        if not is_offline or isinstance(card.proof, SignedProof):
            return None
        return refusal(OfflineNo.CARD)

    def limit(
        self, policy: OfflinePolicy, amount_units: int
    ) -> Callable[[Exposure], OfflineNo | None]:
        """What the outbox asks inside the transaction that stores a sale."""
        return lambda taken: objection(policy, taken, amount_units, self._moment())

    def _is_there(self) -> bool:
        asked = asyncio.run_coroutine_threadsafe(self._look(), self._loop)
        try:
            return asked.result(2 * LOOK_LIMIT_S)
        except (TimeoutError, CancelledError):
            return True  # this terminal is busy or at its end: that is no leave to sell offline

    async def _look(self) -> bool:
        link = self._link
        if link.reach.is_surely_away:
            return False
        try:
            async with asyncio.timeout(LOOK_LIMIT_S):
                await link.greet()
        except (GatewayKeyChangedError, OperatorError):
            link.doubt()  # it is there; what is wrong with it is told by who keeps it warm
            return True
        except LinkError as exc:
            link.reach.tried(is_there=is_refusal(exc))
        except TimeoutError:
            link.reach.tried(is_there=False)
        return not link.reach.away

    def _charge(self, policy: OfflinePolicy, request_id: str, amount_units: int) -> Charge:
        nonce = payment_id(self._seller.terminal_id, request_id)
        return Charge(
            request_id,
            policy.signing.domain_separator,
            policy.signing.payee,
            amount_units,
            self._clock.now_ms() // 1000 + policy.max_age_s + SETTLEMENT_S,
            bytes.fromhex(nonce.removeprefix("0x")),
            offline=policy,
        )

    def _takes_pin(self, amount_units: int) -> bool:
        """As far as is known: a policy allows no more, and may be older than what is asked now."""
        greeting = self._link.greeting
        above_units = None if greeting is None else greeting.hello.pin_above_units
        return above_units is not None and amount_units > above_units

    # --- for people -----------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """What an operator is told: the policy as far as it is believed, and what is at stake."""
        policy, taken = None if self._kept is None else self._believed(self._kept), self.exposure
        oldest_ms = taken.oldest_at_ms
        limits = None if policy is None else policy.model_dump(include=set(_LIMITS), by_alias=True)
        return {
            "isOn": self._kept is not None,
            "policy": limits,
            "goodUntil": None if policy is None else rfc3339(policy.good_until_ms),
            "blockedBy": self._blocked_by(policy),
            "waiting": taken.count,
            "waitingUnits": taken.units,
            "oldestAt": None if oldest_ms is None else rfc3339(oldest_ms),
            "lost": taken.lost_count,
            "lostUnits": taken.lost_units,
        }

    def _blocked_by(self, policy: OfflinePolicy | None) -> str | None:
        """Why not even the smallest amount would be taken without the gateway."""
        if self._kept is None:
            return None
        if policy is None:
            return OfflineNo.POLICY.value
        no = objection(policy, self.exposure, 1, self._moment())
        return None if no is None else no.value

    # --- the policy -----------------------------------------------------------------------------

    def _believed(self, kept: Evidence) -> OfflinePolicy | None:
        seller = self._seller
        names = (seller.terminal_id, seller.merchant_id, seller.currency)
        return believed(kept, seller.gateway_key, names)

    def _moment(self) -> Moment:
        greeting = self._link.greeting
        if greeting is None:
            return Moment(self._clock.now_ms())
        ago_ms = round((self._clock.monotonic_s() - greeting.received_s) * 1000)
        return Moment(self._clock.now_ms(), greeting.hello.gateway_time + ago_ms)

    async def _follow(self, hello: Hello) -> None:
        revision = hello.offline_revision if hello.status == _ACTIVE else None
        try:
            if revision is None:
                await self._keep(None)
            elif not self._is_fresh(revision, hello.gateway_time):
                await self._keep(await self._fetched())
        except (LinkError, SignatureError, InputError, PartError) as exc:
            _log.warning("the offline policy could not be renewed", reason=str(exc))

    def _is_fresh(self, revision: str, gateway_now_ms: int) -> bool:
        """By the gateway's clock, whatever ours says: else a wrong one would wear out the disk."""
        policy = None if self._kept is None else self._believed(self._kept)
        if policy is None or policy.revision != revision:
            return False
        left_ms = policy.good_until_ms - gateway_now_ms
        return left_ms > policy.max_age_s * 1000 * (_FRESH_SHARE - 1) // _FRESH_SHARE

    async def _fetched(self) -> Evidence:
        kept = await self._link.fetch(POLICY_PATH)
        if self._believed(kept) is None:
            raise LinkError("the offline policy cannot be believed")
        return kept

    async def _keep(self, kept: Evidence | None) -> None:
        if kept == self._kept:
            return
        await asyncio.to_thread(self._store.put, kept)
        self._kept = kept
        policy = None if kept is None else self._believed(kept)
        version = None if policy is None else policy.version
        self._timeline.tell("offline_policy", version=version)
