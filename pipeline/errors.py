"""What can go wrong through a user's data, file or command.

Every message says what must hold, what was found, where, and what to do, in one to four lines; the
command line prints it without a traceback. A bug is never one of these: it stays an
``AssertionError`` or whatever Python raises.
"""


class PipelineError(Exception):
    """A mistake that the user can mend."""


class NotFoundError(PipelineError, FileNotFoundError):
    """A file, array or data set is not where it was said to be."""

    __str__ = Exception.__str__


class FormatError(PipelineError, ValueError):
    """A file cannot be read as what it should be."""


class ShapeError(PipelineError, ValueError):
    """An array has the wrong number of axes, or sides that do not fit."""


class DtypeError(PipelineError, TypeError):
    """An array has a type that cannot hold what it should mean."""


class DataError(PipelineError, ValueError):
    """An array holds values outside the range of its meaning, or is damaged on disk."""


class MetadataError(PipelineError, ValueError):
    """The voxel size, offset, unit or order of axes is missing or contradictory."""


class RoiError(PipelineError, ValueError):
    """A region lies outside its volume, off its voxel grid, or misses another region."""


class LayoutError(PipelineError, ValueError):
    """Blocks, chunks and halos do not fit each other."""


class ConfigError(PipelineError, ValueError):
    """A run file, a machine file or an option does not describe a run."""


class ExistsError(PipelineError, FileExistsError):
    """An output is already there and was not made by this very run."""

    __str__ = Exception.__str__


class StageError(PipelineError, RuntimeError):
    """A stage ended without all of its blocks."""


class CheckpointError(PipelineError, ValueError):
    """A file does not hold the weights of a network that this project can build."""


class ExtensionError(PipelineError, ImportError):
    """An extension that a run needs is not installed, or is not what it must be."""


def first_line(error: Exception) -> str:
    """A library's error in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
