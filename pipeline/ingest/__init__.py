"""The door for data of others: HDF5, TIFF, PNG, Zarr, N5 and precomputed become volumes here.

Behind it there is one layout, one order of axes, one unit and a few types, all checked here, so
that no later stage has to ask what an array means. The command line calls ``ingest``.
"""

from pipeline.ingest.formats import open_source
from pipeline.ingest.ingest import IngestReport, ingest
from pipeline.ingest.kinds import Kind
from pipeline.ingest.planes import Planes
from pipeline.ingest.sources import Place, Source

__all__ = ["IngestReport", "Kind", "Place", "Planes", "Source", "ingest", "open_source"]
