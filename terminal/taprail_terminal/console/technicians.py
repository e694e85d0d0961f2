"""Who may change this terminal: the gateway's list of technicians, and the nonces they sign.

Answers for admitting one command. The list is fetched before each change; without a network the
terminal's own copy serves for a week, signed by the gateway as it is. A list that is older than
the one we have is not taken, so that a revoked technician does not come back with it.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from nacl.signing import VerifyKey

from taprail_common.clock import Clock
from taprail_common.errors import (
    InputError,
    LinkError,
    OperatorError,
    PartError,
    SignatureError,
    TapRailError,
)
from taprail_common.signing import Domain, gateway_id, parse_public_key, verify
from taprail_common.technicians import ABOUT_ROSTER, MAX_COPY_AGE_MS, Roster, Technician, revision
from taprail_common.wire import parse
from taprail_terminal.atomic_file import replace_file
from taprail_terminal.console.proof import Proof
from taprail_terminal.outbox import Evidence

MAX_AGE_MS: Final = MAX_COPY_AGE_MS
FETCH_LIMIT_S: Final = 3.0
NONCE_LIMIT_S: Final = 120.0
MAX_NONCES: Final = 16
_MAX_FILE_BYTES: Final = 32 * 1024

_log = structlog.get_logger()


class NotAdmittedError(TapRailError):
    """Whoever asked may not change this terminal."""

    code = "not_admitted"


class Technicians:
    """The list, and who is let in by it. `fetch` asks the gateway for a signed list."""

    def __init__(
        self,
        file: Path,
        gateway_key: VerifyKey,
        terminal_id: str,
        fetch: Callable[[], Awaitable[Evidence]],
        clock: Clock,
    ) -> None:
        self._file = file
        self._key = gateway_key
        self._terminal_id = terminal_id
        self._fetch = fetch
        self._clock = clock
        self._nonces: dict[str, float] = {}

    def challenge(self) -> str:
        """A nonce to sign; good once, for two minutes, and only the newest few."""
        nonce = secrets.token_hex(16)
        self._nonces[nonce] = self._clock.monotonic_s() + NONCE_LIMIT_S
        while len(self._nonces) > MAX_NONCES:
            del self._nonces[next(iter(self._nonces))]
        return nonce

    async def admit(self, words: Sequence[str], proof: Proof | None) -> Technician:
        """Who gives this command; raises NotAdmittedError with the reason and what to do."""
        if proof is None:
            raise NotAdmittedError(
                "this command changes the terminal", fix="sign it: taprail diag --key FILE"
            )
        until_s = self._nonces.pop(proof.nonce, None)
        if until_s is None or until_s < self._clock.monotonic_s():
            raise NotAdmittedError(
                "the challenge is used up or older than two minutes", fix="ask again"
            )
        await self.refresh()
        return self._known(await asyncio.to_thread(self._stored), words, proof)

    async def refresh(self) -> bool:
        """Ask the gateway for its list; False when there is none to be had, or none to believe."""
        try:
            async with asyncio.timeout(FETCH_LIMIT_S):
                evidence = await self._fetch()
            roster = self._believed(evidence)
            await asyncio.to_thread(self._store, roster, evidence)
        except (LinkError, TimeoutError):
            return False
        except (SignatureError, InputError, PartError) as exc:
            _log.warning("the list of technicians was not taken", reason=str(exc))
            return False
        return True

    async def has(self, told: str | None) -> bool:
        """Whether our copy is of the revision that the gateway has told, if it has told any."""
        roster = await asyncio.to_thread(self._stored)
        return told is None or (roster is not None and revision(roster.technicians) == told)

    async def age_ms(self) -> int | None:
        """How old the copy is; None when there is none."""
        roster = await asyncio.to_thread(self._stored)
        return None if roster is None else self._clock.now_ms() - roster.issued_at

    def _known(self, roster: Roster | None, words: Sequence[str], proof: Proof) -> Technician:
        if roster is None:
            raise NotAdmittedError(
                "this terminal has no list of technicians yet",
                fix="bring its gateway in reach once",
            )
        if self._clock.now_ms() - roster.issued_at > MAX_AGE_MS:
            raise NotAdmittedError(
                "the list of technicians is older than a week", fix="bring the gateway in reach"
            )
        found = [each for each in roster.technicians if each.public_key == proof.public_key]
        if not found:
            raise NotAdmittedError(
                "this key is no technician's, or was revoked",
                fix="at the gateway: taprail admin technician list",
            )
        try:
            proof.check(parse_public_key(proof.public_key), self._terminal_id, words)
        except (SignatureError, OperatorError) as exc:
            raise NotAdmittedError(
                "the signature is not about this command", fix="ask again"
            ) from exc
        return found[0]

    def _believed(self, evidence: Evidence) -> Roster:
        verify(self._key, Domain.COMMAND, evidence.body, evidence.signature, about=ABOUT_ROSTER)
        roster = parse(Roster, evidence.body)
        if roster.terminal_id != self._terminal_id or roster.gateway_id != gateway_id(self._key):
            raise InputError("technicians", "is a list for another terminal")
        return roster

    def _store(self, roster: Roster, evidence: Evidence) -> None:
        known = self._stored()
        if known is not None and roster.issued_at < known.issued_at:
            raise InputError("technicians", "is older than the list that we have")
        if known is not None and _same(known, roster) and not self._is_aging(known):
            return  # spare the disk
        text = json.dumps({"body": evidence.body.decode(), "signature": evidence.signature})
        try:
            replace_file(self._file, text.encode())
        except OSError as exc:
            raise PartError("disk", f"{self._file} cannot be written ({exc.strerror})") from exc

    def _is_aging(self, roster: Roster) -> bool:
        return self._clock.now_ms() - roster.issued_at > MAX_AGE_MS // 100

    def _stored(self) -> Roster | None:
        """The copy, if it is the gateway's: one that somebody changed is worth nothing."""
        try:
            stored = json.loads(self._file.read_bytes()[:_MAX_FILE_BYTES])
            return self._believed(Evidence(stored["body"].encode(), stored["signature"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, SignatureError, InputError):
            _log.warning("the list of technicians is damaged", file=str(self._file))
            return None


def _same(one: Roster, other: Roster) -> bool:
    return one.technicians == other.technicians
