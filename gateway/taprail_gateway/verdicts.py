"""The words of a verdict: the JSON body of an acceptance and of a decline, as the contract has it.

Pure: what was decided goes in, exact bytes come out, to be signed and stored as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic_core import to_json

from taprail_common.wire import Outcome
from taprail_gateway.authorize import Decline, PaymentRequest
from taprail_gateway.estimate import Estimate


@dataclass(frozen=True, slots=True)
class Moment:
    """When a verdict is given: the gateway's time as text, and how long the request took so far."""

    gateway_time: str
    processing_ms: int


def approved(
    request: PaymentRequest, currency: str, auth_code: str, estimate: Estimate, moment: Moment
) -> bytes:
    """The body of an acceptance."""
    payment = request.payment_id
    return to_json(
        {
            "success": True,
            "verdict": Outcome.APPROVED,
            "transactionId": payment,
            "status": "pending",
            "message": "Payment initiated successfully",
            "requestId": request.request_id,
            "terminalId": request.terminal_id,
            "amount": request.amount_units,
            "currency": currency,
            "authCode": auth_code,
            "queueJobId": f"job_{payment[2:18]}",
            "estimatedProcessingTime": estimate.text,
            "estimateBasis": estimate.basis,
            "statusUrl": f"/api/payment/status/{payment}",
            "websocketChannel": f"transaction:{payment}",
            "processingTime": moment.processing_ms,
            "gatewayTime": moment.gateway_time,
        }
    )


def declined(request: PaymentRequest, currency: str, why: Decline, moment: Moment) -> bytes:
    """The body of a final "not charged"."""
    body: dict[str, object] = {
        "success": False,
        "verdict": Outcome.DECLINED,
        "error": "Transaction not authorized",
        "reason": why.text,
        "reasonCode": why.reason,
        "requestId": request.request_id,
        "terminalId": request.terminal_id,
        "amount": request.amount_units,
        "currency": currency,
        "processingTime": moment.processing_ms,
        "gatewayTime": moment.gateway_time,
    }
    if why.left_units is not None:
        body["leftUnits"] = why.left_units
    if why.pin_tries_left is not None:
        body["pinTriesLeft"] = why.pin_tries_left
    if why.rules:
        body["rules"] = [{"rule": each.rule, "text": each.text} for each in why.rules]
    return to_json(body)
