"""Time of one call on a device."""

import time

import torch

from bench.runtime.clock import busy_seconds, seconds

CPU = torch.device("cpu")


def test_time_of_the_processor_leaves_out_what_others_take():
    """Catches a time that grows when a job waits for cores that others hold: waiting takes no
    processor."""
    assert seconds(lambda: time.sleep(0.2), CPU) >= 0.2
    assert busy_seconds(lambda: time.sleep(0.2), CPU) < 0.1


def test_time_of_the_processor_is_that_of_one_thread(monkeypatch):
    """Catches work of several threads that counts as often as there are threads."""
    clock = iter([1.0, 9.0, 1.0, 9.0])
    monkeypatch.setattr(time, "process_time", lambda: next(clock))
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    one = busy_seconds(lambda: None, CPU)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    assert busy_seconds(lambda: None, CPU) == one / 4 == 2.0
