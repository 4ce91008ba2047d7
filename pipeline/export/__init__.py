"""The door to other programs: volumes become HDF5, TIFF, N5 and Neuroglancer precomputed.

What is written can be ingested again, and is the same volume: its voxels, voxel size and offset.
Only TIFF has no place for an offset.
"""

from pipeline.export.cut import Cut
from pipeline.export.export import export
from pipeline.export.formats import Format, format_of

__all__ = ["Cut", "Format", "export", "format_of"]
