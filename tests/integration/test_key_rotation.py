"""Changing over to another master key: cut off anywhere, beside others that write, by command."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, LargeBinary, insert, select, update

from taprail_common.clock import SystemClock
from taprail_common.errors import TapRailError
from taprail_gateway import issuer, registry, rotation
from taprail_gateway.callbacks import webhook
from taprail_gateway.custody import PEPPER, Custody
from taprail_gateway.ledger import actions, schema
from taprail_gateway.ledger.database import Ledger
from taprail_gateway.master_keys import create_master_key, key_id, read_ring, write_ring
from tests.support.admin_fixtures import ACCOUNT, Admin
from tests.support.ledger_fixtures import on_both_engines

CARDS = 7
AT_MS = 1_717_171_717_000


class Books:
    """A ledger with something of each kind in custody."""

    def __init__(self, url: str, key_file: Path) -> None:
        create_master_key(key_file)
        self.key_file = key_file
        self.custody = Custody.load(key_file)
        self.ledger = Ledger.open(url, clock=SystemClock())
        self.ledger.write_now(self._fill)
        self.before = self.secrets(self.custody)

    def _fill(self, connection: Connection) -> None:
        custody = self.custody
        custody.attach(connection)
        issuer.ensure(connection, custody, AT_MS)
        registry.ensure_lane(connection, custody, AT_MS)
        registry.add_user(connection, "alice", "Alice", "customer", AT_MS)
        registry.add_merchant(connection, "kiosk", "Kiosk", ACCOUNT, AT_MS)
        for number in range(CARDS):
            order = registry.CardOrder("alice", bytes([4, 1, 2, 3, 4, 5, number]))
            registry.issue_card(connection, custody, order, AT_MS)
        own = registry.CardOrder("alice", address="0x" + "ab" * 20, profile="signed")
        registry.issue_card(connection, custody, own, AT_MS)
        row = {
            "id": "whe_1",
            "merchant_id": "kiosk",
            "url": "https://x.example",
            "status": "active",
            "wrapped_secret": custody.wrap_secret(webhook.secret_name("whe_1"), b"new"),
            "wrapped_old_secret": custody.wrap_secret(webhook.secret_name("whe_1"), b"old"),
            "created_at_ms": AT_MS,
        }
        connection.execute(insert(schema.webhook_endpoints).values(row))

    def secrets(self, custody: Custody) -> dict[tuple[str, str, Any], bytes]:
        """Everything in custody, opened."""

        def read(connection: Connection) -> dict[tuple[str, str, Any], bytes]:
            found = {}
            for place in rotation.PLACES:
                statement = select(place.key, place.column).where(place.column.is_not(None))
                for key, stored in connection.execute(statement):
                    if place.only not in {None, key}:
                        continue
                    raw = bytes.fromhex(stored) if isinstance(stored, str) else bytes(stored)
                    name = (place.table.name, place.name, key)
                    found[name] = _opened(custody, place.table.name, place.name, key, raw)
            return found

        return self.ledger.read_now(read)

    def rotate_file(self) -> Custody:
        write_ring(self.key_file, read_ring(self.key_file).prepared().promoted())
        return Custody.load(self.key_file)

    def count(self) -> Counter[bytes | None]:
        return self.ledger.read_now(rotation.count_by_key)

    def lot(self, custody: Custody, place: rotation.Place, after: Any, limit: int) -> rotation.Lot:
        return self.ledger.write_now(
            lambda connection: rotation.rewrap_some(connection, custody, place, after, limit)
        )

    def go_through(self, custody: Custody, limit: int, stop_after: int | None = None) -> int:
        """Lot by lot, as the command does; `stop_after` is where it is killed."""
        lots = done = 0
        for place in rotation.PLACES:
            after = None
            while True:
                if lots == stop_after:
                    raise KeyboardInterrupt
                lot = self.lot(custody, place, after, limit)
                lots, done, after = lots + 1, done + lot.rewrapped, lot.last_key
                if after is None:
                    break
        return done


def _opened(custody: Custody, table: str, column: str, key: Any, raw: bytes) -> bytes:
    if column == "wrapped_key":
        return bytes(custody.unwrap(key, raw).secret)
    names = {
        "wrapped_sun_master_key": f"issuer/{key}/sun-master",
        "wrapped_meta_read_key": f"issuer/{key}/meta-read",
        "value": PEPPER,
    }
    return custody.unwrap_secret(names.get(column, f"webhook/{key}"), raw)


@pytest.fixture
def books(ledger_url: str, tmp_path: Path) -> Any:
    books = Books(ledger_url, tmp_path / "keys" / "master.key")
    yield books
    books.ledger.dispose()


def test_every_wrapped_column_of_the_schema_is_known() -> None:
    wrapped = {
        (table.name, column.name)
        for table in schema.metadata.tables.values()
        for column in table.columns
        if column.name.startswith("wrapped_")
    }
    assert {(place.table.name, place.name) for place in rotation.PLACES} == wrapped | {
        ("meta", "value")
    }
    for place in rotation.PLACES:
        assert isinstance(place.column.type, LargeBinary) or place.only is not None
        assert len(place.table.primary_key.columns) == 1


@on_both_engines
def test_everything_is_wrapped_anew_and_stays_what_it_was(books: Books) -> None:
    former = books.custody.current_id
    total = len(books.before)
    assert books.count() == {former: total}
    assert total == CARDS + 1 + 2 + 2 + 1
    custody = books.rotate_file()
    assert books.go_through(custody, limit=3) == total
    assert books.count() == {custody.current_id: total}
    write_ring(books.key_file, read_ring(books.key_file).without_old())
    assert books.secrets(Custody.load(books.key_file)) == books.before
    assert books.go_through(custody, limit=3) == 0


@on_both_engines
def test_wherever_it_is_killed_all_can_be_read_and_it_goes_on(books: Books) -> None:
    running = books.custody  # a gateway's, which is told nothing
    for stop_after in range(9):  # lots in all
        custody = books.rotate_file()
        with pytest.raises(KeyboardInterrupt):
            books.go_through(custody, limit=3, stop_after=stop_after)
        assert books.secrets(running) == books.before
        assert books.secrets(Custody.load(books.key_file)) == books.before
        books.go_through(Custody.load(books.key_file), limit=3)
        assert books.count() == {custody.current_id: len(books.before)}
        write_ring(books.key_file, read_ring(books.key_file).without_old())


@on_both_engines
def test_a_value_that_is_changed_meanwhile_is_left_alone(books: Books) -> None:
    [place] = [each for each in rotation.PLACES if each.name == "wrapped_secret"]
    newer = books.custody.wrap_secret(webhook.secret_name("whe_1"), b"newer")
    custody = books.rotate_file()

    def work(connection: Connection) -> rotation.Lot:
        def overtaken(custody: Custody, key: str, wrapped: bytes) -> bytes | None:
            connection.execute(update(place.table).values({place.name: newer}))
            return place.rewrap(custody, key, wrapped)

        slow = rotation.Place(place.table, place.name, overtaken)
        return rotation.rewrap_some(connection, custody, slow, None)

    assert books.ledger.write_now(work).rewrapped == 0
    assert books.ledger.read_now(lambda c: c.scalar(select(place.column))) == newer
    assert books.go_through(custody, limit=3) == len(books.before)  # and is not forgotten either


# --- the commands ---------------------------------------------------------------------------------


def listed(admin: Admin) -> dict[str, int]:
    return {row["use"]: row["values"] for row in admin.json("key", "list")}


def test_the_commands_change_over_and_forget(admin: Admin, tmp_path: Path) -> None:
    path = admin.settings.master_key_file
    admin("card", "issue", "--uid", "04AABBCCDDEE01", "--user", "alice")
    total = listed(admin)["wraps"]
    before = read_ring(path)
    with pytest.raises(TapRailError, match="there is no old master key"):
        admin("key", "retire")
    done = admin.json("key", "rotate")
    assert (done["rewrapped"], done["left"]) == (total, 0)
    assert listed(admin) == {"wraps": total, "opens only": 0}
    assert read_ring(path).old == (before.current,)
    archive = tmp_path / "former.key"
    retired = admin.json("key", "retire", "--archive", str(archive))["retired"]
    assert retired == [key_id(before.current).hex()]
    assert read_ring(archive) == before
    assert listed(admin) == {"wraps": total}
    admin("card", "issue", "--uid", "04AABBCCDDEE02", "--user", "alice")
    told = admin.do(lambda connection: actions.history(connection, 9))
    assert [each.action for each in told if each.subject == "master key"] == [
        "key-retire",
        "key-rotate",
    ]
    shown = admin("key", "list") + str(told) + str(done)
    assert all(key.hex() not in shown for key in (*before.keys, *read_ring(path).keys))


def test_a_key_may_be_made_known_first(admin: Admin) -> None:
    path = admin.settings.master_key_file
    upcoming = admin.json("key", "rotate", "--prepare")["next"]
    assert admin.json("key", "rotate", "--prepare")["next"] == upcoming
    assert listed(admin)["comes next"] == 0
    copied = Custody.load(path)  # a gateway's copy, which does not follow the file
    copied._file = None
    assert admin.json("key", "rotate")["current"] == upcoming
    admin.do(copied.attach)


def test_what_was_interrupted_goes_on_with_the_same_key(admin: Admin) -> None:
    path = admin.settings.master_key_file
    admin("card", "issue", "--uid", "04AABBCCDDEE01", "--user", "alice")
    total = listed(admin)["wraps"]
    write_ring(path, read_ring(path).prepared().promoted())  # killed right after that
    custody = Custody.load(path)
    admin.do(lambda c: rotation.rewrap_some(c, custody, rotation.PLACES[0], None))
    assert listed(admin) == {"wraps": 1, "opens only": total - 1}
    with pytest.raises(TapRailError, match=f"{total - 1} values are not by the current key"):
        admin("key", "retire")
    done = admin.json("key", "rotate")
    assert (done["rewrapped"], done["current"]) == (total - 1, custody.current_id.hex())
    assert listed(admin) == {"wraps": total, "opens only": 0}


def test_a_key_that_is_not_in_the_file_is_seen(admin: Admin) -> None:
    path = admin.settings.master_key_file
    path.unlink()
    create_master_key(path)
    assert "NOT IN THE FILE" in listed(admin)
    with pytest.raises(TapRailError, match="by another master key"):
        admin("key", "rotate")
