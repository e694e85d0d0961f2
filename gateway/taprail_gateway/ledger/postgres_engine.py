"""The ledger on a PostgreSQL server: for several gateways, each with connections like these.

Writers run at READ COMMITTED: every statement of the ledger is guarded by the row that it changes,
and PostgreSQL looks at the guard again after it has waited for that row. Readers get one snapshot
for each transaction. Every wait has a bound, on this side and on the server's, so that a gateway
that stands still cannot keep the others from the rows that it has locked.

Gateways and migrations keep clear of each other by an advisory lock of the database: every
connection that writes holds it shared for as long as it lives, a migration wants it alone. So the
connections must be the server's own sessions: a pooler in between has to pool sessions, not
transactions.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, Engine, QueuePool, create_engine, event, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from taprail_common.errors import OperatorError
from taprail_gateway.ledger.errors import is_lock_timeout
from taprail_gateway.ledger.schema import VERSION

if TYPE_CHECKING:
    from psycopg import Connection as DriverConnection

MIN_SERVER_VERSION: Final = 130_000
"""PostgreSQL 13, as `server_version_num` counts; what is older gets no repairs any more."""

LOCK_WAIT_MS: Final = 5_000
"""How long a statement waits for a row that another transaction has changed."""

_CONNECT_S: Final = 5
_WRITE_MS: Final = 15_000
"""For one statement of a write; they take milliseconds."""
_READ_MS: Final = 60_000
"""For one query; `admin check` reads the whole ledger."""
_STANDSTILL_MS: Final = 10_000
"""How long a gateway that stands still may keep what it has locked: as long as a lease."""
_MIGRATION_STANDSTILL_MS: Final = 60_000

_LEDGER_LOCK: Final = int.from_bytes(b"taprail\0")
"""The advisory lock's number; of each database its own."""

_DRIVER: Final = "postgresql+psycopg"
_NAME_LENGTH: Final = 63  # NAMEDATALEN - 1; the server cuts off what is longer

# A server that has lost its power says nothing at all; these notice it within about ten seconds
# (https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS).
_PATIENCE: Final = {
    "connect_timeout": str(_CONNECT_S),
    "keepalives_idle": "5",
    "keepalives_interval": "2",
    "keepalives_count": "3",
    "tcp_user_timeout": "10000",
}
# What a URL may say after its "?". Secrets are not among it, because only the password before the
# @ is kept out of messages; and nothing that changes how the driver or the ledger work.
_PARAMETERS: Final = frozenset(
    (
        *("host", "hostaddr", "port", "passfile", "service", "application_name"),
        *("sslmode", "sslnegotiation", "sslrootcert", "sslcert", "sslkey", "sslcrl", "sslcrldir"),
        *("ssl_min_protocol_version", "ssl_max_protocol_version", "channel_binding"),
        *("require_auth", "gssencmode", "krbsrvname", "target_session_attrs"),
        *("load_balance_hosts", "keepalives", *_PATIENCE),
    )
)


def server_url(url: URL) -> URL:
    """Check a URL and name its driver; raises OperatorError that never shows the password."""
    if url.drivername not in {"postgresql", "postgres", _DRIVER}:
        raise OperatorError(f"no ledger by the driver {url.drivername}", fix=URL_FIX)
    if not url.database:
        raise OperatorError("the ledger's URL names no database", fix=URL_FIX)
    unknown = sorted(url.query.keys() - _PARAMETERS)
    if unknown:
        raise OperatorError(
            f"the ledger's URL may not set {', '.join(unknown)}",
            fix="leave it out; a password goes before the @, or into a file of its own",
        )
    return url.set(drivername=_DRIVER)


URL_FIX: Final = "write it like postgresql://taprail@/taprail?host=/run/postgresql"


def write_engine(url: URL, *, connections: int) -> Engine:
    """Connections that write: durable, bounded, and in no migration's way."""
    engine = _engine(url, connections)
    settings = {
        # An acknowledged commit is on the server's disk, and on a synchronous standby's.
        "synchronous_commit": "on",
        "default_transaction_isolation": "read committed",
        "statement_timeout": str(_WRITE_MS),
        "idle_in_transaction_session_timeout": str(_STANDSTILL_MS),
    }
    _on_connect(engine, settings, shares_ledger=True)
    return engine


def read_engine(url: URL, *, connections: int) -> Engine:
    """Connections that cannot write; each transaction sees one snapshot."""
    engine = _engine(url, connections)
    settings = {
        "default_transaction_isolation": "repeatable read",
        "default_transaction_read_only": "on",
        "statement_timeout": str(_READ_MS),
        "idle_in_transaction_session_timeout": str(_READ_MS),
    }
    _on_connect(engine, settings)
    return engine


def migration_engine(url: URL) -> Engine:
    """A connection that changes the schema; big tables may take their time."""
    engine = _engine(url, 1)
    settings = {
        "synchronous_commit": "on",
        "default_transaction_isolation": "read committed",
        "statement_timeout": "0",
        "idle_in_transaction_session_timeout": str(_MIGRATION_STANDSTILL_MS),
    }
    _on_connect(engine, settings)
    return engine


def lock_out_gateways(connection: Connection) -> None:
    """Have the ledger alone until the transaction's end; OperatorError while a gateway writes."""
    waiting = connection.begin_nested()
    try:
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LEDGER_LOCK})")
    except DBAPIError as exc:
        if not is_lock_timeout(exc):
            raise
        waiting.rollback()
        names = connection.execute(_HOLDERS, {"ledger": _LEDGER_LOCK}).scalars()
        others = ", ".join(map(str, names)) or "unknown"
        raise OperatorError(
            f"another gateway ({others}) works on this ledger", fix="stop it first"
        ) from None
    waiting.commit()


_HOLDERS: Final = text(
    "SELECT DISTINCT a.application_name FROM pg_locks l JOIN pg_stat_activity a USING (pid)"
    " WHERE l.locktype = 'advisory' AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND (l.classid::bigint << 32) | l.objid::bigint = :ledger ORDER BY 1 LIMIT 5"
)


def _engine(url: URL, connections: int) -> Engine:
    given = {"application_name": _our_name(), **_PATIENCE}
    arguments = {name: value for name, value in given.items() if name not in url.query}
    try:
        return create_engine(
            url,
            poolclass=QueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=LOCK_WAIT_MS / 1000,
            # A server that was restarted has closed them all: better asked than found out.
            pool_pre_ping=True,
            connect_args={**arguments, "client_encoding": "utf8"},
        )
    except ModuleNotFoundError as exc:
        raise OperatorError(
            f"a ledger on PostgreSQL needs the package {exc.name}",
            fix="pip install 'taprail[postgres]'",
        ) from exc


def _our_name() -> str:
    """How the server's administrator, and a migration that has to wait, will know this process."""
    return f"taprail {os.getpid()}@{socket.gethostname()}"[:_NAME_LENGTH]


def _on_connect(engine: Engine, settings: dict[str, str], *, shares_ledger: bool = False) -> None:
    wanted = {"lock_timeout": str(LOCK_WAIT_MS), **settings}
    statement = "; ".join(f"SET {name} = '{value}'" for name, value in wanted.items())

    def connected(connection: DriverConnection, _entry: ConnectionPoolEntry) -> None:
        try:
            check_server(connection.info.server_version, _encoding(connection))
            connection.autocommit = True  # a SET inside a transaction would end with it
            connection.execute(statement.encode())
            if shares_ledger:
                _share_ledger(connection)
            connection.autocommit = False
        except BaseException:
            connection.close()
            raise

    event.listen(engine, "connect", connected)


def check_server(version: int, encoding: str) -> None:
    """Raise OperatorError unless a ledger can be on this server, in this database."""
    if version < MIN_SERVER_VERSION:
        raise OperatorError(
            f"the ledger's PostgreSQL {version // 10_000} is too old",
            fix=f"upgrade it to {MIN_SERVER_VERSION // 10_000} or newer",
        )
    if encoding != "UTF8":
        raise OperatorError(
            f"the ledger's database stores text as {encoding}",
            fix="create it with: createdb --encoding=UTF8 --template=template0",
        )


def _encoding(connection: DriverConnection) -> str:
    return connection.info.parameter_status("server_encoding") or "unknown"


def _share_ledger(connection: DriverConnection) -> None:
    """Keep migrations away while this connection lives, and see that none came before it."""
    connection.execute(f"SELECT pg_advisory_lock_shared({_LEDGER_LOCK})".encode())
    row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None or row[0] != VERSION:
        raise OperatorError(
            f"the ledger is not of version {VERSION} any more",
            fix="it was upgraded below this program: start the new one",
        )
