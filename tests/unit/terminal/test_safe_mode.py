"""Starts that came to nothing are counted, and what is shown of a terminal that cannot start."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from taprail_common.errors import ConfigError
from taprail_common.service import ServiceManager
from taprail_terminal.config import DisplayTable, LightsTable
from taprail_terminal.feedback.messages import CATALOGUES, SERVICE_NEEDED, Catalogue, Language
from taprail_terminal.feedback.scene import scene
from taprail_terminal.safe_mode import BAD_STARTS, Starts
from taprail_terminal.sale import Phase, View
from taprail_terminal.service_needed import front_of, shown_when_it_fails

NO_FRONT = '[lights]\ndriver = "none"\n[display]\ndriver = "none"\n'


def begun(folder: Path, times: int) -> list[bool]:
    return [Starts(folder).begin() for _ in range(times)]


def test_after_five_bad_starts_comes_a_safe_one_and_then_one_normal_try(tmp_path: Path) -> None:
    assert begun(tmp_path, BAD_STARTS + 4) == [*[False] * BAD_STARTS, True, False, True, False]


def test_a_start_that_came_up_makes_an_end_of_counting(tmp_path: Path) -> None:
    begun(tmp_path, BAD_STARTS)
    Starts(tmp_path).came_up()
    assert begun(tmp_path, BAD_STARTS) == [False] * BAD_STARTS


@pytest.mark.parametrize("content", [b"", b"many", b"-1", b"\xff\xfe", b"9" * 10_000])
def test_a_damaged_count_keeps_no_terminal_from_starting(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "bad-starts").write_bytes(content)
    is_safe = Starts(tmp_path).begin()
    assert is_safe is content.startswith(b"9")


def test_a_disk_that_keeps_nothing_means_no_safe_mode(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "state"  # nobody can make a folder in a file, not even root
    assert begun(folder, BAD_STARTS + 1) == [False] * (BAD_STARTS + 1)
    Starts(folder).came_up()


@pytest.mark.parametrize("words", CATALOGUES.values(), ids=list(Language))
def test_the_front_says_that_service_is_needed(words: Catalogue) -> None:
    view = View(Phase.OUT_OF_SERVICE, None, "USDC", 6, card_present=False, reason=SERVICE_NEEDED)
    assert scene(view, words).screen.lines == (words["reason.service_needed"],)
    other = View(Phase.OUT_OF_SERVICE, None, "USDC", 6, card_present=False, reason="cable")
    assert scene(other, words).screen.lines == (words["out_of_service.line"],)


def test_of_a_file_that_does_not_hold_the_tables_that_do_are_taken(tmp_path: Path) -> None:
    file = tmp_path / "terminal.toml"
    file.write_text('[terminal]\nwrong = 1\n[lights]\ndriver = "none"\n[display]\ni2c_port = -1\n')
    lights, display = front_of(file)
    assert (lights.driver, display) == ("none", DisplayTable())
    for text in (None, "no TOML ["):
        file.unlink(missing_ok=True)
        if text is not None:
            file.write_text(text)
        assert front_of(file) == (LightsTable(), DisplayTable())


def test_systemd_is_told_why_and_the_error_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "terminal.toml"
    file.write_text(NO_FRONT)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5.0)
        manager = ServiceManager(str(tmp_path / "notify"))
        with pytest.raises(ConfigError), shown_when_it_fails(file, manager, shown_s=0.0):
            raise ConfigError("x.toml", ["one is wrong", "two is,\nas well"])
        said = systemd.recv(500).decode()
    assert said.startswith(
        "STATUS=Service needed: configuration x.toml does not hold: one is wrong"
    )
    assert "\n" not in said
