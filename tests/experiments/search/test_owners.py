"""Who lives and who does not: by the system for processes here, by their beats for those elsewhere."""

import os
import subprocess
import sys
import time

from experiments.search.owners import STALE_S, Heart, Registry, describe_process


def test_this_process_lives_and_an_ended_one_does_not() -> None:
    registry = Registry()
    assert not registry.is_dead(describe_process(), 0)
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    owner = {**describe_process(), "pid": child.pid}
    child.wait()
    assert registry.is_dead(owner, 0)


def test_a_killed_child_that_nobody_has_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    child.kill()
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT) is None:
        time.sleep(0.01)
    assert Registry().is_dead({**describe_process(), "pid": child.pid}, 0)
    child.wait()


def test_another_process_under_the_same_number_is_not_the_owner() -> None:
    owner = describe_process()
    if owner["born"] in {None, "unknown"}:
        return  # this system does not say when a process was started
    assert Registry().is_dead({**owner, "born": "1"}, 0)


def test_a_process_elsewhere_lives_as_long_as_it_beats() -> None:
    now = 0.0
    registry = Registry(lambda: now)
    owner = {**describe_process(), "place": "another machine"}
    for beats in range(4):
        assert not registry.is_dead(owner, beats)
        now += STALE_S - 1
        assert not registry.is_dead(owner, beats)
    now += 2
    assert registry.is_dead(owner, 3)


def test_the_heart_beats_until_the_block_ends() -> None:
    beats: list[int] = []
    with Heart(beats.append, interval_s=0.01):
        while len(beats) < 3:
            time.sleep(0.01)
    seen = list(beats)
    time.sleep(0.05)
    assert beats == seen == list(range(1, len(seen) + 1))
