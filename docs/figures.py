"""The figures of the method page, drawn from real data by the code they explain.

    python docs/figures.py data/fib25.zarr/raw data/fib25.zarr/labels

FIB-25, planes 150-169, where the released network was not trained; README.md ingests it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from pipeline.config import Network, Train, View, load_settings
from pipeline.geometry import ZYX, Nm, Offsets, Roi
from pipeline.model.affinity import cosine_affinities
from pipeline.model.checkpoint import Checkpoint
from pipeline.model.output import Output
from pipeline.model.resunet import ResUNet
from pipeline.plan_predict import WEIGHTS
from pipeline.raw import RawScale
from pipeline.report.colours import colour_tables
from pipeline.report.panels import ScaleBar, outlines
from pipeline.segment.agglomerate import quantile_tree
from pipeline.segment.edges import contact_histograms, fragment_sizes
from pipeline.segment.fragments import FragmentRule, boundary, fragments, heights
from pipeline.train.crops import Crops
from pipeline.train.data import TrainingData
from pipeline.train.view import Transform, view_of
from pipeline.volume import Volume

HERE = Path(__file__).parent
FIGURES = HERE / "figures"
BOX = Roi((114, 88, 0), (56, 160, 160))
"""What the network sees, in voxels; the section shown is inside the held-out planes."""
SECTION = 46
POINT = (121, 48)
"""A voxel of that section, row and column, whose embedding all others are compared with."""
INCHES = 2.5
DIRECT = Offsets().vectors


def main(raw_path: Path, labels_path: Path) -> None:
    mpl.use("Agg")
    mpl.rcParams.update({"font.size": 9, "figure.dpi": 130, "savefig.bbox": "tight"})
    FIGURES.mkdir(exist_ok=True)
    raw_volume, labels_volume = Volume.open(raw_path), Volume.open(labels_path)
    raw = raw_volume.read(BOX).astype(np.float32) / 255
    labels = labels_volume.read(BOX)
    network = Checkpoint.read(WEIGHTS / "fib25.safetensors").module()
    embedded = embed(network, raw)
    draw_network(Network())
    draw_embedding(raw, embedded.full)
    draw_correlations(network, raw, embedded.full)
    draw_pyramid(raw, embedded)
    draw_steps(raw, labels, embedded.full, raw_volume.spec.voxel_size_nm)
    draw_augmentation(raw_path, labels_path)


def embed(network: ResUNet, raw: np.ndarray) -> Output:
    """What the network says of ``(z, y, x)``, without the axis of batches."""
    with torch.inference_mode():
        output = network(torch.from_numpy(np.ascontiguousarray(raw))[None, None])
    return Output(output.full[0], tuple(level[0] for level in output.pyramid))


class Colours:
    """Embeddings in colour: three principal components of their directions."""

    def __init__(self, embedding: torch.Tensor) -> None:
        flat = self._directions(embedding).reshape(embedding.shape[0], -1).T
        self._mean = flat.mean(axis=0)
        self._axes = np.linalg.svd(flat[::7] - self._mean, full_matrices=False)[2][:3]
        parts = (flat - self._mean) @ self._axes.T
        self._low, self._high = np.percentile(parts, (2, 98), axis=0)

    @staticmethod
    def _directions(embedding: torch.Tensor) -> np.ndarray:
        return torch.nn.functional.normalize(embedding, dim=0).numpy()

    def of(self, embedding: torch.Tensor) -> np.ndarray:
        """``(E, y, x)`` as an image ``(y, x, 3)``."""
        parts = np.moveaxis(self._directions(embedding), 0, -1) - self._mean
        return np.clip((parts @ self._axes.T - self._low) / (self._high - self._low), 0, 1)


def draw_embedding(raw: np.ndarray, embedding: torch.Tensor) -> None:
    """One voxel against all others; then the same embeddings at several offsets."""
    lengths = (1, 3, 9, 27)
    alike = torch.einsum(
        "eyx,e->yx",
        torch.nn.functional.normalize(embedding[:, SECTION], dim=0),
        torch.nn.functional.normalize(embedding[:, SECTION, *POINT], dim=0),
    )
    reach = cosine_affinities(embedding[None], [(0, 0, -n) for n in lengths])[0, :, SECTION]
    top, bottom = grid(2, 4)
    show(top[0], raw[SECTION], "raw", bar=True)
    show(top[1], Colours(embedding).of(embedding[:, SECTION]), "embedding, 16 numbers a voxel")
    show(top[2], alike.clamp(0, 1).numpy(), "cosine with the voxel at x", cmap="magma")
    show(top[3], raw[SECTION], "that voxel")
    for axis in top[2:]:
        axis.plot(POINT[1], POINT[0], "x", color="#56b4e9", ms=9, mew=2.5)
    for axis, length, values in zip(bottom, lengths, reach, strict=True):
        show(
            axis,
            values.clamp(0, 1).numpy(),
            f"affinity along x, {length} voxel{'s' * (length > 1)}",
        )
    save(top[0].figure, "embedding")


def draw_correlations(network: ResUNet, raw: np.ndarray, embedding: torch.Tensor) -> None:
    """SCM within a crop; CCM between the crop and a transformed view of it."""
    rule = View(max_cutouts=40, cutout_min_vx=ZYX(6, 6, 6), cutout_max_vx=ZYX(14, 14, 14))
    rule = rule.model_copy(update={"intensity": 1.0})
    # A draw that mirrors and transposes in the plane of the section, so that it shows.
    view, transform = view_of(raw, rule, (0, 2, 1), np.random.default_rng(8))
    seen = embed(network, view).full
    undone = transform.undo(seen)
    colours = Colours(embedding)
    at = raw.shape[0] - 1 - SECTION if transform.flip[0] else SECTION
    inner = cosine_affinities(embedding[None], DIRECT)[0, :, SECTION]
    cross = cosine_affinities(embedding[None], DIRECT, undone[None])[0, :, SECTION]
    top, bottom = grid(2, 4)
    show(top[0], raw[SECTION], "crop", bar=True)
    show(top[1], colours.of(embedding[:, SECTION]), "its embedding e")
    top[2].axis("off")
    said = ("other contrast and gamma,", "boxes cut out,", f"mirrored along {flipped(transform)},")
    top[2].text(0.5, 0.5, "\n".join((*said, "transposed")), ha="center", va="center", color="0.35")
    show(top[3], rgb(inner), "SCM: cosines of e with e")
    show(bottom[0], view[at], "its view")
    show(bottom[1], colours.of(seen[:, at]), "embedding of the view")
    show(bottom[2], colours.of(undone[:, SECTION]), "turned back: e'")
    show(bottom[3], rgb(cross), "CCM: cosines of e with e'")
    save(top[0].figure, "correlations")


def draw_pyramid(raw: np.ndarray, embedded: Output) -> None:
    """EPM: every level of the decoder has an embedding, compared with its own neighbours."""
    levels = [embedded.full, *embedded.pyramid]
    top, bottom = grid(2, len(levels))
    for n, level in enumerate(levels):
        plane = SECTION * level.shape[1] // raw.shape[0]
        name = "full size" if n == 0 else f"1/{2**n}"
        show(top[n], Colours(level).of(level[:, plane]), f"embedding, {name}", bar=n == 0)
        near = cosine_affinities(level[None], DIRECT)[0, :, plane]
        show(bottom[n], rgb(near), "cosines of its neighbours")
    save(top[0].figure, "pyramid")


def draw_steps(raw: np.ndarray, labels: np.ndarray, embedding: torch.Tensor, size: Nm) -> None:
    """From affinities to segments."""
    cosines = cosine_affinities(embedding[None], DIRECT)[0].clamp(0, 1)
    affinities = (cosines * 255).round().to(torch.uint8).numpy()
    rule = FragmentRule(size, per_section=False)
    pieces = fragments(affinities, rule)
    tree = quantile_tree(contact_histograms(affinities, pieces), 85)
    segments = tree.cut(0.7, fragment_sizes(pieces)).apply(pieces)
    shown = {"truth": labels, "segmentation": segments, "fragments": pieces}
    sections = {name: volume[SECTION] for name, volume in shown.items()}
    tables = colour_tables({name: [section] for name, section in sections.items()})
    (axes,) = grid(1, 6)
    show(axes[0], rgb(cosines[:, SECTION]), "affinities z, y, x", bar=True)
    show(axes[1], boundary(affinities, (0, 0, 0), False)[SECTION], "boundary")
    show(axes[2], heights(affinities, (0, 0, 0), rule)[SECTION], "heights", cmap="viridis")
    for axis, name in zip(axes[3:], ("fragments", "segmentation", "truth"), strict=True):
        colour = (
            tables[name].of(sections[name]) * np.where(outlines(sections[name]), 0.35, 1)[..., None]
        )
        show(axis, 0.6 * colour / 255 + 0.4 * raw[SECTION][..., None], name)
    save(axes[0].figure, "steps")


def draw_augmentation(raw: Path, labels: Path) -> None:
    """Crops as a training sees them, with the borders of their labels."""
    settings = load_settings(HERE.parent / "configs" / "fib25-gpu.yaml").run.train
    assert settings is not None
    train = Train.model_validate(
        settings.model_dump() | {"batch": 1, "crop_vx": [16, 96, 96], "precision": "fp32"}
    )
    region = Roi((0, 0, 0), (150, 250, 250))
    crops = Crops(TrainingData(raw, labels, RawScale(0, 255), region), train, view=False)
    (axes,) = grid(1, 6)
    for n, axis in enumerate(axes):
        batch = crops.batch(n)
        show(axis, batch.raw[0, 0, 8], f"crop of step {n + 1}", bar=n == 0, limits=(0, 1))
        axis.contour(batch.labels[0, 8] > 0, [0.5], colors="#e69f00", linewidths=0.7)
    save(axes[0].figure, "augmentation")


def draw_network(network: Network) -> None:
    """The residual U-Net, from its settings."""
    figure = Figure(figsize=(9.6, 4.6))
    axis = figure.subplots()
    axis.set(xlim=(-0.6, 11.2), ylim=(-len(network.features) + 0.35, 1.0))
    axis.axis("off")
    last = len(network.features) - 1
    scale = [1, 1, 1]
    places = []
    for level, features in enumerate(network.features):
        left, right = 1.6 + 0.6 * level, 7.9 - 0.6 * level
        where = [left] if level == last else [left, right]
        for x in where:
            box(axis, x, -level, f"residual block\n{features} channels", "#56b4e9")
        size = " x ".join("1" if n == 1 else f"1/{n}" for n in scale)
        axis.text(-0.5, -level, size if level else "full size", va="center", color="0.35")
        places.append((left, right))
        if level < last:
            scale = [n * pool for n, pool in zip(scale, network.pools[level], strict=True)]
    for level, (left, right) in enumerate(places[:-1]):
        deeper_left, deeper_right = places[level + 1]
        end = deeper_left if level + 1 == last else deeper_right
        arrow(axis, (left, -level - 0.24), (deeper_left, -level - 0.76), "max pool")
        arrow(axis, (end + 0.25, -level - 0.76), (right, -level - 0.24), "1x1x1, up", side=1)
        arrow(axis, (left + 0.85, -level), (right - 0.85, -level), "add")
    kernel = "x".join(map(str, network.stem_vx))
    box(axis, 1.6, 0.72, f"stem {kernel}", "#e69f00")
    arrow(axis, (1.6, 0.55), (1.6, 0.24), "")
    box(axis, 7.9, 0.72, f"tail {kernel}", "#e69f00")
    arrow(axis, (7.9, 0.24), (7.9, 0.55), "")
    arrow(axis, (0.3, 0.72), (0.8, 0.72), "")
    axis.text(0.25, 0.72, "raw", ha="right", va="center")
    arrow(axis, (8.7, 0.72), (9.4, 0.72), "")
    axis.text(9.5, 0.72, f"embedding, {network.embedding} a voxel", va="center")
    for level, (left, right) in enumerate(places[1:], start=1):
        x = left if level == last else right
        arrow(axis, (x + 0.85, -level), (9.4, -level), "")
        axis.text(9.5, -level, f"embedding, {network.embedding}", va="center", color="0.35")
    save(figure, "network")


def flipped(transform: Transform) -> str:
    """The axes that a view is mirrored along."""
    return ", ".join(name for name, flip in zip("zyx", transform.flip, strict=True) if flip)


def box(axis: Axes, x: float, y: float, text: str, colour: str) -> None:
    height = 0.42 if "\n" in text else 0.3
    axis.add_patch(
        FancyBboxPatch(
            (x - 0.78, y - height / 2), 1.56, height, boxstyle="round,pad=0.02",
            facecolor=colour, alpha=0.35, edgecolor=colour,
        )
    )  # fmt: skip
    axis.text(x, y, text, ha="center", va="center", fontsize=8)


def arrow(
    axis: Axes, begin: tuple[float, float], end: tuple[float, float], text: str, side: int = -1
) -> None:
    axis.add_patch(FancyArrowPatch(begin, end, arrowstyle="-|>", mutation_scale=9, color="0.4"))
    level = begin[1] == end[1]
    x, y = (begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2
    if text:
        axis.text(
            x + (0 if level else 0.12 * side), y + (0.07 if level else 0), text, fontsize=7.5,
            color="0.35", ha="center" if level else ("right" if side < 0 else "left"),
            va="bottom" if level else "center",
        )  # fmt: skip


def rgb(affinities: torch.Tensor) -> np.ndarray:
    """Affinities along z, y and x as red, green and blue."""
    return np.moveaxis(affinities.clamp(0, 1).numpy(), 0, -1)


def grid(rows: int, columns: int) -> Sequence[Sequence[Axes]]:
    figure = Figure(figsize=(INCHES * columns, (INCHES + 0.25) * rows), layout="constrained")
    found: Sequence[Sequence[Axes]] = figure.subplots(rows, columns, squeeze=False)
    return found


def show(
    axis: Axes,
    image: np.ndarray,
    title: str,
    cmap: str = "gray",
    bar: bool = False,
    limits: tuple[float, float] | None = None,
) -> None:
    low, high = limits or (image.min(), image.max())
    axis.imshow(image, cmap=cmap, vmin=low, vmax=high, interpolation="nearest")
    axis.set_title(title, fontsize=9)
    axis.set_xticks([])
    axis.set_yticks([])
    if bar:
        rows, columns = image.shape[:2]
        length = ScaleBar.within(columns * 10.0)
        begin = columns * 0.95 - length.length_nm / 10
        axis.plot([begin, columns * 0.95], [rows * 0.94] * 2, color="w", lw=3)
        axis.text(
            begin + length.length_nm / 20, rows * 0.92, length.label, color="w", ha="center",
            va="bottom", fontsize=8, fontweight="bold",
        )  # fmt: skip


def save(figure: Figure, name: str) -> None:
    figure.savefig(FIGURES / f"{name}.png")
    print(FIGURES / f"{name}.png")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
