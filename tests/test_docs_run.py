"""The pages of the documentation as somebody follows them: every block is run as it is printed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.pages import PAGES, ROOT, blocks
from tests.stand_ins import write_files, write_own, write_run_files
from tests.test_report_in_browser import CHROMIUM, complaints, opened

START = "docs/start.md"
BEGIN_THEMSELVES = ("README.md", "docs/training.md")
SECONDS = 600
pytestmark = pytest.mark.slow


def follow(page: str, desk: Path) -> None:
    """Do what a page says, in a folder that has the files it presumes."""
    paths = [str(Path(sys.executable).parent), os.environ["PATH"]]
    environment = os.environ | {"PATH": os.pathsep.join(paths), "PYTHONPATH": str(ROOT)}
    for block in blocks(PAGES[page]):
        if block.why_not_run is not None:
            continue
        if block.file is not None:
            (desk / block.file).write_text(block.text)
        program = {
            "bash": ["bash", "-euo", "pipefail", "-c", block.text],
            "python": [sys.executable, "-c", block.text],
        }.get(block.language)
        if program is not None:
            done = subprocess.run(
                program, cwd=desk, env=environment, stdin=subprocess.DEVNULL,
                capture_output=True, text=True, timeout=SECONDS, check=False,
            )  # fmt: skip
            assert done.returncode == 0, f"{block.text}\n{done.stdout}\n{done.stderr}"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of somebody who has not begun."""
    folder = tmp_path_factory.mktemp("files")
    write_files(folder)
    write_own(folder)
    write_run_files(folder / "configs")
    for name in ("pipeline", "tests", "docs"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def desk(files: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the first page."""
    folder = tmp_path_factory.mktemp("begun") / "desk"
    shutil.copytree(files, folder, symlinks=True)
    follow(START, folder)
    return folder


def test_the_first_page_ends_with_a_report_and_a_file_to_take_away(desk: Path) -> None:
    assert (desk / "runs" / "mine" / "report.html").stat().st_size > 10_000
    assert (desk / "mine.h5").exists()
    assert (desk / "theirs.png").exists()


@pytest.mark.parametrize("page", BEGIN_THEMSELVES)
def test_a_page_can_be_followed(page: str, files: Path, tmp_path: Path) -> None:
    shutil.copytree(files, tmp_path / "desk", symlinks=True)
    follow(page, tmp_path / "desk")


@pytest.mark.parametrize("page", sorted({*PAGES} - {START, *BEGIN_THEMSELVES}))
def test_a_page_can_be_followed_after_the_first(page: str, desk: Path, tmp_path: Path) -> None:
    shutil.copytree(desk, tmp_path / "desk", symlinks=True)
    follow(page, tmp_path / "desk")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make docs` builds, without a single warning."""
    folder = tmp_path_factory.mktemp("site")
    words = ["-W", "--keep-going", "-q", "-b", "html", "-d", str(folder / "trees")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *words, str(ROOT / "docs"), str(folder / "html")],
        capture_output=True, text=True, timeout=SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder / "html"


def test_the_site_has_every_page_every_command_and_every_setting(site: Path) -> None:
    for page in PAGES:
        if page.startswith("docs/"):
            assert (site / page.removeprefix("docs/")).with_suffix(".html").exists()
    assert "pea skeleton" in text_of(site / "generated" / "commands.html")
    assert "merge_small_vx" in text_of(site / "generated" / "settings.html")
    assert "wide_share" in text_of(site / "library.html")


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text())


LOST = """
<script>
addEventListener("load", () => {
  const lost = [...document.images].filter(image => !image.naturalWidth).map(image => image.src);
  document.body.append(`lost: ${lost.length} of ${document.images.length}; ${lost}; wide: ` +
    `${document.documentElement.scrollWidth <= innerWidth}`);
});
</script>
"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium here to show the site")
@pytest.mark.parametrize("width", [1300, 500])
@pytest.mark.parametrize("name", ["index", "method", "segmentation", "laboratory"])
def test_the_site_shows_its_pictures_and_fits(
    site: Path, tmp_path: Path, name: str, width: int
) -> None:
    page = site / f"{name}.html"
    probed = site / f"{name}-probed-{width}.html"
    probed.write_text(page.read_text().replace("</body>", LOST + "</body>"))
    printed, log = opened(probed, tmp_path, width, "--dump-dom")
    assert not complaints(log)
    assert "lost: 0 of " in printed
    assert "lost: 0 of 0" not in printed
    assert "wide: true" in printed
