"""The report of a run: one file, with everything there is to say, and nothing to fetch."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.geometry import Nm, Roi
from pipeline.report.charts import THEME, new_figure, svg, training_charts
from pipeline.report.mistakes import Mistake
from pipeline.report.page import Report, page
from pipeline.report.sections import Section
from tests.drawn import SHAPE, write_inputs, write_volume
from tests.tried import Tried
from workers import cli

MAX_BYTES = 5_000_000
PICTURE = re.compile(r'href="data:image/png;base64,([^"]+)"')
SECTIONS = ("sections", "scores", "splits", "merges", "stages", "provenance")


def pictures(html: str) -> list[np.ndarray]:
    """Every picture of a page, decoded."""
    return [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in PICTURE.findall(html)
    ]


def shown(html: str) -> set[str]:
    return set(re.findall(r'<section id="(\w+)"', html))


def test_a_finished_run_has_a_report_of_everything(finished: Tried) -> None:
    assert finished("report", None) == 0
    assert finished.out == f"report: {finished.root / 'report.html'}\n"
    html = (finished.root / "report.html").read_text()
    assert shown(html) == set(SECTIONS)
    scores = json.loads((finished.root / "scores.json").read_text())
    assert f"<dd>{scores['voi']:.3f}</dd>" in html
    assert all(f'<th scope="row">{name}</th>' in html for name in scores["conventions"])
    assert all(f'<th scope="row">{s.stage.name}</th>' in html for s in finished.plan.steps)
    for step in finished.plan.steps:
        assert step.stage.identity.fingerprint in html


def test_a_run_directory_is_as_good_as_a_run_file(finished: Tried) -> None:
    assert cli.main(["report", str(finished.root)]) == 0
    first = (finished.root / "report.html").read_bytes()
    assert shown(first.decode()) == set(SECTIONS)
    assert cli.main(["report", str(finished.root)]) == 0
    assert (finished.root / "report.html").read_bytes() == first


def test_the_page_fetches_nothing_and_runs_nothing(finished: Tried) -> None:
    assert finished("report", None) == 0
    html = (finished.root / "report.html").read_text()
    places = re.findall(r'(?:href|src|url)\s*[=(]\s*["\']?([^"\'\s>)]+)', html)
    assert places
    assert all(place.startswith(("data:", "#")) for place in places)
    assert "<script" not in html
    assert "default-src 'none'" in html


def test_every_panel_shows_something(finished: Tried) -> None:
    assert finished("report", None) == 0
    found = pictures((finished.root / "report.html").read_text())
    # Affinities, fragments, segmentation and truth in three planes, and two of each mistake.
    objects = json.loads((finished.root / "objects.json").read_text())
    mistakes = sum(min(4, len(objects[kind])) for kind in ("splits", "merges"))
    assert len(found) == 3 * 4 + 2 * mistakes
    assert all(np.ptp(image[..., :3]) > 50 for image in found)


def test_panels_of_a_plane_are_aligned(finished: Tried) -> None:
    assert finished("report", None) == 0
    found = pictures((finished.root / "report.html").read_text())
    z, y, x = SHAPE
    assert [image.shape[:2] for image in found[:12]] == [(y, x)] * 4 + [(z, x)] * 4 + [(z, y)] * 4


def test_raw_lies_beneath_labels(finished: Tried) -> None:
    raw = np.random.default_rng(5).integers(0, 2**16, SHAPE, np.uint16)
    write_volume(finished.data / "raw", raw, "raw")
    finished.tree["run"]["data"]["raw"] = str(finished.data / "raw")
    assert finished("report", None) == 0
    html = (finished.root / "report.html").read_text()
    assert '<image id="raw-xy"' in html
    assert html.count('<use href="#raw-xy"/>') == 3


def test_a_run_without_truth_has_a_report_without_scores(tried: Tried) -> None:
    del tried.tree["run"]["data"]["labels"]
    assert tried() == 0
    assert tried.out.splitlines()[-2] == f"report: {tried.root / 'report.html'}"
    html = (tried.root / "report.html").read_text()
    assert shown(html) == {"sections", "stages", "provenance"}
    assert "No scores" in html


def test_a_run_that_is_not_done_has_a_report_of_what_there_is(tried: Tried) -> None:
    tried.upto("fragments_blockwise")
    assert tried("report", None) == 0
    html = (tried.root / "report.html").read_text()
    assert shown(html) == {"sections", "stages", "provenance"}
    assert len(pictures(html)) == 3 * 2


def test_there_is_no_report_of_a_run_that_has_not_begun(tried: Tried) -> None:
    assert tried("report", None) == 1
    assert tried.err == f"error: there is no run at {tried.root}\nMake it: pea run all\n"
    assert not tried.root.exists()


def test_a_problem_of_the_report_is_a_warning(
    tried: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("workers.report.page", full)
    assert tried() == 0
    assert tried.out.splitlines()[-2] == (
        "WARNING: there is no report: OSError: no space left on device"
    )
    assert not list(tried.root.glob("*report*"))


def test_names_of_the_user_are_text_and_not_html(tmp_path: Path) -> None:
    html = page(Report(title="<b>a & b</b>", facts=[("x", "<script>1</script>")]))
    assert "&lt;b&gt;a &amp; b&lt;/b&gt;" in html
    assert "<script" not in html


def test_the_largest_page_is_small() -> None:
    """Noise in every panel, as large as sections get, and as many mistakes as are shown."""
    rng = np.random.default_rng(5)

    def section(axis: int, side: int) -> Section:
        labels = {
            name: np.kron(rng.integers(1, 2**60, (side // 8, side // 8)), np.ones((8, 8), int))
            for name in ("fragments", "segmentation", "truth")
        }
        images = {
            "raw": rng.integers(0, 256, (side, side), np.uint8),
            "affinities": rng.integers(0, 256, (3, side, side), np.uint8),
        }
        shape = [side, side, side]
        shape[axis] = 1
        planes = images | {name: ids.astype(np.uint64) for name, ids in labels.items()}
        return Section(axis, Roi((0, 0, 0), shape), Nm.of([10, 10, 10]), planes)

    kinds = ("splits", "merges")
    mistakes = [
        Mistake(kind, 1, (2, 3), 2, 0.1, 50, section(0, 160)) for kind in kinds for _ in range(4)
    ]
    html = page(Report("large", (), [section(axis, 320) for axis in range(3)], mistakes))
    assert 1_000_000 < len(html) < MAX_BYTES


ROWS = [
    {"step": step, "loss": 5 / step, "loss/self": 3 / step, "loss/pyramid_1": 2 / step}
    for step in range(10, 110, 10)
]


def test_a_training_has_curves_of_its_loss_and_of_its_validations(finished: Tried) -> None:
    scores = {"validation/voi": 1.5, "validation/voi_split": 1.0, "validation/voi_merge": 0.5}
    rows = [*ROWS, {"step": 100, **scores}, {"step": 50, **scores, "validation/voi": 1.25}]
    (finished.root / "checkpoints").mkdir()
    torn = "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 1'
    (finished.root / "checkpoints" / "training.jsonl").write_text(torn)
    assert finished("report", None) == 0
    html = (finished.root / "report.html").read_text()
    assert "training" in shown(html)
    assert ">1.250</text>" in html
    assert ">pyramid 1</text>" in html
    assert list(training_charts(ROWS)) == ["Loss"]


def test_charts_have_the_colours_of_the_page_and_ids_of_their_own() -> None:
    charts = training_charts(ROWS)["Loss"], svg(new_figure(2, 2), "other")
    for chart in charts:
        assert chart.startswith("<svg ")
        assert not re.findall("|".join(THEME), chart, re.IGNORECASE)
        assert not re.findall("<style|<metadata|<svg [^>]* width=", chart)
    assert "var(--ink)" in charts[0]
    assert training_charts(ROWS)["Loss"] == charts[0]
    clips = [set(re.findall(r'<clipPath id="(\w+)"', chart)) for chart in charts]
    assert not clips[0] & clips[1]


def test_a_crop_of_a_large_volume_is_read(tmp_path: Path) -> None:
    tried = Tried(tmp_path)
    write_inputs(tmp_path, (4, 20, 350))
    assert tried() == 0
    sides = {image.shape[1] for image in pictures((tried.root / "report.html").read_text())}
    assert max(sides) == 320
