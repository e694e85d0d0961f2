"""What every admin command works with: the configuration, the ledger, the keys in custody."""

from __future__ import annotations

import asyncio
import getpass
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from sqlalchemy import Connection

from taprail_common.clock import SystemClock
from taprail_common.errors import OperatorError
from taprail_common.money import format_amount, parse_amount
from taprail_common.signing import fingerprint, load_key_file
from taprail_gateway import facts
from taprail_gateway.config import GatewaySettings
from taprail_gateway.custody import Custody
from taprail_gateway.facts import LedgerFacts
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger

T = TypeVar("T")

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


class Session:
    """One command's way to the gateway's state; opens only what is asked for."""

    def __init__(self, config: Path | None) -> None:
        self._config = config
        self.clock = SystemClock()

    @cached_property
    def settings(self) -> GatewaySettings:
        # Asked for here and not by the option itself, so that --help of a command needs no file.
        if self._config is None:
            raise OperatorError("no configuration", fix="name one: taprail admin --config FILE …")
        return GatewaySettings.load(self._config)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Do work in one transaction of its own."""
        with self._ledger() as ledger:
            return ledger.write_now(work)

    def read(self, query: Callable[[Connection], T]) -> T:
        """Read from one snapshot."""
        with self._ledger() as ledger:
            return ledger.read_now(query)

    @cached_property
    def custody(self) -> Custody:
        """The keys in custody, ready to wrap and to name UIDs."""
        custody = Custody.load(self.settings.master_key_file)
        self.write(custody.attach)
        return custody

    @cached_property
    def facts(self) -> LedgerFacts:
        """The ledger's chain and token: noted in it, or, before the first start, asked for."""
        known = self.read(facts.known)
        if known is not None:
            return known
        wanted = asyncio.run(_read_facts(self.settings))
        self.write(lambda connection: facts.claim(connection, wanted))
        return wanted

    def units(self, amount: str) -> int:
        """Decimal text of the token as units; raises InputError."""
        return parse_amount(amount, self.facts.decimals)

    def text(self, amount_units: int) -> str:
        """Units as decimal text with the currency."""
        return f"{format_amount(amount_units, self.facts.decimals)} {self.facts.currency}"

    def by(self, reason: str | None = None) -> By:
        """Who gives this command, now, for the record; raises InputError for a bad reason."""
        return By(f"cli:{getpass.getuser()}"[:80], self.clock.now_ms(), reason)

    @contextmanager
    def _ledger(self) -> Iterator[Ledger]:
        ledger = Ledger.open(self.settings.database_url, clock=self.clock)
        try:
            yield ledger
        finally:
            ledger.dispose()


def session_of(context: typer.Context) -> Session:
    """The session that the top command has made."""
    session = context.obj
    if not isinstance(session, Session):
        raise TypeError("admin commands are run below `taprail admin`")
    return session


async def _read_facts(settings: GatewaySettings) -> LedgerFacts:
    # Loaded here: only the very first amount needs a node, and web3 takes a second to load.
    from taprail_gateway.settle.connect import connect

    key = load_key_file(settings.key_file, "gateway key").verify_key
    chain = await connect(settings.chain)
    token = chain.token
    await chain.close()
    return LedgerFacts(
        token.chain_id, token.address, token.symbol, token.decimals, fingerprint(key)
    )
