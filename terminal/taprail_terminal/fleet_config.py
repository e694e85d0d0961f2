"""Takes the configurations that the gateway pushes, and says what came of each.

A pushed configuration goes the way of a technician's: checked as a whole, put in place on trial,
kept once the agent has come up with it. One that was pushed must also reach the gateway, or it is
undone: nobody may stand before this terminal who could put it right. Each step is one whole file;
cut off anywhere, the terminal starts, and deals with the version again or tells what became of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from taprail_common.clock import Clock
from taprail_common.crash import crash
from taprail_common.errors import InputError, LinkError, OperatorError, TapRailError
from taprail_common.signing import Domain, public_key_text, verify
from taprail_common.terminal_settings import (
    CHANGEABLE,
    CONFIG_PATH,
    MAX_VALUE,
    ConfigReport,
    PushedConfig,
)
from taprail_common.wire import MAX_SENTENCE, from_ms, parse
from taprail_terminal import fleet_state
from taprail_terminal.config import TerminalConfig
from taprail_terminal.console import trial
from taprail_terminal.console.answers import plain
from taprail_terminal.console.config_edit import with_value, without_value
from taprail_terminal.console.settings import flat
from taprail_terminal.fleet_state import FleetState, Outcome
from taprail_terminal.gateway_link import GatewayLink

REACH_LIMIT_S: Final = 60.0
"""So long a pushed configuration may take to reach the gateway: its name may have to be looked up,
and a gateway that restarts at the same moment is back by then."""

NOT_UP: Final = "the agent did not come up with it; the configuration before it is back"
OUT_OF_REACH: Final = "the gateway was out of reach with it; the configuration before it is back"

_log = structlog.get_logger()


class PushedSettings:
    """One terminal's pushed configuration. `restart` is called when the agent is to start anew."""

    def __init__(
        self,
        config: TerminalConfig,
        link: GatewayLink,
        clock: Clock,
        *,
        is_quiet: Callable[[], bool],
        restart: Callable[[], None],
    ) -> None:
        self._config = config
        self._folder = config.terminal.state_dir
        self._link = link
        self._clock = clock
        self._is_quiet = is_quiet
        self._restart = restart
        self._began_s = clock.monotonic_s()
        pairing = f"{public_key_text(config.given_key)}/{config.terminal.id}"
        self.state = fleet_state.load(self._folder, pairing)

    @property
    def is_trying(self) -> bool:
        """Whether it is yet to be seen what becomes of a version."""
        return self.state.outcome is Outcome.TRYING

    async def settle(self) -> None:
        """See what became of the version that is being tried, if it has become anything yet."""
        file = self._config.source
        if not self.is_trying or file is None:
            return
        if await asyncio.to_thread(trial.is_on, file):
            is_late = self._clock.monotonic_s() - self._began_s > REACH_LIMIT_S
            if self._link.greeting is None and is_late:
                await asyncio.to_thread(trial.undo, file)
                crash("config.undone")
                await self._end(Outcome.REFUSED, OUT_OF_REACH)
                self._restart()
            return
        holds = await asyncio.to_thread(_holds, file, self.state.settings)
        await self._end(*((Outcome.APPLIED, "") if holds else (Outcome.REFUSED, NOT_UP)))

    async def heed(self, wanted: int) -> None:
        """Take what the gateway wants, if it is another version than the last; what cannot be done
        now is done at the next call. Raises LinkError, SignatureError, InputError or PartError."""
        if wanted in {0, self.state.seen} or self.is_trying or not self._is_quiet():
            return
        evidence = await self._link.fetch(CONFIG_PATH)
        key = self._config.gateway_key
        verify(key, Domain.CONFIG, evidence.body, evidence.signature)
        pushed = parse(PushedConfig, evidence.body)
        if (pushed.terminal_id, pushed.version) != (self._config.terminal.id, wanted):
            raise LinkError("the configuration is for another terminal, or of another version")
        try:
            is_new = await asyncio.to_thread(self._put_on_trial, pushed)
        except TapRailError as exc:
            if exc.retryable:
                raise
            _log.warning("a pushed configuration is refused", version=wanted, reason=str(exc))
            await self._decide(pushed, Outcome.REFUSED, str(exc))
            return
        crash("config.placed")
        await self._decide(pushed, Outcome.TRYING if is_new else Outcome.APPLIED)
        if is_new:
            _log.info("a pushed configuration is on trial", version=wanted)
            self._restart()

    async def tell(self) -> None:
        """Report to the gateway what it does not know yet. Raises LinkError, SignatureError."""
        if self.is_trying:
            return
        report = self._report()
        said = report.model_dump_json(by_alias=True, exclude={"at"})
        digest = hashlib.sha256(said.encode()).hexdigest()
        if digest == self.state.told:
            return
        body = report.model_dump_json(by_alias=True).encode()
        await self._link.tell(CONFIG_PATH, body, Domain.CONFIG_REPORT)
        await self._save(replace(self.state, told=digest))

    def _put_on_trial(self, pushed: PushedConfig) -> bool:
        """Whether something had to be changed. Raises TapRailError when it cannot be."""
        file = self._config.source
        if file is None:
            raise OperatorError("this terminal runs without a configuration file")
        if trial.is_on(file):
            raise LinkError("another configuration is on trial")  # the next heartbeat comes again
        before = file.read_text()
        text = with_settings(before, pushed.settings)
        if tomllib.loads(text) == tomllib.loads(before):
            return False
        trial.begin(file, text.encode(), like=self._config)
        return True

    async def _decide(self, pushed: PushedConfig, outcome: Outcome, reason: str = "") -> None:
        settings = dict(pushed.settings) if outcome is Outcome.TRYING else {}
        new = replace(
            self.state,
            seen=pushed.version,
            outcome=outcome,
            reason=plain(reason).replace("\n", " ")[:MAX_SENTENCE],
            settings=settings,
        )
        await self._save(_with_applied(new))

    async def _end(self, outcome: Outcome, reason: str) -> None:
        _log.info("a pushed configuration was tried", outcome=outcome.value, reason=reason)
        new = replace(self.state, outcome=outcome, reason=reason, settings={})
        await self._save(_with_applied(new))

    async def _save(self, state: FleetState) -> None:
        await asyncio.to_thread(fleet_state.save, self._folder, state)
        self.state = state

    def _report(self) -> ConfigReport:
        state, running = self.state, flat(self._config)
        return ConfigReport.model_validate(
            {
                "terminalId": self._config.terminal.id,
                "at": from_ms(self._clock.now_ms()),
                "version": state.seen,
                "outcome": state.outcome.value or None,
                "reason": state.reason or None,
                "appliedVersion": state.applied,
                "settings": {name: _short(running[name]) for name in CHANGEABLE if name in running},
            },
            strict=False,
        )


def with_settings(text: str, settings: Mapping[str, Any]) -> str:
    """The text with these values, those that are None taken out; raises InputError."""
    for name, value in settings.items():
        if name not in CHANGEABLE:
            raise InputError(name, "may not be changed from afar")
        if value is None:
            text = without_value(text, name)
        else:
            text = with_value(text, name, json.dumps(value))
    return text


def _holds(file: Path, settings: Mapping[str, Any]) -> bool:
    """Whether the file says so."""
    text = file.read_text()
    try:
        return tomllib.loads(with_settings(text, settings)) == tomllib.loads(text)
    except (InputError, tomllib.TOMLDecodeError):
        return False


def _with_applied(state: FleetState) -> FleetState:
    is_applied = state.outcome is Outcome.APPLIED
    return replace(state, applied=state.seen) if is_applied else state


def _short(value: Any) -> Any:
    return value[:MAX_VALUE] if isinstance(value, str) else value
