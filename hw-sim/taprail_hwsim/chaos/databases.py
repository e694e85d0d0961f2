"""An empty database for each stack, on a PostgreSQL server that is there.

The server is named by the URL of a database that exists and whose user may make others; that one is
not touched. In a ledger's file none of this is needed: each stack has a folder of its own.
"""

from __future__ import annotations

import secrets
from typing import Final

from sqlalchemy import URL, create_engine, text
from sqlalchemy.exc import SQLAlchemyError

from taprail_common.errors import OperatorError
from taprail_gateway.ledger.engines import is_server, ledger_url, place
from taprail_hwsim.process import ProgramError

_PREFIX: Final = "taprail_chaos_"


class Databases:
    """Makes them; raises OperatorError for a URL that is none, ProgramError when one cannot be."""

    def __init__(self, url: str) -> None:
        self._server = ledger_url(url)
        if not is_server(self._server):
            raise OperatorError("--database is for a PostgreSQL server", fix="see --help")
        self._made: list[str] = []

    def fresh(self, *, like: str | None = None) -> str:
        """The URL of a new one, with the password that was given; empty, or a copy of another that
        nobody is connected to (its URL)."""
        name = _PREFIX + secrets.token_hex(4)
        template = "template0" if like is None else ledger_url(like).database
        self._run(f"CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'")
        self._made.append(name)
        return _text(self._server.set(database=name))

    def drop_all(self) -> None:
        """Remove what was made; nobody may be connected any more."""
        while self._made:
            self._run(f"DROP DATABASE {self._made.pop()}")

    def _run(self, statement: str) -> None:
        engine = create_engine(self._server, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                connection.execute(text(statement))
        except SQLAlchemyError as exc:
            reason = str(exc.__cause__ or exc).strip().splitlines()[0]
            raise ProgramError(f"{place(self._server)}: {reason}") from exc
        finally:
            engine.dispose()


def _text(url: URL) -> str:
    return url.set(drivername="postgresql").render_as_string(hide_password=False)
