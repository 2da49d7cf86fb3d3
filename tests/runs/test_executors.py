"""Who runs the pieces: this process, others beside it, Ray, or the caller's own."""

from __future__ import annotations

import math
import os
import signal
import threading
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from bre import InputError
from bre.runs.executors import ended, submitter


def answers(submit, count: int, ahead: int) -> dict[int, int]:
    return {n: future.result() for n, future in ended(submit, ((math.factorial, n) for n in range(count)), ahead)}


EXPECTED = {n: math.factorial(n) for n in range(6)}


def test_every_executor_answers_alike() -> None:
    with submitter() as submit:
        assert answers(submit, 6, 2) == EXPECTED
    with submitter("local", 2) as submit:
        assert answers(submit, 6, 3) == EXPECTED
    with ThreadPoolExecutor(2) as pool, submitter(pool.submit) as submit:
        assert answers(submit, 6, 2) == EXPECTED


def test_ray_answers_alike() -> None:
    pytest.importorskip("ray")
    with submitter("ray") as submit:
        assert answers(submit, 6, 2) == EXPECTED
        with pytest.raises(ValueError, match="not defined for negative"):
            submit(math.factorial, -1).result()


def test_in_this_process_a_piece_is_yielded_before_the_next_begins() -> None:
    begun: list[int] = []
    with submitter() as submit:
        for n, future in ended(submit, ((begun.append, n) for n in range(3)), 3):
            assert begun == list(range(n + 1))
            future.result()


def test_no_more_pieces_than_asked_for_are_taken_ahead() -> None:
    futures: list[Future[int]] = []

    def submit(function, *arguments):
        futures.append(Future())
        if len(futures) == 2:  # the second ends first
            threading.Timer(0.05, futures[1].set_result, [7]).start()
        return futures[-1]

    number, future = next(ended(submit, ((math.factorial, n) for n in range(9)), 2))
    assert (number, future.result(), len(futures)) == (1, 7, 2)


def test_a_piece_that_fails_is_a_future_that_failed() -> None:
    with submitter() as submit, pytest.raises(ValueError, match="not defined for negative"):
        submit(math.factorial, -1).result()


def test_where_a_process_was_killed_the_next_piece_gets_another() -> None:
    with submitter("local", 2) as submit:
        with pytest.raises(Exception, match="terminated abruptly"):
            submit(os.kill, submit(os.getpid).result(), signal.SIGKILL).result()
        assert submit(math.factorial, 5).result() == 120


@pytest.mark.parametrize(
    ("executor", "jobs", "ray_address", "message"),
    [
        ("cluster", 1, None, "executor must be 'local' or 'ray'"),
        (None, 1, None, "executor must be"),
        ("local", 0, None, "jobs must be an integer from 1"),
        ("local", True, None, "jobs must be an integer from 1"),
        ("ray", 2, None, "argument jobs"),
        ("local", 1, "auto", "argument ray_address"),
        ("ray", 1, "", "expected 'auto' or HOST:PORT"),
    ],
)
def test_bad_executors_are_refused(executor, jobs, ray_address, message) -> None:
    with pytest.raises(InputError, match=message), submitter(executor, jobs, ray_address):
        pass
