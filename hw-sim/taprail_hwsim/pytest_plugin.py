"""Fixtures for whoever tests a terminal: simulated readers. Ask for them in a conftest.py:

    pytest_plugins = ["taprail_hwsim.pytest_plugin"]

A test that needs pcscd is skipped where there is none; with CI set it fails instead.
"""

from __future__ import annotations

import importlib.util
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from taprail_hwsim.faults import FAULTS, Fault
from taprail_hwsim.pads import KINDS, Pad, PcscPad, Pn532Pad, pcsc_pad, pn532_pad
from taprail_hwsim.pcsc import Pcscd, PcscMissingError


@pytest.fixture(scope="session")
def pcscd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pcscd]:
    """A pcscd with a virtual reader, for all tests of this process."""
    try:
        _need_pyscard()
        daemon = Pcscd(tmp_path_factory.mktemp("pcscd"))
        daemon.__enter__()
    except PcscMissingError as exc:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(exc))
    with pytest.MonkeyPatch.context() as patch, daemon:
        for name, value in daemon.environment.items():
            patch.setenv(name, value)
        yield daemon


def _need_pyscard() -> None:
    if importlib.util.find_spec("smartcard") is None:
        raise PcscMissingError("no pyscard here: pip install 'taprail[pcsc]'")


@pytest.fixture
def pn532(tmp_path: Path) -> Iterator[Pn532Pad]:
    """A PN532 on a serial port."""
    with pn532_pad(tmp_path) as pad:
        yield pad


@pytest.fixture
def pcsc(pcscd: Pcscd) -> Iterator[PcscPad]:
    """A contactless PC/SC reader."""
    with pcsc_pad(pcscd) as pad:
        yield pad


@pytest.fixture(params=KINDS)
def pad(request: pytest.FixtureRequest) -> Pad:
    """A reader of each kind, one after the other."""
    chosen: Pad = request.getfixturevalue(request.param)
    return chosen


@pytest.fixture(params=list(FAULTS.values()), ids=list(FAULTS))
def fault(request: pytest.FixtureRequest) -> Fault:
    """Each fault of the vocabulary, one after the other; `fault.play(scene, card)` plays it."""
    chosen: Fault = request.param
    return chosen


@pytest.fixture
def fault_rng(request: pytest.FixtureRequest) -> random.Random:
    """For a `Scene`: the same numbers in each run of the same test."""
    return random.Random(request.node.nodeid)
