"""The fleet in the ledger, on both engines: versions of what is wanted, late heartbeats, one
diagnosis at a time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest

from taprail_common.errors import OperatorError
from taprail_common.terminal_settings import ConfigReport
from taprail_common.wire import from_ms
from taprail_gateway import registry
from taprail_gateway.heartbeats import Beat
from taprail_gateway.ledger import actions, fleet
from taprail_gateway.ledger.actions import By
from taprail_gateway.ledger.database import Ledger
from tests.support.ledger_fixtures import NOW_MS, Registry, on_both_engines, seed_registry

pytestmark = on_both_engines


@pytest.fixture
def registry_rows(ledger: Ledger) -> Registry:
    return seed_registry(ledger)


BY = By("cli:olga", NOW_MS, "a new reader")


def beat(terminal_id: str, at_ms: int, **changes: object) -> Beat:
    made = Beat(terminal_id, at_ms, "0.1.0", "idle", True, "PN532", 1, 2, 60, None, 0)
    return replace(made, **changes)  # type: ignore[arg-type]  # of the fields' own types


def test_of_two_heartbeats_the_later_one_stays(ledger: Ledger, registry_rows: Registry) -> None:
    name = registry_rows.terminal_id
    late = beat(name, NOW_MS + 9, reader_ok=False, reader="silent", clock_offset_ms=-5)
    for beats in ([late], [beat(name, NOW_MS)]):
        ledger.write_now(partial(fleet.write_beats, beats=beats))
    health = ledger.read_now(partial(fleet.health_of, terminal_ids=[name, "nobody"]))
    assert health[name].beat == late
    assert health["nobody"] == fleet.Health(None, None, None)


def test_each_change_of_what_is_wanted_is_the_next_version(
    ledger: Ledger, registry_rows: Registry
) -> None:
    name = registry_rows.terminal_id

    def want(**settings: object) -> int:
        changes = {key.replace("__", "."): value for key, value in settings.items()}
        work = partial(fleet.want, terminal_id=name, changes=changes, by=BY)
        return ledger.write_now(work).version

    assert [want(reader__port="/dev/a"), want(reader__port="/dev/a")] == [1, 1]
    assert want(reader__reset_pin=None, log__json_lines=False) == 2
    wanted = ledger.read_now(partial(fleet.wanted, terminal_id=name))
    assert wanted is not None
    assert wanted.settings == {
        "reader.port": "/dev/a",
        "reader.reset_pin": None,
        "log.json_lines": False,
    }
    with ThreadPoolExecutor(4) as several:
        made = set(several.map(lambda n: want(reader__port=f"/dev/{n}"), range(4)))
    assert made == {3, 4, 5, 6}
    news = ledger.read_now(partial(fleet.wanted_since, since_ms=NOW_MS))
    assert news == [(name, 6)]
    assert ledger.read_now(partial(fleet.standing, terminal_id=name)) == ("active", 6)
    noted = ledger.read_now(lambda db: actions.history(db, 9))
    assert (noted[-1].action, noted[-1].subject, noted[-1].reason) == (
        "want-config",
        name,
        BY.reason,
    )
    with pytest.raises(OperatorError, match="no terminal"):
        ledger.write_now(partial(fleet.want, terminal_id="x", changes={"a.b": 1}, by=BY))


def test_what_a_terminal_says_changes_nothing_that_is_wanted(
    ledger: Ledger, registry_rows: Registry
) -> None:
    name = registry_rows.terminal_id
    ledger.write_now(
        partial(fleet.want, terminal_id=name, changes={"reader.port": "/dev/a"}, by=BY)
    )
    for outcome, reason in (("refused", "no such port"), ("applied", None)):
        said = ConfigReport(
            terminal_id=name,
            at=from_ms(NOW_MS),
            version=1,
            outcome=outcome,  # type: ignore[arg-type]  # one of the two
            reason=reason,
            applied_version=1,
            settings={"reader.port": "/dev/b", "lights.pins": (1, 2)},
        )
        ledger.write_now(partial(fleet.report, said=said, now_ms=NOW_MS))
        health = ledger.read_now(partial(fleet.health_of, terminal_ids=[name]))[name]
        assert health.reported is not None
        assert (health.reported.outcome, health.reported.reason) == (outcome, reason)
        assert health.reported.settings["lights.pins"] == [1, 2]
        assert health.wanted is not None
        assert health.wanted.settings == {"reader.port": "/dev/a"}


def test_one_diagnosis_at_a_time_and_only_the_last_is_answered(
    ledger: Ledger, registry_rows: Registry
) -> None:
    name = registry_rows.terminal_id
    ask = partial(fleet.ask, terminal_id=name)
    first = ledger.write_now(partial(ask, by=BY))
    with pytest.raises(fleet.DiagnosisRunsError):
        ledger.write_now(partial(ask, by=BY))
    untold = partial(fleet.untold, terminal_ids=[name], now_ms=NOW_MS)
    assert ledger.read_now(untold) == [first]
    ledger.write_now(partial(fleet.told, asked=first, now_ms=NOW_MS))
    assert ledger.read_now(untold) == []
    ledger.write_now(partial(fleet.give_up, asked=first, now_ms=NOW_MS))
    second = ledger.write_now(partial(ask, by=BY))
    said = partial(fleet.answer, terminal_id=name, signature="s", now_ms=NOW_MS + 5)
    answers = [(first.id, "{}"), (second.id, "{}"), (second.id, "{}"), (second.id, "{1}")]
    taken = [
        ledger.write_now(partial(said, diagnosis_id=which, body=body)) for which, body in answers
    ]
    assert taken == [False, True, True, False]  # the third is the second's repetition
    found = ledger.read_now(partial(fleet.diagnosis_of, terminal_id=name))
    assert found is not None
    assert (found.report, found.answered_at_ms) == ("{}", NOW_MS + 5)
    ledger.write_now(lambda db: registry.revoke_terminal(db, name))
    with pytest.raises(OperatorError, match="is revoked"):
        ledger.write_now(partial(ask, by=BY))
