"""Who may change a terminal, what is written down of it, and that a cut leaves one that starts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from taprail_common.errors import LinkError
from taprail_common.signing import Domain, gateway_id, public_key_text, sign
from taprail_common.technicians import ABOUT_ROSTER, Roster, Technician
from taprail_terminal import atomic_file
from taprail_terminal.config import load_config
from taprail_terminal.console import reset, trial
from taprail_terminal.console.answers import CommandResult
from taprail_terminal.console.commands import Commands
from taprail_terminal.console.config_edit import with_value
from taprail_terminal.console.desk import Desk
from taprail_terminal.console.proof import Proof, prove
from taprail_terminal.console.technicians import MAX_AGE_MS, Technicians
from taprail_terminal.identity import Identity
from taprail_terminal.key_rotation import make_next_key, next_key_file
from taprail_terminal.outbox import Evidence, RequestState
from taprail_terminal.sale import ReaderBack
from tests.support.console_probes import make_desk
from tests.support.manual_clock import ManualClock
from tests.unit.terminal.test_console_commands import sold

NOW_MS = 1_800_000_000_000


class Office:
    """The gateway's side of technicians; None of a list is a gateway out of reach."""

    def __init__(self) -> None:
        self.key = SigningKey.generate()
        self.tech = SigningKey.generate()
        self.names: list[str] | None = ["ana"]
        self.issued_at = NOW_MS

    async def list(self) -> Evidence:
        if self.names is None:
            raise LinkError("no gateway")
        public = public_key_text(self.tech.verify_key)
        roster = Roster(
            gateway_id=gateway_id(self.key.verify_key),
            terminal_id="term_test",
            issued_at=self.issued_at,
            technicians=tuple(Technician(name=name, public_key=public) for name in self.names),
        )
        body = roster.model_dump_json(by_alias=True).encode()
        return Evidence(body, sign(self.key, Domain.COMMAND, body, about=ABOUT_ROSTER))


class Bench:
    """A terminal with its technician."""

    def __init__(self, desk: Desk, office: Office, clock: ManualClock) -> None:
        self.office, self.clock = office, clock
        file = desk.config.terminal.state_dir / "technicians.json"
        technicians = Technicians(file, office.key.verify_key, "term_test", office.list, clock)
        self.desk = replace(desk, technicians=technicians)
        self.commands = Commands(self.desk)

    async def give(self, *words: str) -> CommandResult:
        return await self.commands.carry_out(words, await self.proof(*words))

    async def proof(self, *words: str) -> Proof:
        nonce = (await self.commands.run("challenge")).data["nonce"]
        return prove(self.office.tech, "term_test", nonce, words)


@pytest.fixture
async def bench(tmp_path: Path) -> Bench:
    office = Office()
    desk = await make_desk(tmp_path, gateway_key=office.key)
    desk.agent.apply(ReaderBack())
    return Bench(desk, office, ManualClock(NOW_MS))


async def test_a_change_needs_a_technician_and_is_written_down(bench: Bench) -> None:
    refused = await bench.commands.run("queue retry")
    assert refused.exit_code == 2
    assert "taprail diag --key" in refused.text
    assert (await bench.give("queue", "retry")).exit_code == 0
    told = await bench.desk.journal.untold()
    assert told is not None
    assert [(each.technician, each.command, each.outcome) for each in told.changes] == [
        ("ana", "queue retry", "done")
    ]
    await bench.desk.journal.mark_told(told.changes[-1].seq)
    assert await bench.desk.journal.untold() is None


async def test_a_proof_is_good_once_for_one_command_and_for_two_minutes(bench: Bench) -> None:
    proof = await bench.proof("queue", "retry")
    other = await bench.commands.carry_out(["mode", "safe"], proof)
    assert "not about this command" in other.text
    again = await bench.commands.carry_out(["queue", "retry"], proof)
    assert "used up" in again.text
    late = await bench.proof("queue", "retry")
    await bench.clock.advance(121)
    assert "two minutes" in (await bench.commands.carry_out(["queue", "retry"], late)).text
    bench.office.tech = SigningKey.generate()
    bench.office.names = []
    assert "no technician's" in (await bench.give("queue", "retry")).text


async def test_who_is_revoked_is_refused_at_once_and_does_not_come_back(bench: Bench) -> None:
    assert (await bench.give("queue", "retry")).exit_code == 0
    bench.office.names, bench.office.issued_at = [], NOW_MS + 1
    assert "revoked" in (await bench.give("queue", "retry")).text
    bench.office.names, bench.office.issued_at = ["ana"], NOW_MS  # an old list, said again
    assert "revoked" in (await bench.give("queue", "retry")).text


async def test_without_a_network_the_copy_serves_for_a_week(bench: Bench) -> None:
    bench.office.names = None
    assert "no list of technicians yet" in (await bench.give("queue", "retry")).text
    bench.office.names = ["ana"]
    assert (await bench.give("queue", "retry")).exit_code == 0
    bench.office.names = None
    await bench.clock.advance(MAX_AGE_MS // 1000 - 1)
    assert (await bench.give("queue", "retry")).exit_code == 0
    await bench.clock.advance(2)
    assert "older than a week" in (await bench.give("queue", "retry")).text


async def test_a_copy_that_somebody_changed_is_worth_nothing(bench: Bench) -> None:
    await bench.give("queue", "retry")
    file = bench.desk.config.terminal.state_dir / "technicians.json"
    stranger = public_key_text(SigningKey.generate().verify_key)
    own = public_key_text(bench.office.tech.verify_key)
    file.write_text(file.read_text().replace(own, stranger))
    bench.office.names = None
    assert (await bench.give("queue", "retry")).exit_code == 2


async def test_safe_mode_takes_no_cards_until_field_mode(bench: Bench) -> None:
    assert (await bench.give("mode", "safe")).data["phase"] == "ready"  # the probes' own word
    assert bench.desk.agent.state.phase.value == "out_of_service"
    assert bench.desk.reader.trouble == "a technician is at work"
    assert (await bench.give("mode", "sell")).exit_code == 2


async def test_a_setting_is_on_trial_and_another_terminals_file_is_refused(bench: Bench) -> None:
    file = bench.desk.config.source
    assert file is not None
    before = file.read_text()
    exported = (await bench.commands.run("config export")).data["toml"]
    assert "passw0rd" not in exported
    other = await bench.give("config", "import", exported.replace("term_test", "till-9"))
    assert "another terminal's" in other.text
    broken = await bench.give("config", "import", exported + "\n[reader]\nprot = 1\n")
    assert "perhaps port is meant" in broken.text
    assert file.read_text() == before
    done = await bench.give("config", "set", "reader.port", "/dev/ttyUSB1")
    assert done.exit_code == 0, done.text
    assert load_config(file).reader.port == "/dev/ttyUSB1"
    assert "on trial already" in (await bench.give("config", "import", exported)).text
    await asyncio.wait_for(bench.desk.pending.restart.wait(), 5)
    trial.at_start(file)  # it starts, and does not come up
    trial.at_start(file)
    assert file.read_text() == before
    assert not trial.is_on(file)


async def test_a_configuration_that_came_up_is_kept(bench: Bench) -> None:
    file = bench.desk.config.source
    assert file is not None
    await bench.give("config", "set", "display.language", "vi")
    trial.at_start(file)
    trial.came_up(file)
    trial.at_start(file)
    assert load_config(file).display.language.value == "vi"


async def test_a_factory_reset_takes_two_steps_and_no_unsent_payment(bench: Bench) -> None:
    await sold(bench.desk)
    assert "1 payments have no end yet" in (await bench.give("factory-reset")).text
    await bench.desk.outbox.resolve("req_0", RequestState.DECLINED, Evidence(b"{}", "c2ln"), NOW_MS)
    code = (await bench.give("factory-reset")).data["code"]
    assert "not the one" in (await bench.give("factory-reset", "000000x")).text
    assert "not the one" in (await bench.give("factory-reset", code)).text  # one try only
    code = (await bench.give("factory-reset")).data["code"]
    assert (await bench.give("factory-reset", code)).data["restarts"] is True


def test_values_are_changed_in_place_or_refused() -> None:
    text = '# mine\n[a]\nx = 1 # one\ny = "z"\n\n[b]\nl = [1,\n 2]\n'
    assert with_value(text, "a.x", "2") == text.replace("x = 1 # one", "x = 2")
    assert with_value(text, "c.k", "word").endswith('\n[c]\nk = "word"\n')
    assert with_value(text, "b.n", "true") == text.replace("[b]\n", "[b]\nn = true\n")
    with pytest.raises(Exception, match="cannot be edited"):
        with_value(text, "b.l", "[3]")


class PowerCut(BaseException):
    """The power went; nothing after it is executed."""


class Mains:
    """Cuts the power before the nth file operation."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.left = -1
        for owner, name in (
            (os, "open"),
            (os, "fsync"),
            (Path, "replace"),
            (Path, "unlink"),
            (atomic_file, "sync_folder"),
        ):
            patch.setattr(owner, name, self._counted(getattr(owner, name)))

    def _counted(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            if self.left == 0:
                raise PowerCut
            self.left -= 1
            return operation(*args, **kwargs)

        return counted


def cut_everywhere(
    monkeypatch: pytest.MonkeyPatch, work: Callable[[], object], check: Callable[[], object]
) -> int:
    """Do the work with a cut before each of its file operations, and check after each; gives how
    many there were."""
    with monkeypatch.context() as patch:
        mains = Mains(patch)
        for cut_before in range(200):
            mains.left = cut_before
            try:
                work()
            except PowerCut:
                mains.left = -1
                check()
                continue
            mains.left = -1
            check()
            return cut_before
    raise AssertionError("it never ends")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return asyncio.run(make_desk(tmp_path))


def starts(file: Path) -> None:
    """What each start does before anything is open."""
    trial.at_start(file)
    config = load_config(file)
    reset.at_start(config, NOW_MS)
    Identity.load(config.terminal.id, config.key_file)


def test_an_import_that_is_cut_off_leaves_a_terminal_that_starts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.config.source
    assert file is not None
    old = file.read_bytes()
    new = with_value(old.decode(), "reader.port", "/dev/x").encode()

    def check() -> None:
        starts(file)
        assert file.read_bytes() in (old, new)
        starts(file)  # it did not come up
        assert file.read_bytes() == old
        assert not trial.is_on(file)

    cuts = cut_everywhere(monkeypatch, lambda: trial.begin(file, new, like=desk.config), check)
    assert cuts > 15

    def check_undone() -> None:
        starts(file)
        assert file.read_bytes() == old

    trial.begin(file, new, like=desk.config)
    trial.at_start(file)
    cut_everywhere(monkeypatch, lambda: trial.at_start(file), check_undone)


def test_a_reset_that_is_cut_off_goes_on_at_the_next_start(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = desk.config.source
    assert file is not None
    config = desk.config
    old_key = config.key_file.read_bytes()
    config.outbox_file.write_bytes(b"")
    config.device_file.write_text("{}")

    def work() -> None:
        reset.ask(config)
        reset.at_start(config, NOW_MS)

    def check() -> None:
        starts(file)
        assert not (config.terminal.state_dir / "factory-reset").exists()

    assert cut_everywhere(monkeypatch, work, check) > 10
    assert config.key_file.read_bytes() != old_key
    assert not config.outbox_file.exists()
    assert not config.device_file.exists()


def test_a_payment_that_comes_between_stops_the_reset(desk: Desk) -> None:
    async def sell() -> None:
        await sold(desk)
        await desk.outbox.close()

    asyncio.run(sell())
    key = desk.config.key_file.read_bytes()
    reset.ask(desk.config)
    assert not reset.at_start(desk.config, NOW_MS)
    assert desk.config.key_file.read_bytes() == key
    assert desk.config.outbox_file.exists()


def test_a_rotation_that_is_cut_off_leaves_the_key_in_use(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, own = desk.config.source, desk.config.key_file.read_bytes()
    assert file is not None
    beside = next_key_file(desk.config.key_file)

    def check() -> None:
        starts(file)
        assert desk.config.key_file.read_bytes() == own
        assert not beside.exists() or len(beside.read_bytes()) == 65

    cut_everywhere(monkeypatch, lambda: make_next_key(desk.config.key_file), check)
    made = make_next_key(desk.config.key_file)
    assert bytes(make_next_key(desk.config.key_file)) == bytes(made)


def test_words_that_are_no_words_are_refused() -> None:
    assert Proof.of({"technician": 1, "nonce": "x", "signature": "y"}) is None
    assert Proof.of({}) is None
