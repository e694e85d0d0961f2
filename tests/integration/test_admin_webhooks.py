"""`taprail admin webhook` on a real ledger."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import select

from taprail_common.errors import InputError, OperatorError
from taprail_gateway.callbacks import webhook
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.ledger import schema, webhooks
from tests.support.admin_fixtures import Admin

URL = "https://shop.example/hooks"


@pytest.fixture
def enabled(admin: Admin) -> Admin:
    """With webhooks switched on."""
    with admin.config.open("a") as file:
        file.write("[webhooks]\nenabled = true\n")
    admin.settings = GatewaySettings.load(admin.config)
    return admin


def test_a_secret_is_shown_once_and_kept_wrapped(enabled: Admin) -> None:
    made = enabled.json("webhook", "add", "kiosk", URL)
    assert made["secret"].startswith("whsec_")
    stored = enabled.do(partial(webhooks.endpoint, endpoint_id=made["id"]))
    custody = Custody.load(enabled.settings.master_key_file)
    secret = custody.unwrap_secret(webhook.secret_name(made["id"]), stored.wrapped_secret)
    assert webhook.secret_text(secret) == made["secret"]
    listed = enabled("webhook", "list", "--json")
    assert made["id"] in listed
    assert URL in listed
    assert made["secret"] not in listed
    noted = enabled.do(lambda c: c.execute(select(schema.operator_actions)).all())
    assert made["secret"] not in str(noted)


def test_a_rotation_keeps_the_old_secret_for_a_day(enabled: Admin) -> None:
    made = enabled.json("webhook", "add", "kiosk", URL)
    again = enabled.json("webhook", "rotate", made["id"])
    assert again["secret"] != made["secret"]
    stored = enabled.do(partial(webhooks.endpoint, endpoint_id=made["id"]))
    assert stored.wrapped_old_secret is not None


def test_a_removed_one_is_gone(enabled: Admin) -> None:
    made = enabled.json("webhook", "add", "kiosk", URL)
    enabled("webhook", "remove", made["id"])
    assert enabled.json("webhook", "list") == []
    for command in ("remove", "rotate", "replay"):
        with pytest.raises(OperatorError, match="no webhook"):
            enabled("webhook", command, made["id"])


def test_a_replay_says_how_many(enabled: Admin) -> None:
    made = enabled.json("webhook", "add", "kiosk", URL)
    assert enabled.json("webhook", "replay", made["id"]) == {"id": made["id"], "deliveries": 0}


def test_what_cannot_be(enabled: Admin) -> None:
    with pytest.raises(InputError, match="url: is not on the public internet"):
        enabled("webhook", "add", "kiosk", "https://10.0.0.1/")
    with pytest.raises(OperatorError, match="no merchant 'nobody'"):
        enabled("webhook", "add", "nobody", URL)


def test_switched_off_it_says_so(admin: Admin) -> None:
    with pytest.raises(OperatorError, match=r"webhooks\.enabled"):
        admin("webhook", "add", "kiosk", URL)
