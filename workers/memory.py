"""How much memory this process has held."""

from __future__ import annotations

import re
from pathlib import Path

PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)


def peak_bytes() -> int:
    """The most resident memory so far; 0 where the system does not tell, as outside Linux.

    ``getrusage`` would count what a process had before it started this program.
    """
    try:
        found = PEAK.search(Path("/proc/self/status").read_text())
    except OSError:
        return 0
    return int(found[1]) * 1024 if found else 0
