"""Whether a card may be taken while the gateway is away: a pure decision over its signed policy and
what was taken before.

Nothing here is remembered: the policy comes with its signature and is believed anew each time, and
what was taken is counted in the outbox, in the commit that takes the next one. So neither a power
cut nor a changed file loosens a limit. The clock is trusted only where everything that is known of
the time agrees with it: a tap of the wrong year could never be charged.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nacl.signing import VerifyKey

from taprail_common.errors import InputError, PartError, SignatureError
from taprail_common.offline_wire import OfflinePolicy
from taprail_common.signing import Domain, verify
from taprail_common.wire import CLOCK_SKEW_MS, parse
from taprail_terminal.outbox_rows import Evidence
from taprail_terminal.outcome import NotOurs

LOSS: Final = "offline_loss"
"""The reason code under which a sale comes back that was taken offline and declined later."""

_A_YEAR_MS: Final = 366 * 86_400_000
"""No terminal is away for so long: a clock that says so is wrong."""


class OfflineNo(StrEnum):
    """Why a card cannot be taken now; the values are reason codes."""

    POLICY = "offline_policy"
    CLOCK = "offline_clock"
    EXPIRED = "offline_expired"
    AGE = "offline_age"
    COUNT = "offline_count"
    LIMIT = "offline_limit"
    SUM = "offline_sum"
    FROZEN = "offline_frozen"
    PIN = "offline_pin"
    CARD = "offline_card"


WORDS: Final = {
    OfflineNo.POLICY: "the policy for offline sales cannot be believed",
    OfflineNo.CLOCK: "the clock of this terminal is wrong",
    OfflineNo.EXPIRED: "the gateway has been away for too long",
    OfflineNo.AGE: "an offline sale waits for the gateway for too long",
    OfflineNo.COUNT: "as many offline sales wait as may",
    OfflineNo.LIMIT: "the amount is over what one sale may take offline",
    OfflineNo.SUM: "with this amount more would wait than may",
    OfflineNo.FROZEN: "the card is frozen",
    OfflineNo.PIN: "a PIN is wanted, and only the gateway can check it",
    OfflineNo.CARD: "only a card that signs can be taken offline",
}


def refusal(no: OfflineNo) -> NotOurs:
    """The same as it is told of a card."""
    return NotOurs(no.value, WORDS[no])


class OfflineRefusedError(PartError):
    """The limit was reached by another sale meanwhile: nothing was stored."""

    def __init__(self, no: OfflineNo) -> None:
        super().__init__("offline", WORDS[no], fix="connect to the gateway")
        self.no = no


@dataclass(frozen=True, slots=True)
class Exposure:
    """Offline sales that the gateway has not seen, by the clock of when they were taken; and those
    that it has declined."""

    count: int = 0
    units: int = 0
    oldest_at_ms: int | None = None
    newest_at_ms: int | None = None
    lost_count: int = 0
    lost_units: int = 0


@dataclass(frozen=True, slots=True)
class Moment:
    """What is known of the time: this machine's clock, and the gateway's by its last greeting and a
    clock that nobody sets; None before the first one of this run."""

    now_ms: int
    gateway_ms: int | None = None


def believed(kept: Evidence, key: VerifyKey, seller: tuple[str, str, str]) -> OfflinePolicy | None:
    """The policy, when the gateway has signed it for this terminal, merchant and currency."""
    try:
        verify(key, Domain.OFFLINE_POLICY, kept.body, kept.signature)
        policy = parse(OfflinePolicy, kept.body)
    except (SignatureError, InputError):
        return None
    said = (policy.terminal_id, policy.merchant_id, policy.currency)
    return policy if said == seller else None


def objection(
    policy: OfflinePolicy, exposure: Exposure, amount_units: int, moment: Moment
) -> OfflineNo | None:
    """Why nothing of this amount may be taken now; None if it may."""
    now_ms, oldest_ms = moment.now_ms, exposure.oldest_at_ms
    if _clock_is_wrong(policy, exposure, moment):
        return OfflineNo.CLOCK
    if now_ms >= policy.good_until_ms:
        return OfflineNo.EXPIRED
    if oldest_ms is not None and now_ms - oldest_ms >= policy.max_age_s * 1000:
        return OfflineNo.AGE
    if exposure.count >= policy.max_count:
        return OfflineNo.COUNT
    if amount_units > policy.per_tap_units:
        return OfflineNo.LIMIT
    return OfflineNo.SUM if exposure.units + amount_units > policy.sum_units else None


def _clock_is_wrong(policy: OfflinePolicy, exposure: Exposure, moment: Moment) -> bool:
    latest_ms = max(policy.issued_at_ms, exposure.newest_at_ms or 0)
    if not latest_ms - CLOCK_SKEW_MS <= moment.now_ms <= policy.issued_at_ms + _A_YEAR_MS:
        return True
    gateway_ms = moment.gateway_ms
    return gateway_ms is not None and abs(gateway_ms - moment.now_ms) > CLOCK_SKEW_MS
