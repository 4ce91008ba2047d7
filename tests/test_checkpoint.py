"""Weights on disk come back bit for bit, and a bad file is refused without running anything."""

from __future__ import annotations

import ast
import json
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from pipeline.checkpoint import KEY, MAX_HEADER_BYTES, Header, read_metadata
from pipeline.config import Network
from pipeline.errors import CheckpointError, NotFoundError
from pipeline.geometry import Offsets
from pipeline.model.backbone import build
from pipeline.model.checkpoint import Checkpoint, read_tensors

ROOT = Path(__file__).parents[1]
NETWORK = Network.model_validate({"features": [3, 4], "pools": [[1, 2, 2]], "embedding": 5})
LONG = Offsets.of([[-1, 0, 0], [0, -1, 0], [0, 0, -1], [0, 2, -9]])
SCORES = {"voi": 0.1 + 0.2, "thresholds": [0.5, 1 / 3]}


def drawn() -> Checkpoint:
    torch.manual_seed(5)
    run = {"name": "ä run", "train": {"offsets": LONG.numbers()}, "none": None}
    weights = build(NETWORK, 4).state_dict()
    weights["stem.bias"][:3] = torch.tensor([-0.0, 1e-42, torch.finfo().max])
    return Checkpoint(Header(NETWORK, LONG, 1234, run, SCORES), weights)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "best.safetensors"
    drawn().write(path)
    return path.read_bytes()


@pytest.fixture
def path(good: bytes, tmp_path: Path) -> Path:
    """A good file, to be spoilt."""
    path = tmp_path / "best.safetensors"
    path.write_bytes(good)
    return path


def bits(tensors: Any) -> dict[str, tuple[str, list[int], bytes]]:
    return {
        name: (str(value.dtype), list(value.shape), value.contiguous().numpy().tobytes())
        for name, value in tensors.items()
    }


def test_a_checkpoint_comes_back_bit_for_bit(path):
    made, found = drawn(), Checkpoint.read(path)
    assert bits(found.weights) == bits(made.weights)
    assert found.header == made.header == Header.read(path)
    again = path.with_name("again.safetensors")
    found.write(again)
    assert again.read_bytes() == path.read_bytes()
    assert sorted(each.name for each in path.parent.iterdir()) == [again.name, path.name]


def test_the_module_has_the_weights_and_is_ready_to_predict(path):
    made, module = drawn(), Checkpoint.read(path).module()
    assert not module.training
    assert bits(module.state_dict()) == bits(made.weights)


def test_weights_in_any_memory_layout_are_written_as_values(path):
    checkpoint = drawn()
    turned = {
        name: value.to(memory_format=torch.channels_last_3d) if value.ndim == 5 else value
        for name, value in checkpoint.weights.items()
    }
    Checkpoint(checkpoint.header, turned).write(path)
    assert bits(Checkpoint.read(path).weights) == bits(checkpoint.weights)


def test_names_of_parallel_wrappers_are_accepted(path):
    checkpoint = drawn()
    wrapped = {f"module.{name}": value for name, value in checkpoint.weights.items()}
    Checkpoint(checkpoint.header, wrapped).write(path)
    assert bits(Checkpoint.read(path).weights) == bits(checkpoint.weights)


def test_a_write_that_fails_leaves_the_file_before(path, good, monkeypatch):
    def failing(tensors: object, partial: Path, metadata: object) -> None:
        partial.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(safetensors.torch, "save_file", failing)
    with pytest.raises(OSError, match="disk full"):
        drawn().write(path)
    assert path.read_bytes() == good
    assert list(path.parent.iterdir()) == [path]


def test_the_description_is_read_without_torch(path):
    code = (
        "import sys; from pathlib import Path; from pipeline.checkpoint import Header\n"
        "print(Header.read(Path(sys.argv[1])).step, 'torch' in sys.modules)"
    )
    words = [sys.executable, "-c", code, str(path)]
    said = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, check=True)
    assert said.stdout.split() == ["1234", "False"]


def refused(path: Path, *words: str) -> None:
    """It is refused in a few lines with the file and what to do, and nothing is written."""
    before = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    with pytest.raises(CheckpointError) as caught:
        Checkpoint.read(path)
    lines = str(caught.value).splitlines()
    assert 2 <= len(lines) <= 4, lines
    assert max(len(line) for line in lines) < 600
    assert str(path) in lines[0]
    advice = ("train again", "must be converted", "are never opened")
    assert any(word in str(caught.value) for word in advice), lines
    for word in words:
        assert word in str(caught.value), lines
    after = {each: each.read_bytes() for each in path.parent.iterdir() if each.is_file()}
    assert after == before


def test_no_file_and_no_plain_file(tmp_path):
    for read in (Checkpoint.read, Header.read, read_tensors):
        with pytest.raises(NotFoundError, match=r"no checkpoint at .*nothing"):
            read(tmp_path / "nothing.safetensors")
    refused(tmp_path)


class Canary:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_is_never_run(tmp_path, protocol):
    canary = tmp_path / "executed"
    path = tmp_path / "best.safetensors"
    path.write_bytes(pickle.dumps({"state_dict": Canary(canary)}, protocol))
    refused(path, "never opened")
    assert not canary.exists()


@pytest.mark.parametrize("zipped", [False, True])
def test_a_checkpoint_of_torch_is_never_run(tmp_path, zipped):
    canary = tmp_path / "executed"
    path = tmp_path / "best.pt"
    content = {"weights": torch.zeros(3), "more": Canary(canary)}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    refused(path, "never opened")
    assert not canary.exists()


def test_a_pickle_among_the_weights_is_bytes(path, tmp_path):
    """Where the tensors should be, behind a header that is right."""
    content = path.read_bytes()
    canary = tmp_path / "executed"
    pickled = pickle.dumps(Canary(canary))
    path.write_bytes(content[: -len(pickled)] + pickled)
    Checkpoint.read(path)
    assert not canary.exists()


def header_end(content: bytes) -> int:
    return 8 + int.from_bytes(content[:8], "little")


@pytest.mark.parametrize("place", ["0", "1", "7", "8", "9", "h/2", "h-1", "h", "h+1", "e-1", "e+1"])
def test_a_file_that_was_cut_is_refused(path, good, place):
    end = header_end(good)
    at = {"h/2": end // 2, "h-1": end - 1, "h": end, "h+1": end + 1, "e-1": len(good) - 1}
    kept = good + b"\0" if place == "e+1" else good[: at[place] if place in at else int(place)]
    path.write_bytes(kept)
    refused(path)


@pytest.mark.parametrize("length", [0, 1, MAX_HEADER_BYTES + 1, 2**40, 2**63 - 1, 2**64 - 1])
def test_a_header_of_absurd_length_is_refused(path, good, length):
    path.write_bytes(length.to_bytes(8, "little") + good[8:])
    refused(path, f"{length} bytes")


@pytest.mark.parametrize(
    "header",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"[1, 2]",
        b"7 ",
        b"null",
        b"\xff\xfe{}",
        b'{"__metadata__": 3}',
        b'{"__metadata__": null}',
        b'{"__metadata__": [1]}',
        b"{}",
        b'{"weight": ' + b"9" * 5000 + b"}",
    ],
    ids=lambda header: header[:20].decode(errors="replace"),
)
def test_a_header_that_is_none_is_refused(path, header):
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    refused(path)


@pytest.mark.parametrize(
    "said",
    [
        {"shape": [2**40], "data_offsets": [0, 2**42]},
        {"shape": [2**62, 2**62], "data_offsets": [0, 4]},
        {"shape": [-1], "data_offsets": [0, 4]},
        {"shape": [3], "data_offsets": [8, 4]},
        {"dtype": "object", "shape": [1], "data_offsets": [0, 4]},
    ],
)
def test_a_tensor_that_cannot_be_is_refused(path, said):
    header = json.dumps(
        {"__metadata__": drawn().header.metadata(), "stem.bias": {"dtype": "F32"} | said}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    refused(path)


def spoilt(path: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = {name: value.clone() for name, value in read_tensors(path).items()}
    change(tensors)
    safetensors.torch.save_file(tensors, path, read_metadata(path))


def put(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors.update({name: value})


def number(value: float) -> Callable[[dict[str, Tensor]], object]:
    return lambda tensors: tensors["down.1.second.weight"].view(-1)[7].fill_(value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("head.bias"), ("missing head.bias",)),
        (dict.clear, ("missing down.0", "and ", "more")),
        (put("extra.weight", torch.zeros(1)), ("unexpected extra.weight",)),
        (put("head.bias", torch.zeros(6)), ("head.bias is torch.float32 [6], should be", "[5]")),
        (put("head.bias", torch.zeros(5, 1)), ("[5, 1]",)),
        (put("head.bias", torch.zeros(5).half()), ("torch.float16", "torch.float32")),
        (put("head.bias", torch.zeros(5).double()), ("torch.float64",)),
        (put("head.bias", torch.zeros(5, dtype=torch.int32)), ("torch.int32",)),
        (put("module.head.bias", torch.zeros(5)), ("'module.'", "once")),
        (put("x" * 5000, torch.zeros(1)), ("unexpected xxx",)),
        (number(float("nan")), ("down.1.second.weight", "not finite")),
        (number(float("inf")), ("not finite",)),
        (number(-float("inf")), ("not finite",)),
    ],
)
def test_weights_of_another_network_are_refused(path, change, words):
    spoilt(path, change)
    refused(path, *words)


def description(**changes: Any) -> str:
    said = json.loads(drawn().header.metadata()[KEY])
    for key, value in changes.items():
        if value is ...:
            del said[key]
        else:
            said[key] = value
    return json.dumps(said)


def network(**changes: Any) -> dict[str, Any]:
    return NETWORK.model_dump(mode="json") | changes


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", ()),
        ("no JSON", ()),
        ("[1]", ()),
        ('"text"', ()),
        ("null", ()),
        ("[" * 100_000, ()),
        ('{"format": 1, "network": ' + "[" * 100_000, ()),
        (description(format=...), ("no format",)),
        (description(format=2), ("must have format 1, found 2", "another version")),
        (description(format="1"), ("found '1'",)),
        (description(format=[1]), ("found [1]",)),
        (description(format=True), ("found True",)),
        (description(network=...), ("no network",)),
        (description(network=None), ("Network",)),
        (description(network=network(depth=3)), ("depth",)),
        (description(network=network(norm="layer")), ("norm",)),
        (description(network=network(embedding=0)), ("embedding",)),
        (description(network=network(embedding="5")), ("embedding",)),
        (description(network=network(features=[3])), ("pools",)),
        (description(network=network(features=[3, 5])), ("should be",)),
        (description(network=network(pyramid=False)), ("unexpected pyramid",)),
        (description(network=network(head="affinity", pyramid=False)), ("head.weight",)),
        (description(network=network(features=[4096] * 20, pools=[[1, 2, 2]] * 19)), ("at most",)),
        (description(network=network(stem_vx=[99_999] * 3)), ("at most",)),
        (description(network=network(embedding=10**9)), ("embedding",)),
        (description(offsets=...), ("no offsets",)),
        (description(offsets=[[0, 0, 1]]), ("direct",)),
        (description(offsets=7), ("offset",)),
        (description(offsets=[["a", 0, 0]]), ("offset",)),
        (description(step=...), ("no step",)),
        (description(step="many"), ("step", "'many'")),
        (description(step=-1), ("step", "-1")),
        (description(step=1.5), ("step", "1.5")),
        (description(step=float("inf")), ("step", "inf")),
        (description(step=None), ("step", "None")),
        (description(run=...), ("no run",)),
        (description(run="garbage"), ("run must be a mapping", "'garbage'")),
        (description(run=[["a", 1]]), ("run must be a mapping",)),
        (description(run=None), ("run must be a mapping",)),
        (description(scores=3), ("scores must be a mapping",)),
    ],
    ids=range(40),
)
def test_a_description_that_is_none_is_refused(path, said, words):
    safetensors.torch.save_file(read_tensors(path), path.with_name("other"), {KEY: said})
    path.with_name("other").replace(path)
    refused(path, *words)


def test_weights_of_another_program_are_refused(path):
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"format": "pt"})
    refused(path, f"no {KEY}", "['format']", "converted")


def test_the_run_in_a_description_may_be_of_any_version(path):
    """It is told, never used."""
    odd = {"unknown": [1, {"deep": None}], "run": "x"}
    safetensors.torch.save_file(drawn().weights, path, {KEY: description(run=odd)})
    assert Checkpoint.read(path).header.run == odd


def test_a_network_of_terabytes_that_is_not_in_the_file_takes_no_memory(path):
    """Its description is valid, so it is compared; the comparison allocates nothing."""
    huge = network(features=[4096] * 12, pools=[[1, 2, 2]] * 11)
    safetensors.torch.save_file(drawn().weights, path, {KEY: description(network=huge)})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path, "should be", "more")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


def called(node: ast.AST) -> str:
    """A dotted name, or nothing."""
    if isinstance(node, ast.Attribute):
        return f"{called(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


UNSAFE_MODULES = {"pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal",
                  "shelve"}  # fmt: skip
UNSAFE_CALLS = {"torch.load", "torch.save", "torch.jit.load", "torch.hub.load", "np.load",
                "numpy.load", "eval", "exec", "os.system"}  # fmt: skip


def unsafe(source: str) -> list[str]:
    """What in a program could run code from a file."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            found += [
                name
                for alias in node.names
                if (name := f"{node.module}.{alias.name}") in UNSAFE_CALLS
            ]
        found += [name for name in names if name.split(".")[0] in UNSAFE_MODULES]
        if isinstance(node, ast.Attribute | ast.Name) and called(node) in UNSAFE_CALLS:
            found.append(called(node))
        if isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            safe = node.arg == "allow_pickle" and isinstance(node.value, ast.Constant)
            if not safe or node.value.value is not False:
                found.append(f"{node.arg}={ast.unparse(node.value)}")
    return found


def test_nothing_in_the_project_could_run_code_from_a_file():
    files = [file for top in ("pipeline", "workers") for file in (ROOT / top).rglob("*.py")]
    assert len(files) > 50
    assert {file.name: bad for file in files if (bad := unsafe(file.read_text()))} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "torch.load(p)", "from torch import load",
        "torch.load(p, weights_only=True)", "x.load(p, allow_pickle=True)", "np.load(p)",
        "f = torch.load", "read(allow_pickle=flag)", "import joblib as j", "eval(text)",
    ],
)  # fmt: skip
def test_that_search_finds(source):
    assert unsafe(source)
