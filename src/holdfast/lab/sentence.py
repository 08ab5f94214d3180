"""What the lab says when something is not so, and how it waits."""

import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")

PAUSE_S = 0.02


class LabError(Exception):
    """The lab itself could not do what it was asked to: nothing is said about the router under test."""


class NotSo(AssertionError):
    """A sentence about the lab's hosts is false; the message is the sentence and what was seen instead."""


def eventually(check: Callable[[], Value], sentence: str, timeout_s: float = 10.0) -> Value:
    """Ask again until the answer is truthy and return it; NotSo with `sentence` after `timeout_s`."""
    end = time.monotonic() + timeout_s
    while True:
        answer = check()
        if answer:
            return answer
        if time.monotonic() > end:
            raise NotSo(f"{sentence}: not within {timeout_s:g} s; last seen: {answer!r}")
        time.sleep(PAUSE_S)
