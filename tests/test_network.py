"""The residual U-Net: its size, its levels, and what its output may depend on."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional

from pipeline.config import Network
from pipeline.model.backbone import build
from pipeline.model.resunet import ResUNet

SMALL = {"features": [3, 4, 5], "pools": [[1, 2, 2], [1, 2, 2]], "embedding": 6}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def network_of(**settings: Any) -> Network:
    return Network.model_validate(settings)


def made(seed: int = 1, **settings: Any) -> ResUNet:
    """A network in evaluation mode, with statistics as if it had been trained."""
    torch.manual_seed(seed)
    module = build(network_of(**(SMALL | settings)), 3)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm3d):
            nn.init.normal_(part.running_mean, 0, 0.2)
            nn.init.uniform_(part.running_var, 0.5, 2)
        if isinstance(part, nn.BatchNorm3d | nn.GroupNorm):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.normal_(part.bias, 0, 0.2)
        if isinstance(part, nn.Conv3d) and part.bias is not None:
            nn.init.normal_(part.bias, 0, 0.2)
    return module.eval()


def drawn(*shape: int, seed: int = 2) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def size_of(network: Network, num_affinities: int = 3) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in build(network, num_affinities).parameters())


def test_the_network_has_as_many_parameters_as_that_of_pea():
    direct = network_of(head="affinity", pyramid=False)
    assert size_of(Network()) == 1_481_748
    assert size_of(network_of(pyramid=False)) == 1_481_748 - 3_712
    assert size_of(direct, 12) == 1_477_920
    assert size_of(direct, 3) == 1_477_659


def test_without_blocks_on_the_finest_level_just_they_are_missing():
    block = 28 * 28 * (9 + 27 + 27) + 3 * 2 * 28
    assert size_of(network_of(finest_block=False)) == 1_481_748 - 2 * block
    module = made(finest_block=False)
    assert not [name for name in module.state_dict() if name.startswith(("down.0", "merged.0"))]
    assert module(drawn(1, 1, 2, 8, 12)).full.shape == (1, 6, 2, 8, 12)


def test_the_network_of_pea_has_embeddings_on_five_levels():
    with torch.inference_mode():
        output = build(Network(), 12)(drawn(1, 1, 3, 32, 48))
    assert output.full.shape == (1, 16, 3, 32, 48)
    assert [level.shape for level in output.pyramid] == [
        (1, 16, 3, y, x) for y, x in ((16, 24), (8, 12), (4, 6), (2, 3))
    ]


def test_isotropic_pools_shrink_z_too():
    network = network_of(features=[3, 4, 5], pools=[[2, 2, 2], [1, 3, 2]], embedding=7)
    assert network.factor == (2, 6, 4)
    output = build(network, 3)(drawn(1, 1, 4, 12, 8))
    assert output.full.shape == (1, 7, 4, 12, 8)
    assert [level.shape for level in output.pyramid] == [(1, 7, 2, 6, 4), (1, 7, 2, 2, 2)]


def test_a_head_of_affinities_has_their_number_and_no_pyramid():
    module = made(head="affinity", pyramid=False)
    output = module(drawn(1, 1, 2, 4, 8))
    assert output.full.shape == (1, 3, 2, 4, 8)
    assert output.pyramid == ()


def test_the_network_computes_what_its_description_says():
    """By plain functions from the description of PEA, with the convolution after the up-sampling,
    as there; its weights are found by their names in the file.
    """
    module = made(align_corners=True)
    weights = module.state_dict()

    def conv(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        around = [n // 2 for n in weight.shape[2:]]
        return functional.conv3d(x, weight, weights.get(f"{name}.bias"), padding=around)

    def norm(name: str, x: Tensor) -> Tensor:
        mean, var, scale, shift = (
            weights[f"{name}.{part}"].reshape(1, -1, 1, 1, 1)
            for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    def elu(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, x.exp() - 1)

    def block(name: str, x: Tensor) -> Tensor:
        r = elu(norm(f"{name}.norms.0", conv(f"{name}.first", x)))
        b = conv(f"{name}.third", elu(norm(f"{name}.norms.1", conv(f"{name}.second", r))))
        return elu(norm(f"{name}.norms.2", r + b))

    def up(name: str, coarse: Tensor, fine: Tensor) -> Tensor:
        wide = functional.interpolate(
            coarse, scale_factor=(1.0, 2.0, 2.0), mode="trilinear", align_corners=True
        )
        return elu(norm(f"{name}.norm", conv(f"{name}.conv", wide) + fine))

    raw = drawn(2, 1, 3, 8, 12)
    fine = block("down.0", elu(conv("stem", raw)))
    middle = block("down.1", functional.max_pool3d(fine, (1, 2, 2)))
    coarse = block("down.2", functional.max_pool3d(middle, (1, 2, 2)))
    middle = block("merged.1", up("up.1", coarse, middle))
    fine = block("merged.0", up("up.0", middle, fine))
    found = module(raw)
    torch.testing.assert_close(found.full, conv("head", elu(conv("tail", fine))))
    torch.testing.assert_close(found.pyramid[0], conv("pyramid.0", middle))
    torch.testing.assert_close(found.pyramid[1], conv("pyramid.1", coarse))


def norms(module: ResUNet) -> set[type[nn.Module]]:
    kinds = (nn.BatchNorm3d, nn.GroupNorm)
    return {type(part) for part in module.modules() if isinstance(part, kinds)}


def test_kinds_of_normalisation():
    assert norms(made(norm="batch")) == {nn.BatchNorm3d}
    assert norms(made(norm="group")) == {nn.GroupNorm}
    assert norms(made(norm="none")) == set()


def test_groups_divide_the_channels_of_every_level():
    module = build(network_of(norm="group", features=[5, 28, 36, 48], pools=[[1, 2, 2]] * 3), 3)
    groups = {p.num_channels: p.num_groups for p in module.modules() if isinstance(p, nn.GroupNorm)}
    assert groups == {5: 1, 28: 2, 36: 4, 48: 6}
    assert module(drawn(1, 1, 1, 8, 8)).full.isfinite().all()


def test_statistics_move_by_the_momentum():
    module = made(norm="batch", norm_momentum=0.25).train()
    norm = module.down[0].norms[0]
    before, seen = norm.running_mean.clone(), []
    norm.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    module(drawn(2, 1, 2, 4, 8))
    expected = 0.75 * before + 0.25 * seen[0].mean((0, 2, 3, 4))
    torch.testing.assert_close(norm.running_mean, expected)
    assert {p.momentum for p in build(Network(), 3).modules() if isinstance(p, nn.BatchNorm3d)} == {
        0.001
    }


@pytest.mark.parametrize("norm", ["batch", "group", "none"])
def test_in_evaluation_a_patch_decides_alone(norm):
    module = made(norm=norm)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    a, b = drawn(1, 1, 3, 8, 12), drawn(1, 1, 3, 8, 12, seed=3)
    alone = module(a)
    together = module(torch.cat([b, a]))
    torch.testing.assert_close(together.full[1], alone.full[0])
    for one, two in zip(together.pyramid, alone.pyramid, strict=True):
        torch.testing.assert_close(one[1], two[0])
    assert torch.equal(module(a).full, alone.full)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_in_training_batch_normalisation_mixes_patches():
    module = made(norm="batch").train()
    a, b = drawn(1, 1, 3, 8, 12), drawn(1, 1, 3, 8, 12, seed=3)
    together, alone = module(torch.cat([b, a])).full[1], module(a).full[0]
    assert (together - alone).abs().max() > 1e-3


def seen_twice(align_corners: bool) -> tuple[Tensor, Tensor]:
    """Embeddings of the same voxels in two crops 16 voxels apart, far from borders."""
    module = made(features=[3, 4], pools=[[1, 2, 2]], align_corners=align_corners)
    raw = drawn(1, 1, 2, 76, 76)
    with torch.inference_mode():
        one = module(raw[..., :60, :60]).full
        two = module(raw[..., 16:, 16:]).full
    # Its field of view reaches 18 voxels; those from 22 to 54 of the volume see no border of both.
    return one[..., 38:40, 38:40], two[..., 22:24, 22:24]


def test_a_voxel_has_one_embedding_wherever_a_patch_begins():
    one, two = seen_twice(align_corners=False)
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-5)
    assert one.std() > 0.1


def test_aligned_corners_make_embeddings_depend_on_where_a_patch_begins():
    one, two = seen_twice(align_corners=True)
    assert (one - two).abs().max() > 1e-3


def test_the_field_of_view_is_finite():
    """What the tolerance of the test above cannot hide: far voxels have no influence at all."""
    module = made(features=[3, 4], pools=[[1, 2, 2]])
    raw = drawn(1, 1, 2, 60, 60).requires_grad_()
    module(raw).full[..., 30, 30].sum().backward()
    assert raw.grad is not None
    reached = raw.grad[0, 0].abs().sum(0).nonzero()
    assert reached.min() >= 30 - 19
    assert reached.max() <= 30 + 19


def test_weights_begin_as_kaiming_normal_and_biases_as_zero():
    torch.manual_seed(4)
    module = build(Network(), 12)
    for name, part in module.named_modules():
        if isinstance(part, nn.Conv3d):
            count = part.weight.numel()
            expected = math.sqrt(2 / math.prod(part.weight.shape[1:]))
            assert part.weight.std().item() == pytest.approx(expected, rel=5 / math.sqrt(2 * count))
            assert abs(part.weight.mean().item()) < 5 * expected / math.sqrt(count), name
            assert part.bias is None or not part.bias.any()
        if isinstance(part, nn.BatchNorm3d):
            assert (part.weight == 1).all()
            assert not part.bias.any()


def test_new_weights_follow_from_the_seed():
    one, two, three = (made(seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.weight"], three["stem.weight"])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features": [4, 5], "pools": []}, "found 0 pools for 2 levels"),
        ({"features": [4] * 13, "pools": [[1, 2, 2]] * 12}, "at most 12 levels, found 13"),
        ({"features": [], "pools": []}, "one fewer"),
        ({"features": [5000], "pools": []}, "4096"),
        ({"stem_vx": [1, 4, 5]}, r"odd sides, found \[1, 4, 5\]"),
        ({"first_vx": [1, 99, 99]}, r"at most 31, found \[1, 99, 99\]"),
        ({"head": "affinity"}, "pyramid must be false"),
        ({"width": 3}, "width"),
    ],
)
def test_a_network_that_cannot_be_is_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        network_of(**settings)
