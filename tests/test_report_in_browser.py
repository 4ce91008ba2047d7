"""The report in headless Chromium: nothing is missing, broken, blank or cut off."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.drawn import SHAPE, write_volume
from tests.tried import Tried

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--enable-logging=stderr",
)  # fmt: skip
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to show the report"),
]

PROBE = """
<script>
const copies = [...document.querySelectorAll("svg image")].map(image => {
  const copy = new Image();
  copy.src = image.getAttribute("href");
  return copy;
});
addEventListener("load", () => {
  const broken = copies.filter(copy => !copy.naturalWidth).map(copy => copy.src.slice(0, 80));
  const lost = [...document.querySelectorAll("use")]
    .filter(use => !document.querySelector(use.href.baseVal)).length;
  const boxes = [...document.querySelectorAll(".panel, .charts svg")].map(e => {
    const box = e.getBoundingClientRect();
    return [box.left, box.top + scrollY, box.width, box.height, e.getAttribute("viewBox")];
  });
  const cut = [...document.querySelectorAll("h1, h2, h3, p, dd, figcaption, .charts svg")]
    .filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.textContent);
  const said = document.createElement("pre");
  said.id = "probe";
  said.textContent = JSON.stringify({broken, lost, boxes, cut, wide: document.body.scrollWidth});
  document.body.append(said);
});
</script>
"""


@pytest.fixture(scope="module")
def report(template: tuple[Path, dict[str, str]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with raw and a training."""
    folder = tmp_path_factory.mktemp("shown")
    for name in ("data.zarr", "runs"):
        shutil.copytree(template[0] / name, folder / name)
    tried = Tried(folder)
    raw = np.random.default_rng(5).integers(0, 256, SHAPE, np.uint8)
    write_volume(tried.data / "raw", raw, "raw")
    tried.tree["run"]["data"]["raw"] = str(tried.data / "raw")
    (tried.root / "checkpoints").mkdir()
    names = ("loss", "loss/self", "validation/voi", "validation/voi_split", "validation/voi_merge")
    rows = [{"step": n} | dict.fromkeys(names, 9 / n) for n in range(1, 9)]
    (tried.root / "checkpoints" / "training.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert tried("report", None) == 0
    return tried.root / "report.html"


def opened(page: Path, folder: Path, width: int, *more: str) -> tuple[str, str]:
    """What Chromium prints of a page, and what it logs."""
    done = subprocess.run(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}",
         f"--window-size={width},6000", *more, page.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    return done.stdout, done.stderr


def complaints(log: str) -> list[str]:
    """Lines of a page's console."""
    return [line for line in log.splitlines() if "CONSOLE" in line]


@pytest.mark.parametrize("width", [1400, 700, 500])
def test_the_report_loads_and_nothing_is_missing_or_cut_off(
    report: Path, tmp_path: Path, width: int
) -> None:
    text = report.read_text()
    # The page itself allows no script: the probe goes into a copy that does.
    policy = re.search(r"<meta http-equiv=[^>]+>", text)
    assert policy is not None
    probed = tmp_path / "probed.html"
    probed.write_text(text.replace(policy[0], "").replace("</body>", PROBE + "</body>"))
    printed, log = opened(probed, tmp_path, width, "--dump-dom")
    assert not complaints(log)
    found = re.search(r'<pre id="probe">(.*?)</pre>', printed)
    assert found is not None, printed[-500:]
    said: dict[str, Any] = json.loads(html.unescape(found[1]))
    assert said["broken"] == []
    assert said["lost"] == 0
    assert said["cut"] == []
    assert said["wide"] <= width
    assert len(said["boxes"]) > 20
    for _, _, across, down, view in said["boxes"]:
        *_, view_width, view_height = map(float, view.split())
        assert across > 40
        assert down / across == pytest.approx(view_height / view_width, rel=0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_report_is_not_blank_and_has_the_scheme_of_its_reader(
    report: Path, tmp_path: Path, scheme: str
) -> None:
    shot = tmp_path / "shot.png"
    number = {"dark": 0, "light": 1}[scheme]
    _, log = opened(
        report, tmp_path, 1400,
        f"--screenshot={shot}", f"--blink-settings=preferredColorScheme={number}",
    )  # fmt: skip
    assert not complaints(log)
    with Image.open(shot) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    corner = pixels[0, 0].mean()
    assert corner > 240 if scheme == "light" else corner < 40
    colourful = np.ptp(pixels, axis=-1) > 60
    assert colourful.mean() > 0.01
    # From head to provenance, something stands in every stretch of the page.
    differs = (np.abs(pixels - pixels[0, 0]).max(axis=-1) > 30).any(axis=1)
    last = int(np.flatnonzero(differs)[-1])
    assert last > 1500
    gaps = np.diff(np.flatnonzero(differs[: last + 1]))
    assert gaps.max() < 200


def test_the_report_can_be_printed(report: Path, tmp_path: Path) -> None:
    printed = tmp_path / "report.pdf"
    _, log = opened(report, tmp_path, 1400, f"--print-to-pdf={printed}")
    assert not complaints(log)
    assert printed.read_bytes().startswith(b"%PDF")
    assert printed.stat().st_size > 20_000
