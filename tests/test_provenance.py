"""What a run notes of the program and the processes that made it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.tried import Tried
from workers import checkout
from workers.memory import peak_bytes

LINUX = Path("/proc/self/status").exists()


def test_the_commit_of_a_checkout_is_known_and_that_it_was_changed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copied = tmp_path / "workers" / "checkout.py"
    copied.parent.mkdir()
    shutil.copy(checkout.__file__, copied)
    monkeypatch.setattr(checkout, "__file__", str(copied))
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)

    def git(*words: str) -> None:
        who = ("-c", "user.name=a", "-c", "user.email=a@b")
        subprocess.run(["git", "-C", str(tmp_path), *who, *words], check=True, capture_output=True)

    assert checkout.commit() is None
    git("init")
    # Somebody else's checkout, with an environment inside.
    git("commit", "--allow-empty", "-m", "theirs")
    assert checkout.commit() is None
    git("add", "workers")
    git("commit", "-m", "ours")
    assert re.fullmatch("[0-9a-f]{40}", str(checkout.commit()))
    copied.write_text("")
    assert re.fullmatch("[0-9a-f]{40}-dirty", str(checkout.commit()))


def test_without_git_no_commit_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert checkout.commit() is None


def test_every_start_of_a_run_notes_its_commit(finished: Tried) -> None:
    (start,) = json.loads((finished.root / "provenance.json").read_text())
    assert start["commit"] is None or re.fullmatch("[0-9a-f]{40}(-dirty)?", start["commit"])


@pytest.mark.skipif(not LINUX, reason="only Linux tells")
def test_the_memory_of_a_process_is_its_own_and_the_most_it_ever_was() -> None:
    held = np.ones(60_000_000, np.uint8)
    largest = peak_bytes()
    assert largest > held.nbytes
    del held
    # The kernel counts pages in batches for each CPU, so a sum may be some of them short.
    assert peak_bytes() > largest - 2_000_000
    program = "from workers.memory import peak_bytes; print(peak_bytes())"
    child = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert 1_000_000 < int(child.stdout) < 60_000_000


def test_every_block_notes_the_memory_of_its_process(finished: Tried) -> None:
    for step in finished.plan.steps:
        records = finished.plan.run.records(step.stage.identity, step.stage.grid.name)
        assert records
        assert all((record.peak_bytes > 0) == LINUX for record in records.values())
