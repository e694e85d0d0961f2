"""What operators set over the file: in force at once, checked as a whole, never fatal."""

from __future__ import annotations

import pytest

from taprail_common.errors import InputError
from taprail_gateway.settle.live import QUEUE_MODE, LiveSettings, checked, names
from taprail_gateway.settle.settings import SettlementSettings

BASE = SettlementSettings()


def test_what_is_set_is_in_force_and_taken_back() -> None:
    live = LiveSettings(BASE)
    live.adopt({"payment_batch_size": 7, QUEUE_MODE: "paused"})
    assert live.now.payment_batch_size == 7
    assert live.now.payments_per_transaction == BASE.payments_per_transaction
    assert str(live.queue_mode) == "paused"
    live.adopt({})
    assert live.now == BASE
    assert str(live.queue_mode) == "running"


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("payment_batch_size", 0, "greater than or equal to 1"),
        ("payment_batch_size", 501, "less than or equal to 500"),
        ("confirmations", "many", "valid integer"),
        ("max_fee_cap_gwei", 0, "greater than 0"),
        ("no_such", 1, "no such setting; there are payment_batch_size"),
    ],
)
def test_what_does_not_hold_is_refused_with_its_range(name: str, value: object, said: str) -> None:
    with pytest.raises(InputError, match=said) as error:
        checked(BASE, {name: value})
    assert error.value.field == name


def test_rules_over_several_settings_hold_for_all_together() -> None:
    with pytest.raises(InputError, match="priority_fee_gwei must be less"):
        checked(BASE, {"max_fee_cap_gwei": 1.0})
    both = checked(BASE, {"max_fee_cap_gwei": 1.0, "priority_fee_gwei": 0.5})
    assert both.max_fee_cap_wei == 10**9


def test_rows_of_another_version_are_passed_by() -> None:
    live = LiveSettings(BASE)
    live.adopt({"payment_batch_size": 7})
    live.adopt({"payment_batch_size": -1, "from_the_future": 1, QUEUE_MODE: "asleep"})
    assert live.now.payment_batch_size == 7
    assert str(live.queue_mode) == "running"


def test_every_setting_of_the_public_contract_can_be_changed() -> None:
    assert {
        "payment_batch_size",
        "payment_batch_interval_ms",
        "payments_per_transaction",
        "confirmation_interval_ms",
        "confirmation_timeout_s",
        "confirmations",
        "max_fee_cap_gwei",
    } <= set(names())
