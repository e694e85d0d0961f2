"""Settlement under every order of events that hypothesis thinks of, the same ones in every run."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Settlement, quiet

RUNS = 41
STEPS_A_RUN = 50

CHECKED = settings(
    max_examples=RUNS,
    stateful_step_count=STEPS_A_RUN,
    derandomize=True,
    database=None,
    deadline=None,
    print_blob=True,
    report_multiple_bugs=False,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.timeout(600)  # a failure is made as short as it can be, which takes minutes
def test_nothing_is_lost_doubled_or_stuck() -> None:
    Settlement.steps = 0
    with quiet():
        run_state_machine_as_test(Settlement, settings=CHECKED)
    assert Settlement.steps >= 2_000
