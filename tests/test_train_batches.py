"""Batches for training: the same whoever makes them, and errors that reach the user."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from itertools import islice

import numpy as np
import psutil
import pytest

from pipeline.errors import DataError, NotFoundError, PipelineError, RoiError, StageError
from pipeline.raw import RawScale
from pipeline.train.batches import Batches
from pipeline.volume import Volume
from tests.drawn import SHAPE
from tests.trained_on import CROP, EVERYTHING, NOTHING, data_of, train_with

STEPS = 50


def made(data, train, workers, step, count, view=True):
    with Batches(data, train, workers, view) as batches:
        return list(islice(batches.starting_at(step), count))


def bits(batch):
    return (batch.raw.tobytes(), batch.labels.tobytes(), batch.view.tobytes(), batch.transforms)


@pytest.fixture
def data(tmp_path):
    return data_of(tmp_path, margin=(1, 2, 3))


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The batches of the first steps, with everything switched on."""
    data = data_of(tmp_path_factory.mktemp("expected"), margin=(1, 2, 3))
    return [bits(batch) for batch in made(data, train_with(EVERYTHING), 0, 0, STEPS)]


# The same batches -----------------------------------------------------------------------------


def test_batches_of_all_steps_differ(expected):
    for part in range(3):
        assert len({batch[part] for batch in expected}) == STEPS


def test_crops_of_a_batch_differ(data):
    (batch,) = made(data, train_with(EVERYTHING, batch=4), 0, 0, 1)
    assert len({crop.tobytes() for crop in batch.raw}) == 4
    assert len({crop.tobytes() for crop in batch.view}) == 4


def test_a_crop_does_not_depend_on_the_size_of_its_batch(data):
    (two,), (three,) = (
        made(data, train_with(EVERYTHING, batch=n, crop_vx=[6, 12, 12]), 0, 5, 1) for n in (2, 3)
    )
    assert np.array_equal(two.raw, three.raw[:2])
    assert np.array_equal(two.view, three.view[:2])
    assert two.transforms == three.transforms[:2]


def test_batches_are_the_same_in_another_process_and_after_a_resume(data, expected):
    found = made(data, train_with(EVERYTHING), 1, 13, STEPS - 13)
    assert [bits(batch) for batch in found] == expected[13:]


def test_batches_are_the_same_from_two_processes_and_start_again(data, expected):
    with Batches(data, train_with(EVERYTHING), 2) as batches:
        assert [bits(b) for b in islice(batches.starting_at(0), STEPS)] == expected
        assert [bits(b) for b in islice(batches.starting_at(7), 4)] == expected[7:11]


def test_another_seed_gives_other_batches(data, expected):
    others = made(data, train_with(EVERYTHING, seed=2), 0, 0, 5)
    assert not {bits(batch)[0] for batch in others} & {batch[0] for batch in expected}


def test_the_global_generators_are_left_alone(data):
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002
    before = random.getstate(), np.random.get_state()[1].tolist()  # noqa: NPY002
    made(data, train_with(EVERYTHING), 0, 0, 2)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


# What a batch is ------------------------------------------------------------------------------


def test_arrays_of_a_batch_have_their_shapes_and_types(data):
    (batch,) = made(data, train_with(EVERYTHING, batch=3), 0, 0, 1)
    assert batch.raw.shape == (3, 1, *CROP)
    assert batch.labels.shape == (3, *CROP)
    assert (batch.raw.dtype, batch.labels.dtype, batch.view.dtype) == ("f4", "i4", "f4")
    assert len(batch.transforms) == 3
    for array in (batch.raw, batch.view):
        assert array.min() >= 0
        assert array.max() <= 1


def test_views_of_crops_with_unequal_sides_are_transposed_together(data):
    train = train_with(EVERYTHING, batch=4)
    batches = made(data, train, 0, 0, 12)
    shapes = {batch.view.shape for batch in batches}
    assert shapes == {(4, 1, 6, 10, 14), (4, 1, 6, 14, 10)}
    for batch in batches:
        assert len({transform.order for transform in batch.transforms}) == 1
        for transform, crop, view in zip(batch.transforms, batch.raw, batch.view, strict=True):
            assert transform.undo(view).shape == crop.shape
    square = train_with(EVERYTHING, batch=4, crop_vx=[6, 12, 12])
    mixed = [
        {transform.order for transform in batch.transforms}
        for batch in made(data, square, 0, 0, 12)
    ]
    assert max(len(orders) for orders in mixed) == 2


def test_a_view_is_its_crop_changed_by_the_rule_of_views_alone(data):
    train = train_with(EVERYTHING, view={"intensity": 0.0, "max_cutouts": 0})
    for batch in made(data, train, 0, 0, 4):
        for transform, crop, view in zip(batch.transforms, batch.raw, batch.view, strict=True):
            assert np.array_equal(transform.undo(view), crop)


def test_without_views_there_are_none_and_the_rest_is_the_same(data, expected):
    (batch,) = made(data, train_with(EVERYTHING), 0, 3, 1, view=False)
    assert batch.view is None
    assert batch.transforms == ()
    assert (batch.raw.tobytes(), batch.labels.tobytes()) == expected[3][:2]


def test_widened_borders_are_background(data):
    plain, wide = (
        made(data, train_with(NOTHING, widen_border_vx=width), 0, 0, 1)[0].labels
        for width in (0, 1)
    )
    assert (plain > 0).all()
    assert 0 < (wide > 0).mean() < 1


# Errors ---------------------------------------------------------------------------------------


def test_a_region_smaller_than_a_crop_is_refused_with_both_sizes(data):
    with pytest.raises(RoiError, match=r"(?s)\[6, 10, 60\] voxels .* \[10, 36, 38\]"):
        Batches(data, train_with(NOTHING, crop_vx=[6, 10, 60]), 0)
    with pytest.raises(RoiError, match=r"(?s)transposed .*\[6, 38, 10\] voxels .* \[10, 36, 38\]"):
        Batches(data, train_with({"transpose": "yx"}, crop_vx=[6, 10, 38]), 0)
    Batches(data, train_with(NOTHING, crop_vx=[6, 10, 38]), 0)


def test_a_region_outside_its_volumes_is_refused(data):
    outside = type(data)(data.raw, data.labels, data.scale, data.roi.grow(3, 3))
    with pytest.raises(RoiError, match=r"train\.roi must lie inside"):
        Batches(outside, train_with(NOTHING), 0)


def test_a_volume_that_is_not_there_is_named(data):
    missing = type(data)(data.raw, data.raw.parent / "no", data.scale, data.roi)
    with pytest.raises(NotFoundError, match="no volume at"):
        Batches(missing, train_with(NOTHING), 2)


def test_too_few_labelled_voxels_are_an_error_with_the_best_share(tmp_path):
    labels = np.zeros(SHAPE, np.uint64)
    labels[4, 20, 20] = 1
    data = data_of(tmp_path, labels=labels)
    with pytest.raises(DataError, match=r"share of 0\.5 labelled(?s:.*)the best of 1000"):
        made(data, train_with(NOTHING, min_labelled=0.5), 0, 0, 1)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_volume_is_named(data, workers):
    for shard in Volume.open(data.raw).shards(data.roi):
        shard.write_bytes(b"no longer a shard")
    with pytest.raises(DataError, match=f"damaged or missing chunk in {data.raw}"):
        made(data, train_with(NOTHING), workers, 0, 1)


def test_a_bug_in_a_worker_is_an_error_here_and_says_which(data):
    impossible = type(data)(data.raw, data.labels, RawScale(0, None), data.roi)
    with pytest.raises(TypeError):
        made(impossible, train_with(NOTHING), 0, 4, 1)
    with pytest.raises(StageError, match=r"step 4 (?s:.*)TypeError(?s:.*)raised in apply"):
        made(impossible, train_with(NOTHING), 2, 4, 1)


def test_a_worker_that_dies_is_an_error_and_not_a_wait(data):
    with Batches(data, train_with(NOTHING), 2) as batches:
        stream = batches.starting_at(0)
        next(stream)
        multiprocessing.active_children()[0].kill()
        with pytest.raises(PipelineError, match="ended with status -9"):
            list(islice(stream, 10))
    assert not multiprocessing.active_children()


def test_workers_are_deaf_to_the_keyboard_and_use_one_thread_each(data):
    before = signal.getsignal(signal.SIGINT)
    with Batches(data, train_with(NOTHING), 1) as batches:
        (worker,) = multiprocessing.active_children()
        os.kill(worker.pid, signal.SIGINT)  # also while it is only starting
        stream = batches.starting_at(0)
        next(stream)
        os.kill(worker.pid, signal.SIGINT)
        assert len(list(islice(stream, 5))) == 5
        assert psutil.Process(worker.pid).environ()["OMP_NUM_THREADS"] == "1"
        assert "torch" not in "".join(m.path for m in psutil.Process(worker.pid).memory_maps())
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.slow
def test_workers_end_with_a_parent_that_is_killed(data, tmp_path):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(f"""
        import multiprocessing, time
        from pathlib import Path
        from pipeline.geometry import Roi
        from pipeline.raw import RawScale
        from pipeline.train.batches import Batches, TrainingData
        from tests.trained_on import NOTHING, train_with

        if __name__ == "__main__":
            roi = Roi({tuple(data.roi.begin)}, {tuple(data.roi.shape)})
            volumes = Path({str(data.raw)!r}), Path({str(data.labels)!r})
            data = TrainingData(*volumes, RawScale(0, 1), roi)
            with Batches(data, train_with(NOTHING), 2) as batches:
                next(batches.starting_at(0))
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
                time.sleep(600)
        """)
    )
    path = os.pathsep.join(sys.path)
    with subprocess.Popen(
        [sys.executable, str(script)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    ) as parent:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        parent.kill()
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)
