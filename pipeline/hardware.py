"""What computes a prediction, as far as it decides bits; found out without torch.

The same network on the same patch gives the same bits on the same kind of processor with the same
torch, and other last bits elsewhere. So a prediction that was begun on one machine is not finished
on another kind; one that is finished is used anywhere.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

NO_GPU = "no GPU"
GPUS = Path("/proc/driver/nvidia/gpus")
INSTRUCTIONS = ("amx_bf16", "amx_int8", "avx512_bf16", "avx512f", "avx2", "avx", "fma")
"""Those that the kernels of torch are chosen by."""
BF16_INSTRUCTIONS = frozenset({"amx_bf16", "avx512_bf16"})


@dataclass(frozen=True)
class Hardware:
    device: str
    """cpu or cuda."""
    processor: str
    """Instruction sets of a CPU, model of a GPU."""
    torch: str
    """Version."""

    def multiplies_bf16(self) -> bool:
        """Whether bf16 is computed at least as fast as fp32; a CPU that imitates it takes ages."""
        return self.device == "cuda" or not BF16_INSTRUCTIONS.isdisjoint(self.processor.split())


def bf16_refusal(setting: str) -> str:
    """What to say where :meth:`Hardware.multiplies_bf16` is false."""
    needed = " or ".join(sorted(BF16_INSTRUCTIONS))
    return (
        f"{setting} bf16 needs a GPU or a CPU with {needed}, and this CPU has neither\n"
        f"Set {setting} to fp32."
    )


def present(device: Literal["auto", "cpu", "cuda"]) -> Hardware:
    """What there is here; ``auto`` is a GPU if there is one."""
    version = _torch_version()
    gpu = NO_GPU if version.endswith("+cpu") else gpu_model()
    if device == "cuda" or (device == "auto" and gpu != NO_GPU):
        return Hardware("cuda", gpu, version)
    return Hardware("cpu", cpu_kind(), version)


def gpu_model() -> str:
    """Model of the first GPU, by the driver's files."""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "all") in ("", "-1"):
        return NO_GPU
    for file in sorted(GPUS.glob("*/information")):
        for line in file.read_text().splitlines():
            if line.startswith("Model:"):
                return line.removeprefix("Model:").strip()
    return "a GPU" if Path("/dev/nvidia0").exists() else NO_GPU


def cpu_kind() -> str:
    """Maker and instruction sets, as in "GenuineIntel avx512f avx2 avx fma"."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    fields = dict(reversed([line.split(":", 1) for line in lines if ":" in line]))
    said = {name.strip(): value.split() for name, value in fields.items()}
    sets = set(said.get("flags", []))
    return " ".join(
        [*said.get("vendor_id", [platform.machine()]), *(n for n in INSTRUCTIONS if n in sets)]
    )


def _torch_version() -> str:
    try:
        return importlib.metadata.version("torch")
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
