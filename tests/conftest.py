"""How property tests run, a true count of their examples at the end, and runs to be tried."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.drawn import results, write_inputs
from tests.extended import Installed

# Helpers that assert say what differs, as tests do.
pytest.register_assert_rewrite(
    "tests.tried", "tests.bad_input_rows", "tests.bad_input_settings", "tests.odd_input_rows"
)
from tests.tried import Tried  # noqa: E402

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
    # A shell lets what it starts in the background ignore Ctrl-C, which some tests are about.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """Inputs, a finished run of them, and its results."""
    folder = tmp_path_factory.mktemp("template")
    write_inputs(folder, digest="as ingested")
    tried = Tried(folder)
    assert tried() == 0
    return folder, results(tried.root)


@pytest.fixture(autouse=True)
def no_report(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the report to the tests that are about it: half a second for each of many runs."""
    if "report" not in request.node.path.name:
        monkeypatch.setattr("workers.report.write_report", lambda plan: plan.run.report)


@pytest.fixture
def tried(
    template: tuple[Path, dict[str, str]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Tried:
    """A run that has not begun."""
    shutil.copytree(template[0] / "data.zarr", tmp_path / "data.zarr")
    return Tried(tmp_path, capsys)


@pytest.fixture
def finished(tried: Tried, template: tuple[Path, dict[str, str]]) -> Tried:
    """A run that is done."""
    shutil.copytree(template[0] / "runs", tried.folder / "runs")
    return tried


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Installed]:
    """Nothing is installed yet."""
    made = Installed(tmp_path / "packages", monkeypatch)
    yield made
    made.anew()


@pytest.fixture
def lab(packages: Installed) -> Installed:
    """The example of `tests/extension`."""
    return packages.tiny_lab()
