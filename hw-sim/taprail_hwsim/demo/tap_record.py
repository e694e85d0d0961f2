"""One tap of the story: its stages in milliseconds, as the terminal and the chain told them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from taprail_hwsim.event_log import Event

# In the order in which they happen, from the card's entry into the field. All but `block` are told
# by the terminal.
STAGES: Final = ("read", "request", "verdict", "shown", "sent", "block", "settled")
_STAGE_OF_EVENT: Final = {
    "read": "read",
    "request_sent": "request",
    "verdict": "verdict",
    "sent": "sent",
    "settled": "settled",
}


@dataclass
class TapRecord:
    """A card on the reader; `stages_ms` counts from the moment the reader sensed it."""

    card: str
    amount: str
    outcome: str = ""
    reason: str | None = None
    request_id: str | None = None
    payment_id: str | None = None
    tx_hash: str | None = None
    block_number: int | None = None
    stages_ms: dict[str, int] = field(default_factory=dict)
    _field_at_s: float = 0.0

    @property
    def is_settled(self) -> bool:
        return "settled" in self.stages_ms

    def take(self, event: Event) -> None:
        """Note an event that belongs to this tap."""
        if event.name == "field":
            self._field_at_s = event.at_s
        if event.name == "read":
            self.request_id = event.get("request")
        if event.name == "verdict":
            self.outcome, self.reason = event.get("outcome"), event.get("reason")
            self.payment_id = event.get("transactionId")
        if event.name in {"unknown", "try_again", "card_refused"}:
            self.outcome, self.reason = event.name, event.get("reason")
        if event.name == "settled":
            self.tx_hash = event.get("txHash")
        stage = _STAGE_OF_EVENT.get(event.name)
        if stage is None and event.name == "shown" and event.get("phase") == self.outcome:
            stage = "shown"
        if stage is not None:
            self.reach(stage, event.at_s)

    def reach(self, stage: str, at_s: float) -> None:
        """Note a stage the first time that it is reached."""
        if self._field_at_s:
            self.stages_ms.setdefault(stage, max(0, round((at_s - self._field_at_s) * 1000)))

    def to_json(self) -> dict[str, Any]:
        """The record for machines."""
        return {
            "card": self.card,
            "amount": self.amount,
            "outcome": self.outcome,
            "reason": self.reason,
            "requestId": self.request_id,
            "transactionId": self.payment_id,
            "txHash": self.tx_hash,
            "block": self.block_number,
            "stagesMs": {
                stage: self.stages_ms[stage] for stage in STAGES if stage in self.stages_ms
            },
        }


class TapRecorder:
    """Gives each event of the terminal to the tap that it belongs to."""

    def __init__(self) -> None:
        self.records: list[TapRecord] = []
        self._by_request: dict[str, TapRecord] = {}

    def begin(self, card: str, amount: str) -> TapRecord:
        """A card is about to be put on the reader."""
        self.records.append(TapRecord(card, amount))
        return self.records[-1]

    def take(self, event: Event) -> None:
        """Note an event; to be given to `EventLog.listen`."""
        request_id = event.get("request")
        if event.name == "read" and self.records:
            self._by_request[request_id] = self.records[-1]
        record = self._by_request.get(request_id) if request_id else None
        if record is None and request_id is None and self.records:
            record = self.records[-1]
        if record is not None:
            record.take(event)
