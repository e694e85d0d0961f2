"""A PostgreSQL of the tests' own: Debian's server, on a socket in a folder that goes with it.

It listens on no port, trusts whoever gets at its folder, and syncs nothing: a machine that crashes
in a test may lose what the test wrote. Started as another user when the tests are run by root, whom
PostgreSQL refuses.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from pathlib import Path
from typing import Any, Final, Self

import psycopg
from psycopg import sql
from sqlalchemy import URL

SUPERUSER: Final = "taprail"
GUARDED: Final = "guarded"
"""A user who needs a password; all others are trusted."""

PASSWORD: Final = "s3cret/with@signs"
_START_S: Final = 30
_INSTALLED: Final = Path("/usr/lib/postgresql")
_SETTINGS: Final = {
    "listen_addresses": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "60",
    "deadlock_timeout": "20ms",
    "jit": "off",
}
_INITDB: Final = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync")
_WHO_MAY: Final = f"local all {GUARDED} scram-sha-256\nlocal all all trust\n"


class NoPostgresError(Exception):
    """There is no PostgreSQL on this machine; the message says what to do."""


def programs() -> Path:
    """The folder of the newest installed server's programs."""
    found = sorted(_INSTALLED.glob("*/bin/postgres"), key=lambda path: float(path.parts[-3]))
    if not found:
        raise NoPostgresError(f"no PostgreSQL in {_INSTALLED}: run `.ci/setup postgres`")
    return found[-1].parent


class PostgresServer:
    """One server; `with` starts it, stops it and removes all it has written."""

    def __init__(self) -> None:
        self._programs = programs()
        self._process: subprocess.Popen[str] | None = None
        self._said: deque[str] = deque(maxlen=50)
        self._databases = 0

    def __enter__(self) -> Self:
        # Not below pytest's folder, which only the user may enter who has started the tests.
        self.folder = Path(tempfile.mkdtemp(prefix="taprail-pg-"))
        self._user = _other_user() if os.geteuid() == 0 else {}
        if self._user:
            os.chown(self.folder, self._user["user"], self._user["group"])
        try:
            self._initialize()
            self.start()
        except BaseException:
            self._remove()
            raise
        with self.connection() as connection:
            connection.execute(
                sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(
                    sql.Identifier(GUARDED), sql.Literal(PASSWORD)
                )
            )
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._remove()

    def start(self) -> None:
        """Start it and wait until it answers."""
        settings = {"unix_socket_directories": str(self.folder), **_SETTINGS}
        given = [f"--{name}={value}" for name, value in settings.items()]
        self._process = subprocess.Popen(
            [*_ends_with_us(), self._programs / "postgres", "-D", self._data, *given],
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            **self._user,
        )
        ready = threading.Event()
        threading.Thread(target=self._listen, args=(self._process, ready), daemon=True).start()
        if not ready.wait(_START_S) or self._process.poll() is not None:
            self.stop()
            raise RuntimeError("PostgreSQL does not start: " + "".join(self._said))

    def stop(self) -> None:
        """Stop it at once: connections are closed, nothing committed is lost."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(_START_S)
            self._process = None

    def url(self, database: str, *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Where a gateway would find a database of this server."""
        url = URL.create(
            "postgresql", user, password, database=database, query={"host": str(self.folder)}
        )
        return url.render_as_string(hide_password=False)

    def create_database(self, *, template: str = "template0") -> str:
        """Make a copy of a database that nobody is connected to; gives its name."""
        self._databases += 1
        name = f"ledger_{self._databases}"
        with self.connection() as connection:
            quick = "STRATEGY file_copy" if connection.info.server_version >= 150_000 else ""
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {} " + quick).format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def drop_database(self, name: str) -> None:
        with self.connection() as connection:
            connection.execute(
                sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def connection(self, database: str = "postgres") -> psycopg.Connection:
        """A connection of the superuser's, in autocommit; to be used as a context manager."""
        return psycopg.connect(
            host=str(self.folder), user=SUPERUSER, dbname=database, autocommit=True
        )

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _initialize(self) -> None:
        done = subprocess.run(
            [self._programs / "initdb", "-D", self._data, "-U", SUPERUSER, *_INITDB],
            capture_output=True,
            text=True,
            cwd=self.folder,
            check=False,
            **self._user,
        )
        if done.returncode:
            raise RuntimeError(f"initdb failed: {done.stderr}")
        (self._data / "pg_hba.conf").write_text(_WHO_MAY)

    def _listen(self, process: subprocess.Popen[str], ready: threading.Event) -> None:
        """Take what it says until it ends: it would stand still before a full pipe."""
        assert process.stderr is not None
        with process.stderr as lines:
            for line in lines:
                self._said.append(line)
                if "ready to accept connections" in line:
                    ready.set()
        ready.set()

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _other_user() -> dict[str, Any]:
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise NoPostgresError("PostgreSQL refuses root, and there is no user `nobody` to run it")


def _ends_with_us() -> list[str]:
    """What makes it stop when the tests are killed; its folder is left behind then."""
    return ["setpriv", "--pdeathsig", "QUIT", "--"] if shutil.which("setpriv") else []
