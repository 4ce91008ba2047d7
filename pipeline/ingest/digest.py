"""What a volume holds, as a hash that neither the source's format nor the slabs can change."""

from __future__ import annotations

import hashlib

import numpy as np

from pipeline.spec import VolumeSpec


class ContentDigest:
    """SHA-256 of meaning, type, shape and voxels; equal voxels have equal digests.

    Each channel is hashed by itself, as little-endian bytes in the order z, y, x; the digest is the
    hash of these hashes. The place in the world is not part of it.
    """

    def __init__(self, spec: VolumeSpec) -> None:
        self._dtype = np.dtype(spec.dtype).newbyteorder("<")
        self._header = f"{spec.meaning} {np.dtype(spec.dtype).name} {spec.shape}"
        self._channels = [hashlib.sha256() for _ in range(spec.channels or 1)]

    def update(self, planes: np.ndarray) -> None:
        """Take the next planes, ``(z, y, x)`` or ``(channel, z, y, x)``."""
        channels = planes.reshape(len(self._channels), *planes.shape[-3:])
        for digest, channel in zip(self._channels, channels, strict=True):
            digest.update(np.ascontiguousarray(channel, self._dtype))

    def hexdigest(self) -> str:
        """The digest of the planes so far."""
        parts = [self._header, *(digest.hexdigest() for digest in self._channels)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()
