"""The tests notice when the code is wrong: mistakes are planted in a copy of it, one by one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.plant_mistakes import MISTAKES, ROOT, SECONDS, Copy, Mistake, every_test, planted

ROWS: list[str] = []


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Copy]:
    yield Copy(tmp_path_factory.mktemp("planted").resolve())
    print("\n" + "\n".join(ROWS))


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_mistake_can_still_be_planted(mistake: Mistake) -> None:
    text = (ROOT / mistake.path).read_text()
    assert planted(text, mistake) != text


@pytest.mark.slow
def test_the_untouched_copy_passes(copy: Copy) -> None:
    verdict = copy.verdict(every_test(MISTAKES))
    ROWS.append(f"{verdict.seconds:5.1f} s  untouched: passes")
    assert verdict.passed, verdict.output


@pytest.mark.slow
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.name)
def test_a_planted_mistake_is_caught(copy: Copy, mistake: Mistake) -> None:
    verdict = copy.verdict_on(mistake)
    by = ", ".join(test.partition("::")[2] for test in verdict.failed)
    ROWS.append(f"{verdict.seconds:5.1f} s  {mistake.name}: {by}")
    assert verdict.caught, f"{mistake.name} is not caught\n{verdict.output}"
    assert verdict.seconds < SECONDS
