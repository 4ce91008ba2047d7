"""Raw images to affinities by a trained network."""

from __future__ import annotations

import hashlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from pipeline.config import Network
from pipeline.errors import DataError
from pipeline.geometry import ZYX, Block, BlockGrid, Coordinate, Offsets, Roi, slices
from pipeline.hardware import Hardware
from pipeline.location import Location
from pipeline.patches import Patch, PatchGrid, reflected
from pipeline.raw import RawScale
from pipeline.spec import VolumeSpec
from pipeline.stages.stage import Outcome, Process, Stage
from pipeline.volume import Volume

LIBRARY_BYTES = 700_000_000
"""Of torch in a worker, before it computes anything."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PredictBlockwise(Stage):
    """Affinities of each block, from the patches whose tiles it touches.

    A patch depends on raw, checkpoint and parameters only, and lies on a grid of the raw volume; so
    a block may have any size and place. A block that is not whole tiles has patches computed that
    its neighbours compute too: ``network_share`` says how many.

    The partner of a pair is looked up in the same patch. A pair whose partner lies outside the raw
    volume is 0, and so is every pair of a voxel outside the mask.
    """

    revision: ClassVar[int] = 1

    raw: Location
    scale: RawScale
    mask: Location | None
    checkpoint: Path
    network: Network
    patches: PatchGrid
    offsets: Offsets
    precision: Literal["fp32", "bf16"]
    threads: int
    hardware: Hardware
    affinities: VolumeSpec
    embeddings: VolumeSpec | None

    @property
    def parameters(self) -> Mapping[str, Any]:
        total, spec = self.grid.total, self.affinities
        return {
            "roi": [list(total.begin), list(total.shape)],
            "voxel_size_nm": spec.voxel_size_nm.numbers(),
            "raw_range": [self.scale.low, self.scale.high],
            "patch_vx": list(self.patches.patch_vx),
            "crop_vx": list(self.patches.crop_vx),
            "offsets": self.offsets.numbers(),
            "embeddings": self.embeddings is not None,
            "precision": self.precision,
            "threads": self.threads if self.hardware.device == "cpu" else 1,
            "device": self.hardware.device,
            "processor": self.hardware.processor,
            "torch": self.hardware.torch,
            **self.network.revisions,
        }

    @property
    def network_share(self) -> float:
        """Voxels that the network computes for each voxel written."""
        return self._share(self.grid)

    def _share(self, blocks: BlockGrid) -> float:
        written = math.prod(int(side) for side in blocks.total.shape)
        return self.patches.network_voxels(blocks) / written

    def remarks(self) -> list[str]:
        tile = self.patches.tile_vx
        lines = [
            f"patches of {list(self.patches.patch_vx)} for {list(tile)} voxels, "
            f"{self.network_share:.2f} network voxels for each voxel; "
            f"on {self.hardware.device}: {self.hardware.processor}",
            f"weights of {self.checkpoint}",
        ]
        sides = zip(self.grid.block_vx, tile, strict=True)
        whole = ZYX(*(max(1, round(side / n)) * n for side, n in sides))
        share = self._share(BlockGrid(self.grid.total, whole))
        if share < self.network_share:
            lines.append(f"{share:.2f} with machine.predict.block_vx={list(whole)}")
        return lines

    @property
    def memory_bytes(self) -> int:
        patch = math.prod(self.patches.patch_vx) * self.bytes_per_patch_voxel
        each = len(self.offsets) + 3
        if self.embeddings:
            each += 2 * self.network.embedding
        # Twice, as Zarr compresses a copy.
        return LIBRARY_BYTES + patch + 2 * each * math.prod(self.grid.block_vx)

    @property
    def bytes_per_patch_voxel(self) -> int:
        """What a patch needs, for each voxel: the finest level of the network, and the embedding.

        Measured with the network of PEA: 28 features and 16 of an embedding take 1100 bytes on a
        CPU.
        """
        finest = 4 * self.network.features[0]
        return 12 * finest + 12 * self.network.embedding + 64

    @property
    def writes_table(self) -> bool:
        return False

    def output_specs(self) -> Mapping[str, VolumeSpec]:
        specs = {"affinities/s0": self.affinities}
        if self.embeddings:
            specs["embeddings/s0"] = self.embeddings
        return specs

    @contextmanager
    def open(self) -> Iterator[Process]:
        # Here, so that `pea plan` and the other stages do without torch.
        from pipeline.model.predictor import predictor

        if file_digest(self.checkpoint) != self.contents["checkpoint"]:
            raise DataError(
                f"{self.checkpoint} was replaced while it was about to be used\n"
                "Wait for the training to end, then: pea run ... --rerun"
            )
        reader = PatchReader(Volume.open(self.raw), self.scale)
        mask = Volume.open(self.mask) if self.mask else None
        outputs = self.output_volumes()
        names = list(outputs)

        def process(block: Block) -> Outcome:
            valid = _present(mask, block.write)
            shape = tuple(block.write.shape)
            made = [
                np.zeros((spec.shape[0], *shape), spec.dtype)
                for spec in self.output_specs().values()
            ]
            patches = [
                patch
                for patch in self.patches.patches(block.write)
                if valid[_part(patch, block)].any()
            ]
            for patch, raw in ahead(reader, patches):
                output = network.output(raw)
                tile = patch.tile.intersect(block.write)
                here, inner = slices(tile, block.write.begin), slices(tile, patch.read.begin)
                inside = slices(self.patches.total, patch.read.begin)
                made[0][(slice(None), *here)] = network.affinities(
                    output, self.offsets, inner, inside
                )
                if self.embeddings:
                    made[1][(slice(None), *here)] = output[(slice(None), *inner)].cpu().numpy()
            for name, values in zip(names, made, strict=True):
                values *= valid
                outputs[name].write(block.write, values)
            return Outcome(int(np.count_nonzero(made[0])), masked=not valid.any())

        with predictor(
            self.checkpoint, self.hardware.device, self.precision, self.threads
        ) as network:
            yield process


class PatchReader:
    """Reads and scales patches of raw, reflected beyond the volume."""

    def __init__(self, raw: Volume, scale: RawScale) -> None:
        self._raw = raw
        self._scale = scale
        self._warned = False

    def __call__(self, patch: Patch) -> np.ndarray:
        """Raw of a patch, float32 in [0, 1].

        Raises:
            DataError: damaged, not finite, or outside its range.
        """
        whole = self._raw.roi
        places = [
            reflected(low - origin, high - origin, side)
            for low, high, origin, side in zip(
                patch.read.begin, patch.read.end, whole.begin, whole.shape, strict=True
            )
        ]
        begin = [int(along.min()) for along in places]
        shape = [int(along.max()) + 1 - low for along, low in zip(places, begin, strict=True)]
        box = Roi(whole.begin + Coordinate(begin), shape)
        found = self._raw.read(box)
        where = f"{self._raw.path}, voxels {tuple(box.begin)} to {tuple(box.end)}"
        scaled = self._scale.apply(found, where)
        if not self._warned and scaled.min() == scaled.max():
            self._warned = True
            log.warning("raw is the same everywhere in a patch, %s: %s", found.flat[0], where)
        index = [along - low for along, low in zip(places, begin, strict=True)]
        return np.ascontiguousarray(scaled[np.ix_(*index)])


def ahead(
    read: Callable[[Patch], np.ndarray], patches: Sequence[Patch]
) -> Iterator[tuple[Patch, np.ndarray]]:
    """Patches with their raw, each read while the one before it is worked on."""
    if not patches:
        return
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(read, patches[0])
        for patch, after in zip(patches, [*patches[1:], None], strict=True):
            raw = following.result()
            if after is not None:
                following = pool.submit(read, after)
            yield patch, raw


def file_digest(path: Path) -> str:
    """Fingerprint of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _part(patch: Patch, block: Block) -> tuple[slice, ...]:
    """Where a block needs a patch, as an index into the block."""
    return slices(patch.tile.intersect(block.write), block.write.begin)


def _present(mask: Volume | None, roi: Roi) -> np.ndarray:
    """Which voxels exist, as bool. A mask says so of the region; around it there is nothing."""
    if mask is None:
        return np.ones(tuple(roi.shape), bool)
    found = np.zeros(tuple(roi.shape), bool)
    known = roi.intersect(mask.roi)
    if not known.empty:
        found[slices(known, roi.begin)] = mask.read(known) != 0
    return found
