"""The composition root: makes the terminal's parts, joins them, and takes them down again.

Answers for the order of start and end only. `run` is given its hardware; no setting of the product
chooses other edges than `hardware_from` does.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Final

import structlog

from taprail_common.clock import Clock, SystemClock
from taprail_common.errors import OperatorError, PartError, TapRailError
from taprail_common.money import parse_amount
from taprail_common.service import SERVICE_MANAGER
from taprail_common.signing import gateway_id
from taprail_terminal import key_rotation, keypad_device, safe_mode
from taprail_terminal.agent import Agent, Terms
from taprail_terminal.charge import ChargeMaker
from taprail_terminal.config import Mode, TerminalConfig
from taprail_terminal.console.assemble import Console
from taprail_terminal.console.commands import COMMAND_NAMES, Commands
from taprail_terminal.console.log_tail import LogTail
from taprail_terminal.control import Answer, ControlServer, Handler, amount_text
from taprail_terminal.feedback.feedback import Feedback
from taprail_terminal.feedback.messages import CATALOGUES, Catalogue
from taprail_terminal.gateway_link import Expected, GatewayLink
from taprail_terminal.hardware import Hardware
from taprail_terminal.identity import Identity
from taprail_terminal.keypad_desk import GatewayPins, KeypadDesk
from taprail_terminal.offline_desk import OfflineDesk, OfflineSeller
from taprail_terminal.only_agent import only_agent
from taprail_terminal.outbox import Outbox
from taprail_terminal.payments import Payments, Seller
from taprail_terminal.policy_store import PolicyStore
from taprail_terminal.push_link import PushLink
from taprail_terminal.readers.supervisor import Reader
from taprail_terminal.sale import Arm, Cancel, View
from taprail_terminal.storage import DeviceStore
from taprail_terminal.tap_log import TapLog
from taprail_terminal.till import Till
from taprail_terminal.timeline import Timeline
from taprail_terminal.tls_pins import Pins
from taprail_terminal.trust import follow

_SWITCH_S: Final = 0.0005
"""So long a thread that computes (a bundle, a picture) keeps the sale waiting; 5 ms else."""


class NewProcessError(TapRailError):
    """This process ends, and another one takes its place at once."""


class RestartWantedError(NewProcessError):
    """What was changed, here or from afar, holds from the next start on."""

    code = "restart"


class ReaderStuckError(NewProcessError):
    """Nothing but a new process can bring the reader back."""

    code = "reader_stuck"
    retryable = True


_log = structlog.get_logger()


def main(
    config: TerminalConfig,
    hardware: Hardware,
    on_ready: Callable[[], None],
    *,
    is_safe: bool = False,
) -> None:
    """Run until SIGTERM or SIGINT. Raises OperatorError with what to do."""
    sys.setswitchinterval(_SWITCH_S)
    asyncio.run(_until_signal(run(config, hardware, on_ready, is_safe=is_safe)))


async def run(
    config: TerminalConfig,
    hardware: Hardware,
    on_ready: Callable[[], None],
    *,
    is_safe: bool = False,
) -> None:
    """Run one terminal until cancelled. Raises OperatorError when it cannot go on.

    `on_ready` is called when tills and technicians are answered and the reader is being opened, or,
    with `is_safe`, is left alone.
    """
    clock = SystemClock()
    identity = Identity.load(config.terminal.id, config.key_file)
    async with AsyncExitStack() as stack:
        stack.enter_context(only_agent(config.terminal.state_dir))
        parts = await _Parts.make(config, hardware, identity, clock, stack)
        await _serve(config, parts, stack, on_ready, is_safe=is_safe)


class _Parts:
    """Everything that a running terminal consists of."""

    feedback: Feedback
    reader: Reader

    def __init__(self, config: TerminalConfig, identity: Identity, clock: Clock) -> None:
        table = config.terminal
        self.identity, self.clock = identity, clock
        self.timeline = Timeline(clock)
        self.outbox = Outbox(config.outbox_file)
        self.store = DeviceStore(config.device_file)
        self.taps = TapLog(self.store, self.timeline, clock)
        self.pins = pins = Pins(table.state_dir)
        self.link = GatewayLink(
            Expected(
                table.gateway_url,
                config.gateway_key,
                table.merchant_id,
                table.currency,
                table.decimals,
                config.trusted.former,
                config.trusted.former_until_ms,
            ),
            identity,
            clock,
            lambda key: follow(table.state_dir, config.given_key, key, clock.now_ms()),
            pins,
        )
        terms = Terms(
            table.currency, table.decimals, config.fixed_units, table.verdict_timeout_ms / 1000
        )
        charges = ChargeMaker(identity.terminal_id, lambda: self.link.greeting, clock)
        self.agent = Agent(terms, charges, self.taps, self.timeline, clock)
        self.offline = OfflineDesk(
            OfflineSeller(table.id, table.merchant_id, table.currency, config.gateway_key),
            PolicyStore(config.offline_file),
            self.outbox,
            self.link,
            self.timeline,
            clock,
        )
        self.agent.sell_offline(self.offline)
        self.payments = Payments(
            Seller(table.merchant_id, table.currency),
            identity,
            outbox=self.outbox,
            link=self.link,
            taps=self.taps,
            timeline=self.timeline,
            clock=clock,
            report=self.agent.report,
            offline=self.offline,
        )
        self.till = Till(
            table.currency,
            is_fixed=config.fixed_units is not None,
            counter=self.agent,
            timeline=self.timeline,
            clock=clock,
            clock_offset_ms=self.link.clock_offset_ms,
        )
        self.agent.watch(self.till.stepped)
        self.push = PushLink(
            table.gateway_url,
            config.gateway_key,
            identity,
            clock,
            on_notice=self.payments.on_notice,
            open_requests=self.outbox.unfinished,
            till=self.till,
            pins=pins,
            on_gone=self.link.doubt,
        )

    @classmethod
    async def make(
        cls,
        config: TerminalConfig,
        hardware: Hardware,
        identity: Identity,
        clock: Clock,
        stack: AsyncExitStack,
    ) -> _Parts:
        """Open what has to be open before the first card; the stack closes it in reverse order."""
        parts = cls(config, identity, clock)
        stack.push_async_callback(parts.taps.close)
        stack.push_async_callback(parts.outbox.close)
        await parts.outbox.open(clock.now_ms())
        await parts.offline.open()
        await parts.link.open()
        stack.push_async_callback(parts.link.close)
        parts.feedback = _feedback(hardware, parts.agent, CATALOGUES[config.display.language])
        stack.push_async_callback(asyncio.to_thread, parts.feedback.close)
        parts.reader = Reader(
            hardware.reader, parts.agent.on_report, parts.agent.charge, hardware.reset
        )
        return parts


def _feedback(hardware: Hardware, agent: Agent, words: Catalogue) -> Feedback:
    loop = asyncio.get_running_loop()

    def on_shown(view: View) -> None:  # in the thread that drove the last part
        loop.call_soon_threadsafe(agent.on_shown, view, time.monotonic())

    return Feedback(hardware.signals(), hardware.display(), words=words, on_shown=on_shown)


async def _serve(
    config: TerminalConfig,
    parts: _Parts,
    stack: AsyncExitStack,
    on_ready: Callable[[], None],
    *,
    is_safe: bool,
) -> None:
    agent, table = parts.agent, config.terminal
    profile = {"terminal": table.id, "merchant": table.merchant_id, "gateway": table.gateway_url}
    try:
        await asyncio.to_thread(parts.store.set_profile, profile)
    except PartError as exc:
        _log.warning("the profile could not be kept", reason=str(exc))  # a sale does not need it
    log_tail = LogTail(config.log.level)
    stack.enter_context(log_tail.attached())
    console = Console(config, parts, log_tail)
    fleet = console.fleet(parts.push)
    control = ControlServer(
        config.control_socket, _handlers(config, parts, console.commands), parts.timeline
    )
    await control.start()
    stack.push_async_callback(control.stop)
    interrupted = await parts.outbox.unseen()
    parts.till.begin(interrupted)
    stack.callback(parts.till.close)
    agent.start(
        reader=parts.reader,
        feedback=parts.feedback,
        payments=parts.payments,
        interrupted=interrupted,
    )
    stack.push_async_callback(agent.stop)
    if is_safe:
        safe_mode.begin(parts.reader, agent)
    else:
        parts.reader.start()
    stack.push_async_callback(parts.reader.stop)
    _log.info("terminal started", terminal=table.id, interrupted=len(interrupted))
    on_ready()
    stack.callback(SERVICE_MANAGER.stopping)
    work = [
        _end_when_stuck(parts, table.verdict_timeout_ms / 1000),
        parts.link.keep_warm(),
        parts.push.run(),
        fleet.run(),
        parts.offline.run(),
        key_rotation.watch(parts.link, parts.identity, config.key_file, parts.clock),
    ]
    work += [*console.work(), _end_when_changed(console)]
    if is_safe:
        work.append(safe_mode.end(parts.reader))
    if SERVICE_MANAGER.watchdog_s is not None:
        work.append(SERVICE_MANAGER.feed(lambda: _is_well(parts)))
    if config.keypad.device is not None:
        work.append(_keypad(config, parts, config.keypad.device))
    await _all_or_first_failure(work)


async def _is_well(parts: _Parts) -> None:
    """The loop turns, and the outbox answers. A disk that fails has answered: a new start would not
    mend it, and what cannot be stored is not sold."""
    with suppress(PartError):
        await parts.outbox.counts()


def _keypad(config: TerminalConfig, parts: _Parts, device: Path) -> Coroutine[Any, Any, None]:
    keypad_device.check()
    parts.agent.ask_pins(GatewayPins(config.gateway_key, lambda: _pin_above_units(parts.link)))
    types_amounts = config.terminal.mode is Mode.KEYPAD
    desk = KeypadDesk(parts.agent, config.terminal.decimals if types_amounts else None)
    return keypad_device.read_keys(device, desk.press)


def _pin_above_units(link: GatewayLink) -> int | None:
    return None if link.greeting is None else link.greeting.hello.pin_above_units


async def _end_when_stuck(parts: _Parts, verdict_s: float) -> None:
    """A driver whose calls never return can be got rid of with the process only. A customer who
    waits is shown an answer first, or *unknown*; what was asked is in the outbox."""
    await parts.reader.stuck.wait()
    await asyncio.sleep(verdict_s)
    raise ReaderStuckError("the reader's driver hangs", fix="the terminal starts itself anew")


async def _end_when_changed(console: Console) -> None:
    await console.restart.wait()
    raise RestartWantedError("what is read at the start was changed")


async def _all_or_first_failure(work: list[Coroutine[Any, Any, None]]) -> None:
    """These run for ever; when one ends, it is by an error that ends the terminal."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _handlers(config: TerminalConfig, parts: _Parts, commands: Commands) -> dict[str, Handler]:
    agent = parts.agent

    async def arm(request: dict[str, Any]) -> Answer:
        if config.fixed_units is not None:
            raise OperatorError("this terminal has a fixed price", code="fixed_price")
        amount_units = parse_amount(amount_text(request), config.terminal.decimals)
        agent.apply(Arm(amount_units))
        parts.timeline.tell("armed", amountUnits=amount_units)
        return {"amountUnits": amount_units, "phase": agent.state.phase.value}

    async def cancel(_request: dict[str, Any]) -> Answer:
        agent.apply(Cancel())
        return {"phase": agent.state.phase.value}

    async def status(_request: dict[str, Any]) -> Answer:
        return await _status(config, parts)

    async def ask_console(request: dict[str, Any]) -> Answer:
        result = await commands.run(request["command"])
        return {"exitCode": result.exit_code, "data": dict(result.data), "text": result.text}

    asked = {name: ask_console for name in COMMAND_NAMES if name != "status"}
    return {"arm": arm, "cancel": cancel, "status": status, **asked}


async def _status(config: TerminalConfig, parts: _Parts) -> Answer:
    state, greeting = parts.agent.state, parts.link.greeting
    counts = await parts.outbox.counts()
    return {
        "terminalId": config.terminal.id,
        "phase": state.phase.value,
        "armed": state.armed,
        "amountUnits": state.view.amount_units,
        "chargeId": parts.till.charge_id,
        "cardPresent": state.card_present,
        "reader": {"ok": state.reader_ok, "name": parts.reader.description},
        "gateway": {
            "id": gateway_id(config.gateway_key),
            "reachable": parts.link.reachable,
            "push": parts.push.connected,
            "clockOffsetMs": None if greeting is None else greeting.clock_offset_ms,
        },
        "outbox": {"unresolved": counts.unresolved, "unsettled": counts.unsettled},
        "offline": parts.offline.status(),
        "fingerprint": parts.identity.fingerprint,
        "pid": os.getpid(),
    }


async def _until_signal(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        _log.info("terminal stopped")
