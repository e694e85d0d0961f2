"""The configuration files of a stack's programs, as an installer would write them.

Answers for their words only; when they are written, and where, is the stack's matter.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from taprail_hwsim import world as worlds

if TYPE_CHECKING:
    from taprail_hwsim.stack import Stack

# BCM numbers; the same as the terminal's own defaults, written out because the panel is wired so.
PINS: Final = {
    "light1": 5,
    "light2": 6,
    "light3": 13,
    "light4": 19,
    "red": 26,
    "amber": 16,
    "buzzer": 12,
}


def gateway_toml(stack: Stack, port: int) -> str:
    """A gateway's file."""
    options, chain = stack.options, stack.chain
    settlement = "".join(f"{k} = {v}\n" for k, v in options.settlement.items())
    url, pins = options.database_url, options.pin_above_units
    database = f"database_url = {json.dumps(url)}" if url is not None else ""
    above = f"pin_above_units = {pins}" if pins is not None else ""
    return f"""\
[gateway]
port = {port}
state_dir = "gateway"
{database}
{above}
block_interval_ms = {round(options.block_time_s * 1000)}

[chain]
rpc_urls = ["{stack.proxy.url if stack.proxy else chain.rpc_url}"]
chain_id = {chain.chain_id}
token = "{chain.token_address}"
multicall = "{chain.multicall_address}"

[settlement]
{settlement}
[webhooks]
enabled = {json.dumps(options.webhooks)}
allowed_hosts = ["127.0.0.1", "localhost"]

[limits]
terminal_payments = ""

[log]
json_lines = true
"""


def terminal_toml(stack: Stack, console: Path) -> str:
    """The terminal's file."""
    options, chain = stack.options, stack.chain
    asks = options.pin_above_units is not None
    keypad = f'[keypad]\ndevice = "{stack.keypad.path}"' if asks else ""
    fixed = options.fixed_amount
    price = f'mode = "fixed"\nfixed_amount = "{fixed}"' if fixed else 'mode = "till"'
    return f"""\
[terminal]
id = "{worlds.TERMINAL_ID}"
merchant_id = "{worlds.MERCHANT_ID}"
currency = "{chain.token_symbol()}"
decimals = {chain.token_decimals()}
state_dir = "terminal"
gateway_url = "{stack.wire.url if stack.wire else stack.gateway_url}"
gateway_public_key = "{stack.world.gateway_public_key}"
verdict_timeout_ms = {options.verdict_timeout_ms}
{price}

[reader]
driver = "{stack.pad.driver}"
port = "{stack.pad.port}"

[lights]
pins = [{", ".join(str(pin) for name, pin in PINS.items() if name != "buzzer")}]
buzzer_pin = {PINS["buzzer"]}

[console]
port = "{console}"
{keypad}
"""
