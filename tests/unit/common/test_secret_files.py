"""Files with secrets: what is refused, and with which advice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from taprail_common import secret_files
from taprail_common.errors import OperatorError
from taprail_common.secret_files import read_secret_file, secret_file_problem
from taprail_common.signing import write_secret_file

SECRET = "a secret word"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "secret"
    write_secret_file(path, SECRET)
    return path


def test_one_for_its_owner_alone_is_read(file: Path) -> None:
    assert read_secret_file(file, "key") == SECRET
    assert secret_file_problem(file) is None


def test_a_link_counts_as_what_it_points_to(file: Path) -> None:
    link = file.with_name("link")
    link.symlink_to(file)
    assert read_secret_file(link, "key") == SECRET
    file.chmod(0o640)
    with pytest.raises(OperatorError, match="may be read by others"):
        read_secret_file(link, "key")
    file.unlink()
    with pytest.raises(OperatorError, match="is missing"):
        read_secret_file(link, "key")


@pytest.mark.parametrize("mode", [0o601, 0o602, 0o604, 0o610, 0o620, 0o640, 0o644, 0o666])
def test_one_that_others_may_touch_is_refused(file: Path, mode: int) -> None:
    file.chmod(mode)
    with pytest.raises(OperatorError, match="may be read by others") as refused:
        read_secret_file(file, "key")
    assert refused.value.fix == f"chmod 600 {file}"
    assert secret_file_problem(file) == f"may be read by others, chmod 600 {file}"


def be_a_folder(path: Path) -> None:
    path.mkdir(0o700)


def be_a_pipe(path: Path) -> None:
    os.mkfifo(path, 0o600)


def be_a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("be", [be_a_folder, be_a_pipe, be_a_device])
def test_what_is_no_file_is_refused_at_once(tmp_path: Path, be: Callable[[Path], None]) -> None:
    path = tmp_path / "odd"
    be(path)
    with pytest.raises(OperatorError, match="is no regular file") as refused:
        read_secret_file(path, "key")
    assert refused.value.fix == "name the file itself"
    assert secret_file_problem(path) == "is no regular file, name the file itself"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00\x01" * 8, b"a" * 4_097])
def test_what_no_secret_looks_like_is_damaged(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    with pytest.raises(OperatorError, match="is damaged") as refused:
        read_secret_file(file, "key")
    assert refused.value.fix == "restore it from its backup"


def test_what_is_missing_says_so(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"^key .*none is missing: create or restore it$"):
        read_secret_file(tmp_path / "none", "key")
    assert secret_file_problem(tmp_path / "none") is not None


def test_a_credential_of_systemd_is_guarded_by_its_folder(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.chmod(0o440)  # what an ACL for the service's user looks like
    monkeypatch.setattr(secret_files, "_CREDENTIALS", file.parent.parent)
    assert read_secret_file(file, "key") == SECRET
    assert secret_file_problem(file) is None
    monkeypatch.setattr(secret_files, "_CREDENTIALS", file.parent)
    with pytest.raises(OperatorError, match="may be read by others"):
        read_secret_file(file, "key")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_file_of_another_user_says_whose_it_must_be(file: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path;"
        "from taprail_common.secret_files import read_secret_file;"
        "os.setuid(65534); read_secret_file(Path(sys.argv[1]), 'key')"
    )
    asked = [sys.executable, "-c", code, str(file)]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    assert "cannot be read (Permission denied): give it to the user that runs this" in done.stderr
