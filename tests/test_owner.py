"""Telling whether a supervisor is still there."""

import os
import subprocess
import sys
from dataclasses import replace

import psutil
import pytest

from hpsearch.search import owner
from hpsearch.search.owner import Owner, Watch


@pytest.mark.parametrize("outage", [0.0, 4.0, 90.0, 3600.0])
def test_nobody_is_taken_for_dead_within_an_outage_that_it_survives(outage: float) -> None:
    found = replace(Owner.this_process(), outage=outage)
    # A beat may have been due at the outage's begin, and comes a moment after its end.
    assert found.grace >= outage + 2 * found.heartbeat
    assert Owner.from_dict(found.as_dict()) == found


def test_a_process_is_known_dead_once_it_has_ended_or_its_id_is_anothers() -> None:
    alive = Owner.this_process()
    assert not alive.is_known_dead()
    assert replace(alive, started=alive.started - 100).is_known_dead()
    assert not replace(alive, host="elsewhere", started=1.0).is_known_dead()
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert replace(alive, pid=ended.pid).is_known_dead()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the start is told by the clock")
def test_setting_the_clock_kills_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    alive = Owner.this_process()
    created = psutil.Process(os.getpid()).create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: created + 3600)
    assert not alive.is_known_dead()


def test_a_heartbeat_stands_still_while_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(owner.time, "monotonic", lambda: now)
    watch = Watch(gap=2.0)
    assert watch.unchanged_seconds(1) == 0.0
    for seconds in range(5):
        now = 100.0 + seconds
        watch.observe({1: "a", 2: f"b{seconds}"})
    assert (watch.unchanged_seconds(1), watch.unchanged_seconds(2), watch.unchanged_seconds(3)) == (4.0, 0.0, 0.0)
    # Away for too long to know what happened meanwhile.
    now = 110.0
    watch.observe({1: "a"})
    assert watch.unchanged_seconds(1) == 0.0
