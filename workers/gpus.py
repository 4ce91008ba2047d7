"""One GPU for each worker."""

from __future__ import annotations

import os
from pathlib import Path


def choose_gpu(worker: int) -> None:
    """Leave this process one of the GPUs it may use, in turn; before torch looks for them."""
    name = "CUDA_VISIBLE_DEVICES"
    given = os.environ.get(name)
    if given is None:
        count = len(list(Path("/proc/driver/nvidia/gpus").glob("*")))
        visible = [str(number) for number in range(count)]
    else:
        visible = [each for each in given.split(",") if each]
    if len(visible) > 1:
        os.environ[name] = visible[worker % len(visible)]
