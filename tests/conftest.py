"""How property tests run, and a true count of their examples at the end."""

from __future__ import annotations

import os
import re
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, Phase, settings

EXAMPLES = pytest.StashKey[dict[str, int]]()

# `ci` draws the same examples every time; `search` draws other and more ones:
# HYPOTHESIS_PROFILE=search pytest
COMMON = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("ci", max_examples=100, derandomize=True, print_blob=True, **COMMON)
settings.register_profile("search", max_examples=1000, print_blob=True, **COMMON)
# For planted mistakes, which only need to be found.
settings.register_profile(
    "find",
    max_examples=100,
    derandomize=True,
    report_multiple_bugs=False,
    phases=[Phase.explicit, Phase.generate],
    **COMMON,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    config.stash[EXAMPLES] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    try:
        return (yield)
    finally:
        # Hypothesis counts what passed, and leaves its sentences on the item.
        phases = getattr(item, "hypothesis_statistics", "")
        passed = sum(int(n) for n in re.findall(r"(\d+) passing", phases))
        if phases:
            item.config.stash[EXAMPLES][item.nodeid] = passed


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    examples = config.stash[EXAMPLES]
    if not examples:
        return
    terminalreporter.section("property tests")
    for name, count in examples.items():
        terminalreporter.write_line(f"{count:6} examples  {name}")
    terminalreporter.write_line(
        f"property tests: {sum(examples.values())} examples of {len(examples)} tests, "
        f"at least {min(examples.values())} each"
    )
