"""Plants mistakes in a copy of the code, one by one, and says which tests catch them.

    python -m tests.plant_mistakes [WORD ...]

Only mistakes with one of the words in their name, if any are given. The exit status is 0 when the
tests pass on the untouched copy and fail, by an assertion, on every other one.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
COPIED = ("pipeline", "workers", "tests")
SECONDS = 60.0
"""What one mistake may take to be caught."""

TILING = "tests/test_tiling.py"
HEIGHTS = (f"{TILING}::test_heights_do_not_depend_on_the_tiling",)
BASINS = (f"{TILING}::test_basins_do_not_depend_on_the_tiling",)
FRAGMENTS = (f"{TILING}::test_fragments_do_not_depend_on_the_tiling",)
EDGES = (f"{TILING}::test_edges_do_not_depend_on_the_tiling",)
CONTINGENCY = (f"{TILING}::test_contingency_does_not_depend_on_the_tiling",)
OVERLAPS = ("tests/test_objects.py::test_overlaps_do_not_depend_on_the_tiling",)
BORDERS = ("tests/test_border.py",)
TREES = ("tests/test_agglomerate.py::test_trees_are_those_of_the_twin",)
QUANTILE_TREES = ("tests/test_agglomerate.py::test_quantile_trees_are_those_of_the_twin",)
AFFINITIES = ("tests/test_affinities.py",)
OFFSETS = ("tests/test_geometry.py::test_offsets_that_begin_otherwise_or_repeat_are_refused",)
FINGERPRINTS = (
    "tests/test_fingerprints.py::"
    "test_a_setting_changes_the_fingerprint_of_the_stages_it_decides_and_of_no_other",
)


@dataclass(frozen=True)
class Mistake:
    """One wrong place in the code."""

    name: str
    path: str
    right: str
    """Text that stands in the file once,"""
    wrong: str
    """and what is put in its place."""
    tests: tuple[str, ...]
    """Those that must fail: any one is enough."""


FRAGMENTS_PY = "pipeline/segment/fragments.py"
BASINS_PY = "pipeline/segment/basins.py"
EDGES_PY = "pipeline/segment/edges.py"
MERGING_PY = "pipeline/segment/merging.py"
SEGMENTS_PY = "pipeline/segment/segments.py"
GEOMETRY_PY = "pipeline/geometry.py"

MISTAKES = (
    Mistake(
        "halo of fragments short by one",
        FRAGMENTS_PY,
        "ZYX(*(r + n for r, n in zip(radius, reach, strict=True)))",
        "ZYX(*(max(0, r + n - 1) for r, n in zip(radius, reach, strict=True)))",
        FRAGMENTS,
    ),
    Mistake(
        "halo of heights short by one",
        FRAGMENTS_PY,
        "ZYX(*(r + n for r, n in zip(radius, reach, strict=True)))",
        "ZYX(*(max(0, r - 1) + n for r, n in zip(radius, reach, strict=True)))",
        HEIGHTS,
    ),
    Mistake(
        "halo above short by one",
        FRAGMENTS_PY,
        "return ZYX(z if self.per_section else z + 1, y + 1, x + 1)",
        "return ZYX(z, y, x)",
        FRAGMENTS,
    ),
    Mistake("halo of basins short by one", BASINS_PY, "HALO_VX = 2\n", "HALO_VX = 1\n", BASINS),
    Mistake(
        "halo of offsets short by one below",
        GEOMETRY_PY,
        "max(0, *(-v[axis] for v in self.vectors))",
        "max(0, *(-v[axis] - 1 for v in self.vectors))",
        EDGES,
    ),
    Mistake(
        "halo of offsets short by one above",
        GEOMETRY_PY,
        "max(0, *(v[axis] for v in self.vectors))",
        "max(0, *(v[axis] - 1 for v in self.vectors))",
        EDGES,
    ),
    Mistake(
        "+1 offset in edges",
        EDGES_PY,
        "np.uint64(affinities[channel, z, y, x])",
        "np.uint64(affinities[channel, z + dz, y + dy, x + dx])",
        EDGES,
    ),
    Mistake(
        "+1 offset in heights",
        FRAGMENTS_PY,
        "total[below] += pairs[above]",
        "total[below] += pairs[below]",
        HEIGHTS,
    ),
    Mistake(
        "+1 offset in affinities",
        "pipeline/segment/affinities.py",
        "channel[here] = affinity(",
        "channel[there] = affinity(",
        AFFINITIES,
    ),
    Mistake(
        "+1 offset accepted",
        GEOMETRY_PY,
        "if self.vectors[:3] != direct:",
        "if [list(map(abs, v)) for v in self.vectors[:3]] != [list(map(abs, v)) for v in direct]:",
        OFFSETS,
    ),
    Mistake(
        "unsorted edges",
        "pipeline/graph.py",
        "order = np.lexsort(keys[::-1])",
        "order = np.lexsort(keys)",
        EDGES,
    ),
    Mistake(
        "edges with u above v",
        EDGES_PY,
        "(np.minimum(one, other), np.maximum(one, other))",
        "(one, other)",
        EDGES,
    ),
    Mistake(
        "an edge counted twice, by both blocks",
        EDGES_PY,
        "z0, z1 = max(inner[0, 0], -dz)",
        "z0, z1 = max(inner[0, 0] - 1, -dz)",
        EDGES,
    ),
    Mistake(
        "an edge counted twice, in one block",
        EDGES_PY,
        "sums[slot, column + 1] += np.uint64(1)",
        "sums[slot, column + 1] += np.uint64(1 + (x == inner[2, 0] and x > 1))",
        EDGES,
    ),
    Mistake(
        "0 read beyond the rim by heights",
        FRAGMENTS_PY,
        "first = 1 if origin[axis] == 0 else 0",
        "first = 0",
        HEIGHTS,
    ),
    Mistake(
        "0 read beyond the rim by the Gaussian",
        FRAGMENTS_PY,
        'mode="nearest"',
        'mode="constant"',
        HEIGHTS,
    ),
    Mistake(
        "0 read beyond the rim by basins",
        BASINS_PY,
        "kind = np.full(sides, NOT_THERE, np.uint8)",
        "kind = np.full(sides, OUTSIDE, np.uint8)",
        BASINS,
    ),
    Mistake(
        "a pair counted beyond the rim by edges",
        EDGES_PY,
        "max(inner[2, 0], -dx), min(inner[2, 1], shape[2] - dx)\n"
        "        for z in range(z0, z1):\n"
        "            for y in range(y0, y1):\n"
        "                for x in range(x0, x1):\n"
        "                    a, b = dense[z, y, x], dense[z + dz, y + dy, x + dx]",
        "inner[2, 0], min(inner[2, 1], shape[2] - dx)\n"
        "        for z in range(z0, z1):\n"
        "            for y in range(y0, y1):\n"
        "                for x in range(x0, x1):\n"
        "                    a, b = dense[z, y, x], dense[z + dz, y + dy, max(0, x + dx)]",
        EDGES,
    ),
    Mistake(
        "a plateau drains where it was first looked at",
        BASINS_PY,
        "if exits[root] < 0 or j < exits[root]:",
        "if exits[root] < 0:",
        ("tests/test_basins.py",),
    ),
    Mistake(
        "of equally low neighbours the last",
        BASINS_PY,
        "height[j] < best_height:",
        "(height[j] < best_height or best >= 0 and height[j] == best_height):",
        BASINS,
    ),
    Mistake(
        "an average of averages",
        MERGING_PY,
        "contacts.total[into] += contacts.total[other]\n"
        "    contacts.pairs[into] += contacts.pairs[other]",
        "contacts.total[into] /= contacts.pairs[into]\n"
        "    contacts.total[into] += contacts.total[other] / contacts.pairs[other]\n"
        "    contacts.pairs[into] = 2",
        TREES,
    ),
    Mistake(
        "a quantile one rank too low",
        MERGING_PY,
        "rank = contacts.percent * contacts.pairs[e] // 100 + 1",
        "rank = contacts.percent * contacts.pairs[e] // 100",
        QUANTILE_TREES,
    ),
    Mistake(
        "histograms joined out of order",
        MERGING_PY,
        "last, mine = mine, after[mine]",
        "last, mine = mine, -1",
        QUANTILE_TREES,
    ),
    Mistake(
        "ties in the order of the queue",
        MERGING_PY,
        "joined, dropped = min(moved, known), max(moved, known)",
        "joined, dropped = moved, known",
        TREES,
    ),
    Mistake(
        "a truth without 0 in its counts",
        "pipeline/evaluate/pairs.py",
        "return PairRows(pairs[:, 0], pairs[:, 1],",
        "return PairRows(pairs[:, 0], pairs[:, 1] | 1,",
        CONTINGENCY,
    ),
    Mistake(
        "a box that shrinks where blocks meet",
        "pipeline/evaluate/overlaps.py",
        "np.minimum.reduceat(self.begin[order], starts)",
        "np.maximum.reduceat(self.begin[order], starts)",
        OVERLAPS,
    ),
    Mistake(
        "a border's halo that does not reach its neighbour",
        "pipeline/evaluate/border.py",
        "ZYX(0, len(self.widths_vx), self.widths_vx[0] + 1)",
        "ZYX(0, len(self.widths_vx) - 1, self.widths_vx[0])",
        BORDERS,
    ),
    Mistake(
        "a border left out of the fingerprint",
        "pipeline/stages/evaluate.py",
        '"border_nm": self.border_nm,\n            "roi"',
        '"roi"',
        FINGERPRINTS,
    ),
    Mistake(
        "a parameter of fragments left out of the fingerprint",
        "pipeline/stages/fragments.py",
        '"wide_share": self.rule.wide_share,\n',
        "",
        FINGERPRINTS,
    ),
    Mistake(
        "the region left out of the fingerprint",
        "pipeline/stages/fragments.py",
        '"roi": [list(total.begin), list(total.shape)],\n',
        "",
        FINGERPRINTS,
    ),
    Mistake(
        "the offsets left out of the fingerprint",
        "pipeline/stages/edges.py",
        '{"offsets": self.offsets.numbers()}',
        "{}",
        FINGERPRINTS,
    ),
    Mistake(
        "the dust left out of the fingerprint",
        SEGMENTS_PY,
        'used = {"merge_small_vx": self.merge_small_vx, "dust_vx": self.dust_vx}',
        'used = {"merge_small_vx": self.merge_small_vx}',
        FINGERPRINTS,
    ),
    Mistake(
        "the thresholds left out of the fingerprint",
        "pipeline/stages/evaluate.py",
        "**self.swept,\n",
        "",
        FINGERPRINTS,
    ),
    Mistake(
        "the stage before left out of the fingerprint",
        "pipeline/stages/stage.py",
        "before | dict(self.contents)",
        "dict(self.contents)",
        FINGERPRINTS,
    ),
)


@dataclass(frozen=True)
class Verdict:
    """What the tests said."""

    passed: bool
    asserted: bool
    """They failed because something was not as a test or the code asserts."""
    failed: tuple[str, ...]
    """The tests that failed; the first one, since pytest stops there."""
    seconds: float
    output: str

    @property
    def caught(self) -> bool:
        return self.asserted and not self.passed and bool(self.failed)


class Copy:
    """The code in a folder of its own, where it may be broken."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            unwanted = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
        shutil.copy(ROOT / "pyproject.toml", folder)
        for package in ("pipeline", "workers", "tests"):
            code = f"import {package}; print({package}.__file__)"
            found = Path(self._python("-c", code).stdout.strip())
            assert found == folder / package / "__init__.py", f"{found} is not the copy"

    def verdict(self, tests: Sequence[str]) -> Verdict:
        """Run tests against the copy as it is now."""
        started = time.monotonic()
        ran = self._python(
            "-m", "pytest", "-x", "-q", "--tb=short", "-p", "no:cacheprovider", *tests
        )
        output = ran.stdout + ran.stderr
        # 0: all passed, 1: some failed. Anything else is a test that could not even run.
        assert ran.returncode in (0, 1), output
        return Verdict(
            passed=ran.returncode == 0,
            asserted=bool(
                re.search(r"^\s*\|?\s*E\s+(AssertionError|assert |Failed: DID NOT)", output, re.M)
            ),
            failed=tuple(re.findall(r"^FAILED (\S+)", output, re.M)),
            seconds=time.monotonic() - started,
            output=output,
        )

    def verdict_on(self, mistake: Mistake) -> Verdict:
        """Plant a mistake, run its tests, and take it away again."""
        path = self.folder / mistake.path
        right = path.read_text()
        path.write_text(planted(right, mistake))
        try:
            return self.verdict(mistake.tests)
        finally:
            path.write_text(right)

    def _python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "PYTHONPATH": str(self.folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "NUMBA_CACHE_DIR": str(self.folder / "numba"),
            "HYPOTHESIS_PROFILE": "find",
        }
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )


def planted(text: str, mistake: Mistake) -> str:
    """The text of a file with the mistake in it."""
    count = text.count(mistake.right)
    assert count == 1, f"{mistake.name}: found {count} times in {mistake.path}: {mistake.right!r}"
    return text.replace(mistake.right, mistake.wrong)


def every_test(mistakes: Sequence[Mistake]) -> list[str]:
    return list(dict.fromkeys(test for mistake in mistakes for test in mistake.tests))


def main(words: Sequence[str]) -> int:
    mistakes = [m for m in MISTAKES if not words or any(word in m.name for word in words)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Copy(Path(folder).resolve())
        sound = copy.verdict(every_test(mistakes))
        rows.append(("none", sound.passed, sound))
        for mistake in mistakes:
            verdict = copy.verdict_on(mistake)
            rows.append((mistake.name, verdict.caught and verdict.seconds < SECONDS, verdict))
            print(f"{verdict.seconds:5.1f} s  {mistake.name}", file=sys.stderr)
    print(f"{'planted':<56}{'':<8}{'seconds':>8}  by")
    for name, is_well, verdict in rows:
        by = ", ".join(test.partition("::")[2] for test in verdict.failed) or "every test passes"
        well = ("ok" if name == "none" else "caught") if is_well else "MISSED"
        print(f"{name:<56}{well:<8}{verdict.seconds:>8.1f}  {by}")
        if not is_well:
            print(verdict.output)
    return 0 if all(is_well for _, is_well, _ in rows) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
