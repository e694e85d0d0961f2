"""Every field of every message at its bounds, under them and over them; none is left out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final

import pytest
from pydantic import BaseModel

from taprail_common import wire
from taprail_common.errors import InputError
from taprail_common.wire import (
    MAX_BODY_BYTES,
    AppPayment,
    PaymentNotice,
    PlainSunProof,
    SignedEnvelope,
    SignedProof,
    SigningTerms,
    SunProof,
    TerminalPayment,
    UidProof,
    Verdict,
    parse,
)


class Absent(Enum):
    """A member, so that it has the same name in every process: test ids hold it."""

    ABSENT = "absent"


ABSENT: Final = Absent.ABSENT
Values = tuple[Sequence[Any], Sequence[Any]]
"""What is taken, and what is not."""

NOT_TEXT: Final = (None, 5, True, ["a"], {"a": "b"})
NOT_NUMBER: Final = (None, "5", 5.5, [5])
TIME: Final = "2026-01-02T03:04:05.678Z"


def text(most: int) -> Values:
    return ["", "x" * most], ["x" * (most + 1), *NOT_TEXT]


def hex_digits(digits: int) -> Values:
    wrong = ["", "0" * (digits - 1), "0" * (digits + 1), "0" * (digits - 1) + "G", "0" * 9_999]
    return ["0" * digits, ("aF" * digits)[:digits]], [*wrong, "0" * digits + "\n", *NOT_TEXT]


def number(least: int, most: int) -> Values:
    return [least, most], [least - 1, most + 1, 10**30, -(10**30), *NOT_NUMBER]


def one_of(*words: str) -> Values:
    return words, [*(word.upper() for word in words), "", "magic", *NOT_TEXT]


def optional(values: Values) -> Values:
    good, bad = values
    return [*good, ABSENT, None], [value for value in bad if value is not None]


IDENTIFIER: Final[Values] = (
    ["a", "Z" * 64, "a.b-c_d", "0"],
    ["", "a" * 65, "-a", ".a", "_a", "a/b", "a b", "a\n", "a\0", "é", "\uff41", *NOT_TEXT],
)
CURRENCY: Final[Values] = (
    ["EU", "A1B2C3D4E5F6"],
    ["E", "A" * 13, "usd", "US D", "USD\n", "ÜSD", *NOT_TEXT],
)
AMOUNT: Final = number(1, 2**53 - 1)
ADDRESS: Final[Values] = (
    ["0x" + "0" * 40, "0x" + "af" * 20],
    [
        "0x" + "0" * 39,
        "0x" + "0" * 41,
        "00" + "0" * 40,
        "0x" + "A" * 40,
        "0X" + "0" * 40,
        *NOT_TEXT,
    ],
)
MOMENT: Final[Values] = (
    [TIME, "2026-01-02T03:04:05Z", "2026-01-02T03:04:05+02:00", "9999-12-31T23:59:59Z"],
    [
        *("", "2026-01-02", "2026-01-02T03:04:05", "2026-13-02T03:04:05Z", "0000-01-01T00:00:00Z"),
        *("1767323045", 1767323045, "now", TIME + "\n", TIME * 9, None, True),
    ],
)
MAC: Final = hex_digits(16)

PROOFS: Final[dict[type[BaseModel], dict[str, Values]]] = {
    SunProof: {"profile": one_of("sun"), "piccData": hex_digits(32), "mac": MAC},
    PlainSunProof: {
        "profile": one_of("sun_plain"),
        "uid": hex_digits(14),
        "readCounter": hex_digits(6),
        "mac": MAC,
    },
    UidProof: {
        "profile": one_of("uid"),
        "uid": (
            ["0" * 8, "aF" * 7, "0" * 20],
            ["", "0" * 7, "0" * 21, "0" * 7 + "G", "0" * 8 + "\n", *NOT_TEXT],
        ),
    },
    SignedProof: {
        "profile": one_of("signed"),
        "payer": ADDRESS,
        "payee": ADDRESS,
        "validBefore": number(0, 2**40 - 1),
        "signature": (
            ["0" * 128, "af" * 64],
            ["", "0" * 127, "0" * 129, "F" * 128, "0x" + "0" * 126, *NOT_TEXT],
        ),
    },
}
SUN: Final = {"profile": "sun", "piccData": "0" * 32, "mac": "0" * 16}
MESSAGES: Final[dict[type[BaseModel], dict[str, Values]]] = {
    **PROOFS,
    TerminalPayment: {
        "requestId": IDENTIFIER,
        "terminalId": IDENTIFIER,
        "merchantId": IDENTIFIER,
        "amount": AMOUNT,
        "currency": CURRENCY,
        "tappedAt": MOMENT,
        "acceptUntil": MOMENT,
        "proof": ([SUN], [None, {}, [], "sun", {"profile": "app"}, {**SUN, "uid": "00"}]),
        "cardUuid": optional(IDENTIFIER),
        "counter": optional(number(0, 2**32 - 1)),
        "chargeId": optional(IDENTIFIER),
        "offline": ([True, False, ABSENT], [None, 0, 1, "true", []]),
        "offlineVersion": optional(number(1, 2**31 - 1)),
        "pin": optional((["A" * 406 + "=="], ["", "A" * 408, "A" * 405 + "==", *NOT_TEXT])),
    },
    AppPayment: {
        "cardUuid": IDENTIFIER,
        "amount": AMOUNT,
        "merchantId": IDENTIFIER,
        "terminalId": IDENTIFIER,
        "currency": optional(CURRENCY),
        "requestId": optional(IDENTIFIER),
    },
    Verdict: {
        "verdict": one_of("approved", "declined"),
        "requestId": IDENTIFIER,
        "terminalId": IDENTIFIER,
        "amount": AMOUNT,
        "currency": text(80),
        "gatewayTime": MOMENT,
        "transactionId": optional(text(80)),
        "authCode": optional(text(80)),
        "reason": optional(text(300)),
        "reasonCode": optional((["a", "a_1" * 13], ["", "a" * 41, "A", "a b", "a\n", 5])),
        "leftUnits": optional(([0, 2**53 - 1], [-1, 2**53, 5.5, "x", []])),
        "pinTriesLeft": optional(([0, 9], [-1, 10, 5.5, "x", []])),
    },
    PaymentNotice: {
        "terminalId": IDENTIFIER,
        "requestId": IDENTIFIER,
        "transactionId": text(80),
        "status": text(80),
        "at": MOMENT,
        "amount": AMOUNT,
        "currency": text(80),
        "txHash": optional(text(80)),
        "reason": optional(text(300)),
        "cursor": optional(text(400)),
    },
    SignedEnvelope: {"body": text(MAX_BODY_BYTES), "signature": text(128)},
    SigningTerms: {
        "chainId": ([1, 2**64 - 1], [0, -1, 2**64, None, 5.5, "x"]),
        "token": ADDRESS,
        "tokenName": text(1_000),
        "tokenVersion": text(20),
        "payee": ADDRESS,
    },
}

EXAMPLES: Final = {
    model: {name: good[0] for name, (good, _) in fields.items()}
    for model, fields in MESSAGES.items()
}


def cases(which: int) -> list[Any]:
    return [
        pytest.param(model, name, value, id=f"{model.__name__}.{name}={value!r:.30}")
        for model, fields in MESSAGES.items()
        for name, values in fields.items()
        for value in values[which]
    ]


def message(model: type[BaseModel], name: str, value: Any) -> bytes:
    fields = {**EXAMPLES[model], name: value}
    if value is ABSENT:
        del fields[name]
    return json.dumps(fields).encode()


@pytest.mark.parametrize(("model", "name", "value"), cases(0))
def test_what_is_within_its_bounds_is_taken(model: type[BaseModel], name: str, value: Any) -> None:
    parse(model, message(model, name, value))


@pytest.mark.parametrize(("model", "name", "value"), cases(1))
def test_what_is_beyond_is_refused_by_its_name_and_not_shown(
    model: type[BaseModel], name: str, value: Any
) -> None:
    with pytest.raises(InputError) as caught:
        parse(model, message(model, name, value))
    assert caught.value.field.split(".")[0] == name
    assert len(str(caught.value)) < 250


def test_a_field_that_is_missing_is_named() -> None:
    for model, fields in MESSAGES.items():
        for name, (good, _) in fields.items():
            required = model.model_fields[_inside(model, name)].is_required()
            assert required != (ABSENT in good) or name == "profile"
            if required:
                with pytest.raises(InputError) as caught:
                    parse(model, message(model, name, ABSENT))
                assert caught.value.field == name


def test_no_message_and_no_field_is_left_out() -> None:
    public = [each for each in vars(wire).values() if isinstance(each, type)]
    models = {
        each
        for each in public
        if issubclass(each, BaseModel)
        and each.__module__ == wire.__name__
        and not each.__name__.startswith("_")
    }
    assert models == set(MESSAGES)
    for model, fields in MESSAGES.items():
        known = {field.alias or name for name, field in model.model_fields.items()}
        assert known == set(fields), model


def _inside(model: type[BaseModel], outside: str) -> str:
    fields = model.model_fields.items()
    return next(name for name, field in fields if outside in {field.alias, name})
