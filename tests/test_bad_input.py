"""Every bad input of the list in RELIABILITY.md, section 5, is refused in a few clear lines.

Rows 1 to 49 and 66 to 70, as far as they concern what exists: volumes, affinities, labels, masks,
regions, run files, machines, outputs and scores. Elsewhere, or not built yet:

- 9, 13: small and constant raw is predicted: tests/test_predict.py.
- 12, 35 to 37 for source files, 53 to 65: the door for data of others,
  tests/test_ingest_refusals.py.
- 34: halos follow from the offsets and the rule; nobody can set one (tests/test_tiling.py).
- 38: every label on disk is uint64 (tests/test_geometry.py, tests/test_ingest_formats.py).
- 46: the convention for 0, against scikit-image: tests/test_scores.py.
- 70, `--overwrite`: pea ingest, tests/test_ingest_destination.py.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pipeline.config import checked_settings, dump_settings, load_settings, load_yaml
from pipeline.errors import PipelineError
from tests.bad_input_predict import REFUSED_PREDICT
from tests.bad_input_rows import Bad, Case, Fine
from tests.bad_input_settings import REFUSED_SETTINGS
from tests.bad_input_volumes import REFUSED_VOLUMES
from tests.drawn import files_state, run_tree, write_inputs
from tests.odd_input_rows import REFERENCE, WORKS, scores_of
from workers import cli

REFUSED = (*REFUSED_VOLUMES, *REFUSED_SETTINGS, *REFUSED_PREDICT)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Inputs that nobody has spoilt yet."""
    folder = tmp_path_factory.mktemp("template")
    write_inputs(folder)
    case = Case(folder)
    assert cli.main(case.words()) == 0
    REFERENCE.update(scores_of(case))
    shutil.rmtree(case.runs)
    return folder


@pytest.fixture
def case(template: Path, tmp_path: Path) -> Case:
    shutil.copytree(template / "data.zarr", tmp_path / "data.zarr")
    return Case(tmp_path)


@pytest.fixture(autouse=True)
def plain_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows say what a CPU without bf16 refuses, whatever this one is."""
    monkeypatch.setattr("pipeline.hardware.cpu_kind", lambda: "AuthenticAMD avx2 avx fma")


@pytest.fixture
def raised(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[BaseException]]:
    """What the command line raised before it became a message."""
    errors: list[BaseException] = []
    app = cli.app

    def recorded(*words: Any, **options: Any) -> object:
        try:
            return app(*words, **options)
        except BaseException as error:
            errors.append(error)
            raise

    monkeypatch.setattr(cli, "app", recorded)
    return errors


def name_of(row: Bad | Fine) -> str:
    return f"{row.row}: {row.what}"


@pytest.mark.filterwarnings("ignore")  # of the libraries, about what they are given here
@pytest.mark.parametrize("bad", REFUSED, ids=name_of)
def test_bad_input_is_refused_in_a_few_lines_and_nothing_is_written(
    bad: Bad, case: Case, raised: list[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    bad.spoil(case)
    words = case.words(*bad.changes)
    raised.clear()
    capsys.readouterr()
    before = files_state(case.folder)
    started = time.process_time()
    status = cli.main(words)
    seconds = time.process_time() - started
    said = capsys.readouterr()
    lines = said.err.strip().splitlines()

    assert status == 1, said
    assert len(raised) == 1
    assert isinstance(raised[0], bad.kind), repr(raised[0])
    assert lines[0].startswith("error: ")
    assert 1 <= len(lines) <= 4, said.err
    assert max(len(line) for line in lines) < 600, said.err
    assert "Traceback" not in said.err + said.out
    for word in bad.words:
        assert word in said.err, said.err
    assert not (case.folder / "executed").exists()
    if bad.scans:
        assert not (case.root / "scores.json").exists()
    else:
        assert files_state(case.folder) == before
        assert seconds < 2, f"metadata show it, yet it took {seconds:.1f} s"


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("fine", WORKS, ids=name_of)
def test_odd_input_works(fine: Fine, case: Case, capsys: pytest.CaptureFixture[str]) -> None:
    fine.spoil(case)
    words = case.words()
    capsys.readouterr()
    status = cli.main(words)
    said = capsys.readouterr()
    assert status == 0, said.err
    assert "Traceback" not in said.err
    fine.check(case, said.out)


def test_count_of_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = sorted({int(row.row) for row in (*REFUSED, *WORKS)})
    with capsys.disabled():
        print(
            f"\nbad input: {len(REFUSED)} ways refused and {len(WORKS)} odd ones that work, "
            f"of {len(rows)} rows: {rows}"
        )
    assert len(REFUSED) + len(WORKS) >= 120


VALID = yaml.safe_dump(run_tree(Path("data.zarr")))
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-3, 3),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["..", "", "\0", "1e400", "2001-02-30", "nan", "*a", "<<", "a/b"]),
    st.dates(),
    st.binary(max_size=4),
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = st.sampled_from(
    [
        "run", "machine", "run.name", "run.data", "run.data.affinities", "run.data.offsets",
        "run.data.labels", "run.data.roi", "run.data.roi.offset", "run.data.roi.shape",
        "run.data.mask", "run.fragments", "run.fragments.narrow_nm", "run.fragments.per_section",
        "run.agglomerate", "run.agglomerate.threshold", "run.agglomerate.dust_vx",
        "run.agglomerate.method", "run.agglomerate.beta", "run.agglomerate.domain_vx",
        "run.evaluate.thresholds", "machine.runner", "machine.edges", "machine.edges.workers",
        "machine.edges.block_vx", "machine.edges.memory_gb", "machine.edges.timeout_s", "new",
    ]
)  # fmt: skip


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(KEYS, VALUES), min_size=1, max_size=3))
@example([("run.data.offsets", [[float("inf"), 0, 0]])])
@example([("run.data.roi.offset", [True, 1, 1])])
@example([("run.evaluate.thresholds", {"a": 1})])
def test_mutated_run_files_are_read_or_refused(changes: list[tuple[str, Any]]) -> None:
    tree = yaml.safe_load(VALID)
    for name, value in changes:
        parent = tree
        for part in name.split(".")[:-1]:
            parent = parent.get(part) if isinstance(parent.get(part), dict) else {}
        parent[name.rpartition(".")[2]] = value
    with contextlib.suppress(PipelineError):
        read = checked_settings(load_yaml(yaml.dump(tree), "run.yaml"), "run.yaml")
        assert checked_settings(load_yaml(dump_settings(read), "again"), "again") == read


@settings(max_examples=200, deadline=None)
@given(st.integers(0, len(VALID) - 1), st.text(max_size=3), st.integers(0, 3))
def test_mutated_text_of_run_files_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, place: int, inserted: str, dropped: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "run.yaml"
    path.write_bytes((VALID[:place] + inserted + VALID[place + dropped :]).encode(errors="replace"))
    with contextlib.suppress(PipelineError):
        load_settings(path)
