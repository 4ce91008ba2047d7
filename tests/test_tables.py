"""Tables on disk, read whole or mapped."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import DataError, NotFoundError
from pipeline.tables import mapped_table, read_table, write_table

COLUMNS = {
    "ids": np.arange(1, 200_001, dtype=np.uint64),
    "none": np.zeros(0, np.uint64),
    "scores": np.linspace(0, 1, 7),
    "ends": np.arange(12).reshape(6, 2),
}


def test_a_mapped_table_is_the_one_that_was_written(tmp_path: Path) -> None:
    write_table(tmp_path / "table.npz", COLUMNS)
    whole, mapped = read_table(tmp_path / "table.npz"), mapped_table(tmp_path / "table.npz")
    assert list(whole) == list(mapped) == list(COLUMNS)
    for name, column in COLUMNS.items():
        for found in (whole[name], mapped[name]):
            assert found.dtype == column.dtype
            assert np.array_equal(found, column)
    assert isinstance(mapped["ids"], np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        mapped["ids"][0] = 1


@pytest.mark.parametrize("read", [read_table, mapped_table])
def test_a_byte_that_changed_anywhere_is_noticed(read, tmp_path: Path) -> None:
    path = tmp_path / "table.npz"
    write_table(path, COLUMNS)
    clean = bytearray(path.read_bytes())
    for place in (200, 300, 1_500_000, len(clean) - 700):
        damaged = clean.copy()
        damaged[place] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(DataError, match="damaged table"):
            read(path)
    path.write_bytes(clean[:-100])
    with pytest.raises(DataError, match="damaged table"):
        read(path)
    path.unlink()
    with pytest.raises(NotFoundError, match="no table at"):
        read(path)


def test_a_column_whose_order_a_map_would_lose_is_refused(tmp_path: Path) -> None:
    square = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.savez(tmp_path / "a.npz", square=square)
    assert np.array_equal(read_table(tmp_path / "a.npz")["square"], square)
    with pytest.raises(DataError, match="cannot be mapped"):
        mapped_table(tmp_path / "a.npz")
