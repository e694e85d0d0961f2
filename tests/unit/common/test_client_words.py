"""Whatever the gateway refuses, its client says what to do next."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args, get_type_hints

import taprail_gateway
from taprail_common.client.errors import WHAT_TO_DO, WHAT_TO_DO_WHEN_DECLINED
from taprail_gateway.authorize import Decline

API = Path(taprail_gateway.__file__).parent / "api"
STATUS_AND_CODE = re.compile(r'\(\s*[45][0-9]{2},\s*"([a-z_]+)"')


def test_every_reason_of_a_decline() -> None:
    kinds = get_args(get_type_hints(Decline)["reason"])
    codes = {str(reason) for kind in kinds for reason in kind}
    assert len(codes) > 20
    assert codes == WHAT_TO_DO_WHEN_DECLINED.keys()


def test_every_code_that_the_edge_answers_with() -> None:
    source = "".join(path.read_text() for path in API.glob("*.py"))
    codes = set(STATUS_AND_CODE.findall(source))
    assert len(codes) > 10
    assert codes <= WHAT_TO_DO.keys()
