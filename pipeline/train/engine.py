"""gunpowder, imported without its warnings and without what it does not need here."""

from __future__ import annotations

import sys
import warnings

# It would import PyTorch for nodes that nobody uses here: half a GB and seconds in every worker.
_hidden = "torch" not in sys.modules
if _hidden:
    sys.modules["torch"] = None  # type: ignore[assignment]
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import gunpowder as gunpowder
finally:
    if _hidden:
        del sys.modules["torch"]
