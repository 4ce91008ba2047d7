"""The run directory: where a run keeps its arrays and tables, and what it knows to be done.

    runs/NAME/
      run.yaml                                the resolved settings of the last start
      provenance.json                         versions, host and command of every start
      plan.json                               the stages of the last start
      volumes.zarr/{basins,fragments,segmentation}
      tables/STAGE-FINGERPRINT/LAYOUT/*.npz   one table per block, or of the whole
      done/STAGE-FINGERPRINT/identity.json    what the fingerprint stands for
      done/STAGE-FINGERPRINT/LAYOUT/*.jsonl   a line for each block that is done
      done/STAGE-FINGERPRINT/complete.json    there when every block is
      logs/STAGE/
      scores.json                             scores of the run and of its sweep
      sweep.png                               the sweep, drawn
      objects.json                            its worst splits and merges
      report.html                             all of it to look at, in one file
      references/METHOD, METHOD.json          by methods that need the whole volume, and scores
      meshes/, skeletons/                     of some segments, for `pea view`

A block is done when its line is in a ledger. The line is written last, after the block's files are
on disk, and lists their sizes and checksums. Ledgers are only appended to, one per process, so a
crash can at most tear the last line, which then does not count.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.tables import replacing

HIDDEN = ".dropped-"


@dataclass(frozen=True)
class Identity:
    """All that decides the numbers of a stage; equal identities give equal bits."""

    stage: str
    revision: int
    """Raised by whoever changes the stage's numbers."""
    parameters: Mapping[str, Any]
    inputs: Mapping[str, str]
    """Name of each input and the fingerprint of its content."""

    @property
    def fingerprint(self) -> str:
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def changes_since(self, former: Mapping[str, Any]) -> list[str]:
        """What differs from a stored identity, in words."""
        changes = []
        if former.get("revision") != self.revision:
            changes.append(f"revision of {self.stage}: {former.get('revision')} -> {self.revision}")
        for key in ("parameters", "inputs"):
            now, then = dict(getattr(self, key)), dict(former.get(key, {}))
            for name in sorted(now.keys() | then.keys()):
                if now.get(name) != then.get(name):
                    kind = "input " if key == "inputs" else ""
                    changes.append(f"{kind}{name}: {then.get(name)} -> {now.get(name)}")
        return changes


@dataclass(frozen=True)
class Record:
    """One line of a ledger: a block that is done."""

    block: int
    files: Mapping[str, tuple[int, int]]
    """Path in the run directory -> bytes and CRC-32."""
    filled: int
    """Voxels or rows that are not background; all blocks at 0 is an alarm."""
    masked: bool
    """The mask left nothing to do here."""
    seconds: float = 0.0
    peak_bytes: int = 0
    """The most memory that its process ever held; 0 where the system does not tell."""

    @classmethod
    def of(cls, line: bytes) -> Record:
        """A record from its line.

        Raises:
            ValueError, TypeError: torn by a crash, or not one of ours.
        """
        record = cls(**json.loads(line))
        if type(record.block) is not int or not isinstance(record.files, dict):
            raise TypeError(f"not a record: {line!r}")
        for size, checksum in record.files.values():
            if type(size) is not int or type(checksum) is not int:
                raise TypeError(f"not a record: {line!r}")
        return record


@dataclass(frozen=True)
class RunDirectory:
    """Paths and records of one run."""

    root: Path

    def volume(self, name: str) -> Path:
        return self.root / "volumes.zarr" / name

    @property
    def plan(self) -> Path:
        return self.root / "plan.json"

    @property
    def lock(self) -> Path:
        """Held by the driver; it says who that is."""
        return self.root / ".lock"

    @property
    def scores(self) -> Path:
        return self.root / "scores.json"

    @property
    def sweep_picture(self) -> Path:
        return self.root / "sweep.png"

    @property
    def objects(self) -> Path:
        return self.root / "objects.json"

    @property
    def report(self) -> Path:
        return self.root / "report.html"

    @property
    def meshes(self) -> Path:
        """Of `pea mesh`, in Neuroglancer's format."""
        return self.root / "meshes"

    @property
    def skeletons(self) -> Path:
        """Of `pea skeleton`, in Neuroglancer's format."""
        return self.root / "skeletons"

    @property
    def checkpoints(self) -> Path:
        """``best``, ``last`` and ``state``, each ``.safetensors``, and the curves of a training."""
        return self.root / "checkpoints"

    @property
    def training_state(self) -> Path:
        return self.checkpoints / "state.safetensors"

    def logs(self, stage: str) -> Path:
        return self.root / "logs" / stage

    def done(self, identity: Identity) -> Path:
        return self.root / "done" / f"{identity.stage}-{identity.fingerprint}"

    def tables(self, identity: Identity, layout: str) -> Path:
        return self.root / "tables" / f"{identity.stage}-{identity.fingerprint}" / layout

    def complete_tables(self, identity: Identity) -> list[Path]:
        """The tables that a finished stage wrote, one for each of its blocks, in order.

        Raises:
            DataError: the stage is not finished.
        """
        complete = self.completion(identity)
        if complete is None:
            raise DataError(f"{identity.stage} is not finished in {self.root}\nRun it first.")
        folder = self.tables(identity, complete["layout"])
        return [folder / table_name(block) for block in range(complete["blocks"])]

    def table_bytes(self, identity: Identity) -> int | None:
        """The size of all tables that a finished stage wrote; None before."""
        if self.completion(identity) is None:
            return None
        return sum(path.stat().st_size for path in self.complete_tables(identity) if path.exists())

    def completion(self, identity: Identity) -> dict[str, Any] | None:
        """What was noted when a stage ended with every block, or None."""
        try:
            notes = json.loads((self.done(identity) / "complete.json").read_text())
            return dict(notes) if notes.pop("crc") == _crc(notes) else None
        except (OSError, ValueError, TypeError, LookupError, AttributeError):
            return None  # damaged: the ledgers still know what is done

    def complete(self, identity: Identity, notes: Mapping[str, Any]) -> None:
        """Note that a stage ended with every block."""
        write_json(self.done(identity) / "complete.json", {**notes, "crc": _crc(notes)})

    def begin(self, identity: Identity, layout: str) -> None:
        """Make the folders of a stage and note what its fingerprint stands for."""
        (self.done(identity) / layout).mkdir(parents=True, exist_ok=True)
        write_json(self.done(identity) / "identity.json", asdict(identity))
        self.logs(identity.stage).mkdir(parents=True, exist_ok=True)

    def former_identities(self, identity: Identity) -> list[dict[str, Any]]:
        """Identities of the same stage, other than this one, that left something here."""
        found = []
        for folder in sorted((self.root / "done").glob(f"{identity.stage}-*")):
            if folder.name != self.done(identity).name:
                try:
                    found.append(json.loads((folder / "identity.json").read_text()))
                except (OSError, ValueError):
                    found.append({})
        return found

    def records(self, identity: Identity, layout: str) -> dict[int, Record]:
        """The blocks done, from all ledgers; torn and foreign lines do not count."""
        records: dict[int, Record] = {}
        for ledger in sorted((self.done(identity) / layout).glob("*.jsonl")):
            for line in ledger.read_bytes().splitlines():
                try:
                    record = Record.of(line)
                except (ValueError, TypeError):
                    continue  # torn by a crash
                records[record.block] = record
        return records

    def intact(self, record: Record, whole: bool = False) -> bool:
        """Whether the files of a block are there in their size, and if ``whole``, in their bits."""
        for name, (size, checksum) in record.files.items():
            path = self.root / name
            try:
                if path.stat().st_size != size or (whole and _checksum(path) != checksum):
                    return False
            except OSError:
                return False
        return True

    def sweep(self, folders: Iterable[Path]) -> None:
        """Delete files that a killed process left half written."""
        for folder in folders:
            for path in folder.rglob("*.partial"):
                path.unlink(missing_ok=True)

    def forget_blocks(self, identity: Identity, layout: str, blocks: Iterable[int]) -> None:
        """Take back that blocks are done, and that their stage is complete."""
        kept = self.records(identity, layout)
        for block in blocks:
            kept.pop(block, None)
        folder = self.done(identity) / layout
        (self.done(identity) / "complete.json").unlink(missing_ok=True)
        ledgers = sorted(folder.glob("*.jsonl"))
        with replacing(folder / "kept.jsonl") as partial:
            partial.write_text("".join(json.dumps(asdict(r)) + "\n" for r in kept.values()))
        for ledger in ledgers:
            if ledger.name != "kept.jsonl":
                ledger.unlink()

    def recorded(self, files: Iterable[Path]) -> dict[str, tuple[int, int]]:
        """Force a block's files to disk and describe them as they are there."""
        described = {}
        for path in files:
            with path.open("rb") as file:
                os.fsync(file.fileno())
            described[str(path.relative_to(self.root))] = (path.stat().st_size, _checksum(path))
        return described

    def hide_records(self, stage: str) -> None:
        """Put the records of a stage, of every fingerprint, out of sight, one rename each."""
        for folder in self._folders("done", stage):
            hidden = folder.with_name(HIDDEN + folder.name)
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)

    def has_hidden(self, stage: str) -> bool:
        return bool(self._folders("done", HIDDEN + stage))

    def remove_hidden(self, stage: str) -> None:
        """Delete hidden records and the tables of a stage, the records last."""
        for folder in [*self._folders("tables", stage), *self._folders("done", HIDDEN + stage)]:
            shutil.rmtree(folder)

    def _folders(self, kind: str, stage: str) -> list[Path]:
        found = (self.root / kind).glob(f"{stage}-*")
        return [folder for folder in found if folder.name.rpartition("-")[0] == stage]


class Ledger:
    """Where one process notes the blocks it has done."""

    def __init__(self, folder: Path, writer: str) -> None:
        self._file = (folder / f"{writer}.jsonl").open("ab")

    def append(self, record: Record) -> None:
        """Add a line and force it to disk."""
        # A line break first: the line before may have been torn by a crash.
        self._file.write(b"\n" + json.dumps(asdict(record)).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def table_name(block: int) -> str:
    return f"{block:08d}.npz"


def _crc(notes: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(notes, sort_keys=True).encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a JSON value in one step."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def _checksum(path: Path) -> int:
    checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
