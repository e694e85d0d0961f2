"""Messages: the golden request, and every malformed one named by its field."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from taprail_common.errors import InputError
from taprail_common.wire import Outcome, SunProof, TerminalPayment, Verdict, parse

GOLDEN = (
    b'{"requestId":"req_1","terminalId":"t-1","merchantId":"m-1","amount":12500000,'
    b'"currency":"DUSD","tappedAt":"2026-01-02T03:04:05.678Z",'
    b'"acceptUntil":"2026-01-02T03:04:20.678Z","proof":{"profile":"sun",'
    b'"piccData":"EF963FF7828658A599F3041510671E88","mac":"94EED9EE65337086"},"offline":false}'
)


def changed(**fields: Any) -> bytes:
    message = json.loads(GOLDEN)
    for name, value in fields.items():
        if value is None:
            del message[name]
        else:
            message[name] = value
    return json.dumps(message).encode()


def test_golden_request_is_read_and_written_byte_for_byte() -> None:
    payment = parse(TerminalPayment, GOLDEN)
    assert payment.accept_until_ms - payment.tapped_at_ms == 15_000
    assert isinstance(payment.proof, SunProof)
    assert payment.to_json() == GOLDEN


def test_messages_are_frozen() -> None:
    with pytest.raises(ValidationError):
        parse(TerminalPayment, GOLDEN).amount = 1  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("amount", 0),
        ("amount", -5),
        ("amount", 2**53),
        ("amount", 12.5),
        ("amount", "12500000"),
        ("amount", True),
        ("requestId", ""),
        ("requestId", "a" * 65),
        ("requestId", "../../x"),
        ("terminalId", "t\u0000"),
        ("terminalId", "\uff54-1"),
        ("merchantId", None),
        ("currency", "dusd"),
        ("tappedAt", "yesterday"),
        ("tappedAt", "2026-01-02T03:04:05"),
        ("proof", {"profile": "magic"}),
        ("proof", None),
    ],
)
def test_the_wrong_field_is_named(field: str, value: Any) -> None:
    with pytest.raises(InputError) as caught:
        parse(TerminalPayment, changed(**{field: value}))
    assert caught.value.field.split(".")[0] == field


def test_a_proof_that_is_too_long_is_named() -> None:
    proof = {"profile": "sun", "piccData": "00" * 17, "mac": "94EED9EE65337086"}
    with pytest.raises(InputError) as caught:
        parse(TerminalPayment, changed(proof=proof))
    assert caught.value.field == "proof.sun.piccData"
    assert "0000" not in str(caught.value)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'"x"'])
def test_what_is_no_object_is_the_bodys_fault(body: bytes) -> None:
    with pytest.raises(InputError) as caught:
        parse(TerminalPayment, body)
    assert caught.value.field == "body"


def test_a_request_with_an_unknown_field_is_refused() -> None:
    with pytest.raises(InputError, match="tip: is not a field of this message"):
        parse(TerminalPayment, changed(tip=5))


def test_an_answer_may_carry_more_than_is_known() -> None:
    body = {
        "verdict": "declined",
        "requestId": "req_1",
        "terminalId": "t-1",
        "amount": 5,
        "currency": "DUSD",
        "gatewayTime": "2026-01-02T03:04:05.678Z",
        "reasonCode": "daily_limit",
        "leftUnits": 3_200_000,
        "newInNextVersion": {"deep": []},
    }
    verdict = parse(Verdict, json.dumps(body).encode())
    assert verdict.verdict is Outcome.DECLINED
    assert verdict.left_units == 3_200_000
