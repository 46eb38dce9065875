"""A pytest plugin that finds what relies on a thread being quick.

    PYTHONPATH=.ci python -m pytest -p pauses

Every method of the module's classes pauses before it begins: seldom, at random, for up
to PAUSES_MAX_S and PAUSES_MOST times a test, as if its thread had lost the processor,
also in daemons that are forks of the tests. A test that fails here and not without it
has found a race, in the daemon or in itself. Some ten suites side by side find what one
does not.
"""

from __future__ import annotations

import functools
import inspect
import os
import random
import sys
import time
from typing import Any, Callable

SHARE = float(os.environ.get("PAUSES_SHARE", "0.001"))
MAX_S = float(os.environ.get("PAUSES_MAX_S", "0.5"))
MOST = int(os.environ.get("PAUSES_MOST", "40"))
# Not the module's own generator, which tests seed.
dice = random.Random()
left = [MOST]
os.register_at_fork(after_in_child=dice.seed)


def pausing(method: Callable[..., Any]) -> Callable[..., Any]:
    """The method, after a pause now and then."""

    @functools.wraps(method)
    def paused(*arguments: Any, **named: Any) -> Any:
        if left[0] > 0 and dice.random() < SHARE:
            left[0] -= 1
            time.sleep(dice.random() * MAX_S)
        return method(*arguments, **named)

    return paused


def pytest_runtest_setup() -> None:
    """Let the next test pause as often as this one."""
    left[0] = MOST


def pytest_configure(config: Any) -> None:
    """Put a pause before every method, before the tests import the module."""
    sys.path.insert(0, str(config.rootpath))
    import taskrunnerd

    for owner in vars(taskrunnerd).values():
        if inspect.isclass(owner) and owner.__module__ == taskrunnerd.__name__:
            for name, method in list(vars(owner).items()):
                if inspect.isfunction(method) and not name.startswith("__"):
                    setattr(owner, name, pausing(method))
