"""The losses of PEA: against slow twins from the description of the method, and rule by rule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.config import Loss, Network, checked_settings
from pipeline.errors import ConfigError
from pipeline.geometry import Offsets
from pipeline.model.affinity import cosine_affinities
from pipeline.model.losses import Criterion, Targets, class_weights, weighted_error
from pipeline.model.output import Output

DIRECT = [[-1, 0, 0], [0, -1, 0], [0, 0, -1]]
LONG = [*DIRECT, [-2, 0, 0], [0, -3, 1], [0, 2, -4]]
PLANE = [(-1, 0), (0, -1), (-3, 0), (2, -4), (9, 0)]
RULES: list[dict[str, Any]] = [
    {},
    {"channels": "mean", "balance": False, "background_pair": "ignored"},
    {"count_missing": True, "background_pair": "together"},
    {"count_missing": True, "background_pair": "ignored"},
]


def slow_loss(
    embedding: np.ndarray,
    labels: np.ndarray,
    offsets: Sequence[Sequence[int]],
    partner: np.ndarray | None = None,
    loss: Loss | None = None,
) -> float:
    """One voxel, one pair, one channel at a time, in float64."""
    loss = loss or Loss()
    partner = embedding if partner is None else partner
    sides = labels.shape[1:]
    channels = []
    for offset in offsets:
        total, num_pairs = 0.0, 0
        for crop in range(len(labels)):
            pairs, missing = [], 0
            for here in np.ndindex(*sides):
                there = tuple(v + o for v, o in zip(here, offset, strict=True))
                if not all(0 <= v < side for v, side in zip(there, sides, strict=True)):
                    missing += 1
                    continue
                one, two = labels[crop][here], labels[crop][there]
                together = bool(one == two)
                if one == 0 and two == 0:
                    if loss.background_pair == "ignored":
                        continue
                    together = loss.background_pair == "together"
                a = embedding[(crop, slice(None), *here)]
                b = partner[(crop, slice(None), *there)]
                cosine = sum(a * b) / math.sqrt(sum(a * a)) / math.sqrt(sum(b * b))
                pairs.append((together, (cosine - together) ** 2))
            ones = sum(together for together, _ in pairs)
            of = len(pairs) + (missing if loss.count_missing else 0)
            for_one = for_zero = 1.0
            if loss.balance and 0 < ones < of:
                share = min(max(ones / of, 0.05), 0.99)
                if share > 0.5:
                    for_zero = share / (1 - share)
                else:
                    for_one = (1 - share) / share
            total += sum((for_one if t else for_zero) * error for t, error in pairs)
            num_pairs += len(pairs)
        channels.append(total / num_pairs if num_pairs else 0.0)
    return sum(channels) / (len(channels) if loss.channels == "mean" else 1)


def drawn(shape: Sequence[int], seed: int, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings, and labels of three objects and background."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, shape)
    labels[0, ..., :2] = 0  # the share of pairs differs between crops
    return rng.normal(size=(shape[0], channels, *shape[1:])) * 2, labels


def tensor(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float()


def criterion(offsets: Sequence[Sequence[int]] = DIRECT, **loss: Any) -> Criterion:
    network = Network.model_validate({"features": [2, 2, 2], "pools": [[1, 2, 2], [2, 1, 2]]})
    return Criterion(Loss.model_validate(loss), network, Offsets.of(offsets))


@pytest.mark.parametrize("rules", RULES)
def test_self_and_cross_correlation_and_pyramid_are_those_of_slow_twins(rules):
    embedding, labels = drawn((2, 4, 6, 8), 1)
    view, _ = drawn((2, 4, 6, 8), 2)
    levels = [drawn((2, 4, 3, 4), 3)[0], drawn((2, 2, 3, 2), 4)[0]]
    pyramid_offsets = [[*DIRECT, [0, 1, -2]], DIRECT]
    whole = criterion(LONG, **rules, pyramid_offsets=pyramid_offsets)
    output = Output(tensor(embedding), tuple(tensor(level) for level in levels))
    found = whole(output, torch.from_numpy(labels), tensor(view))
    rule = whole.loss
    expected = {
        "self": slow_loss(embedding, labels, LONG, loss=rule),
        "cross": slow_loss(embedding, labels, LONG, view, rule),
        "pyramid_1": slow_loss(levels[0], labels[:, :, ::2, ::2], pyramid_offsets[0], loss=rule),
        "pyramid_2": slow_loss(levels[1], labels[:, ::2, ::2, ::4], DIRECT, loss=rule),
    }
    assert {name: float(term) for name, term in found.items()} == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("rules", RULES)
def test_the_same_code_is_the_loss_of_planes(rules):
    embedding, labels = drawn((2, 7, 6), 5)
    view, _ = drawn((2, 7, 6), 6)
    rule = Loss.model_validate(rules)
    targets = Targets.of(torch.from_numpy(labels), PLANE, rule)
    for partner in (None, view):
        cosines = cosine_affinities(
            tensor(embedding), PLANE, None if partner is None else tensor(partner)
        )
        found = weighted_error((cosines - targets.affinities) ** 2, targets, rule)
        assert float(found) == pytest.approx(
            slow_loss(embedding, labels, PLANE, partner, rule), rel=1e-5
        )


def test_a_volume_of_one_section_has_the_loss_of_a_plane():
    embedding, labels = drawn((2, 6, 8), 7)
    output = Output(tensor(embedding)[:, :, None], ())
    found = criterion([*DIRECT, [0, -3, 2]], pyramid=0.0)(output, torch.from_numpy(labels)[:, None])
    expected = slow_loss(embedding, labels, [(-1, 0), (0, -1), (-3, 2)])
    assert float(found["self"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("detach", [False, True])
def test_gradients_are_the_finite_differences_of_the_slow_twin(detach):
    embedding, labels = drawn((2, 2, 4, 4), 8)
    view, _ = drawn((2, 2, 4, 4), 9)
    offsets = [*DIRECT, [0, 2, -1]]
    full, partner = tensor(embedding).requires_grad_(), tensor(view).requires_grad_()
    terms = criterion(offsets, detach=detach, pyramid=0.0)(
        Output(full, ()), torch.from_numpy(labels), partner
    )
    sum(terms.values()).backward()

    def total(one: np.ndarray, two: np.ndarray) -> float:
        return slow_loss(one, labels, offsets) + slow_loss(one, labels, offsets, two)

    step = 1e-4 * np.random.default_rng(10).normal(size=embedding.shape)
    change = (total(embedding + step, view) - total(embedding - step, view)) / 2
    assert float((full.grad * tensor(step)).sum()) == pytest.approx(change, rel=1e-3)
    if detach:
        assert partner.grad is None
    else:
        change = (total(embedding, view + step) - total(embedding, view - step)) / 2
        assert float((partner.grad * tensor(step)).sum()) == pytest.approx(change, rel=1e-3)


# Four voxels in a row; the cosines of neighbours are 0.6, 0.8 and 0.6.
ROW = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [0.8, 0.6]]).T.reshape(1, 2, 1, 1, 4)
COARSE = (ROW[..., :2], ROW[..., 1:2])
ALIKE, APART_6, APART_8 = 0.4**2, 0.6**2, 0.8**2


def row_terms(
    labels: Sequence[int] = (1, 1, 2, 0), view: Tensor | None = None, **loss: Any
) -> dict[str, float]:
    network = Network.model_validate({"features": [2, 2, 2], "pools": [[1, 1, 2], [1, 1, 2]]})
    whole = Criterion(Loss.model_validate(loss), network, Offsets())
    output = Output(ROW * 7, COARSE)  # of any length
    terms = whole(output, torch.tensor(labels).reshape(1, 1, 1, 4), view)
    return {name: float(term) for name, term in terms.items()}


@pytest.mark.parametrize(
    ("labels", "loss", "expected"),
    [
        # One pair of three belongs together: it weighs 2.
        ((1, 1, 2, 0), {}, (2 * ALIKE + APART_8 + APART_6) / 3),
        ((1, 1, 2, 0), {"self_correlation": 2.5}, 2.5 * (2 * ALIKE + APART_8 + APART_6) / 3),
        ((1, 1, 2, 0), {"balance": False}, (ALIKE + APART_8 + APART_6) / 3),
        # Three channels, of which two have no pairs in a row.
        ((1, 1, 2, 0), {"channels": "mean"}, (2 * ALIKE + APART_8 + APART_6) / 9),
        # The voxel without a partner is a fourth pair that is apart: weight 3.
        ((1, 1, 2, 0), {"count_missing": True}, (3 * ALIKE + APART_8 + APART_6) / 3),
        # Its pair of background is apart, together (then apart weighs 2), or not there.
        ((1, 1, 0, 0), {}, (2 * ALIKE + APART_8 + APART_6) / 3),
        ((1, 1, 0, 0), {"background_pair": "together"}, (ALIKE + 2 * APART_8 + ALIKE) / 3),
        ((1, 1, 0, 0), {"background_pair": "ignored"}, (ALIKE + APART_8) / 2),
        # One pair of three: two that are seen, and one without a partner.
        (
            (1, 1, 0, 0),
            {"background_pair": "ignored", "count_missing": True},
            (2 * ALIKE + APART_8) / 2,
        ),
        # Of one class alone nothing is weighed; of background alone nothing is left.
        ((1, 1, 1, 1), {}, (ALIKE + 0.2**2 + ALIKE) / 3),
        ((1, 2, 1, 2), {}, (APART_6 + APART_8 + APART_6) / 3),
        ((0, 0, 0, 0), {"background_pair": "ignored"}, 0),
        ((0, 0, 0, 0), {"background_pair": "apart"}, (APART_6 + APART_8 + APART_6) / 3),
    ],
)
def test_every_rule_of_self_correlation(labels, loss, expected):
    assert row_terms(labels, **loss)["self"] == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_cross_correlation_looks_up_the_partner_in_the_view_and_has_its_weight():
    view = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [9.0, 9.0]]).T.reshape(1, 2, 1, 1, 4)
    # Voxels 1, 2, 3 of the row with 0, 1, 2 of the view: cosines 0.8, 0, 0.8.
    expected = (2 * 0.2**2 + 0 + APART_8) / 3
    assert "cross" not in row_terms()
    assert row_terms(view=view)["cross"] == pytest.approx(expected, rel=1e-5)
    assert row_terms(view=view, cross_correlation=0.5)["cross"] == pytest.approx(expected / 2)


def test_the_pyramid_compares_every_second_label_and_has_its_weight():
    # Labels 1 and 2 of the row remain, then 1 alone, which has no pair.
    assert row_terms()["pyramid_1"] == pytest.approx(APART_6)
    assert row_terms()["pyramid_2"] == 0
    assert row_terms(pyramid=0.25)["pyramid_1"] == pytest.approx(APART_6 / 4)
    assert row_terms((1, 0, 1, 0))["pyramid_1"] == pytest.approx(ALIKE)
    assert row_terms(pyramid=0.0).keys() == {"self"}


def test_the_sum_of_the_terms_is_the_loss_of_pea():
    """36 channels with weight 1: twelve, twelve, and three for each of four levels."""
    embedding, labels = drawn((1, 5, 28, 28), 11, channels=2)
    network, rule = Network(), Loss()
    offsets = Offsets.of(LONG)
    shapes = [(1, 5, 14, 14), (1, 5, 7, 7), (1, 5, 4, 4), (1, 5, 2, 2)]
    levels = [tensor(drawn(shape, 12, channels=2)[0]) for shape in shapes]
    output = Output(tensor(embedding), tuple(levels))
    terms = Criterion(rule, network, offsets)(output, torch.from_numpy(labels), tensor(embedding))
    assert list(terms) == ["self", "cross", "pyramid_1", "pyramid_2", "pyramid_3", "pyramid_4"]
    assert float(terms["self"]) == pytest.approx(float(terms["cross"]))
    coarse = labels[:, :, ::16, ::16]
    assert float(terms["pyramid_4"]) == pytest.approx(
        slow_loss(levels[3].double().numpy(), coarse, DIRECT), rel=1e-5
    )


@pytest.mark.parametrize("pairs", [0, 1, 10, 250, 500, 501, 750, 990, 999, 1000])
def test_weights_of_a_share_of_pairs(pairs):
    together = torch.zeros(1, 2, 10, 100)
    together[0, 0].view(-1)[:pairs] = 1
    weights = class_weights(together, torch.ones_like(together, dtype=torch.bool))
    expected = {
        0: (None, 1), 1: (19, 1), 10: (19, 1), 250: (3, 1), 500: (1, 1), 501: (1, 501 / 499),
        750: (1, 3), 990: (1, 99), 999: (1, 99), 1000: (1, None),
    }[pairs]  # fmt: skip
    for value, weight in zip((1, 0), expected, strict=True):
        of_class = weights[0, 0][together[0, 0] == value]
        if weight is None:
            assert not len(of_class)
        else:
            assert of_class.unique().tolist() == pytest.approx([weight], rel=1e-4)
    assert (weights[0, 1] == 1).all()


def test_weights_are_of_each_crop_and_offset_alone():
    labels = torch.tensor([[[1, 1, 2, 3]], [[1, 1, 1, 2]]])
    targets = Targets.of(labels, [(0, -1), (0, -2)], Loss())
    assert targets.affinities[:, :, 0].tolist() == [
        [[0, 1, 0, 0], [0, 0, 0, 0]],
        [[0, 1, 1, 0], [0, 0, 1, 0]],
    ]
    assert targets.counted[0, :, 0].tolist() == [
        [False, True, True, True],
        [False] * 2 + [True] * 2,
    ]
    expected = [[[0, 2, 1, 1], [0, 0, 1, 1]], [[0, 1, 1, 2], [0, 0, 1, 1]]]
    torch.testing.assert_close(targets.weights[:, :, 0], torch.tensor(expected).float())


def test_direct_affinities_have_a_weighted_cross_entropy():
    network = Network.model_validate({"head": "affinity", "pyramid": False})
    loss = Loss(self_correlation=3.0, cross_correlation=0.0, pyramid=0.0)
    logits = torch.zeros(1, 3, 1, 1, 4)
    logits[0, 2, 0, 0] = torch.tensor([50.0, 1.0, -2.0, 3.0])
    labels = torch.tensor([1, 1, 2, 0]).reshape(1, 1, 1, 4)
    terms = Criterion(loss, network, Offsets())(Output(logits, ()), labels)
    entropies = [math.log(1 + math.exp(x)) for x in (-1, -2, 3)]
    expected = 3 * (2 * entropies[0] + entropies[1] + entropies[2]) / 3
    assert terms.keys() == {"affinity"}
    assert float(terms["affinity"]) == pytest.approx(expected, rel=1e-5)


def settings_with(network: dict[str, Any], **loss: Any) -> Any:
    roi = {"offset": [0, 0, 0], "shape": [1, 1, 1]}
    tree = {"name": "a", "data": {}, "network": network, "train": {"roi": roi, "loss": loss}}
    return checked_settings({"run": tree}, "run.yaml").run


DIRECT_HEAD = {"head": "affinity", "pyramid": False}


@pytest.mark.parametrize(
    ("network", "loss", "words"),
    [
        (DIRECT_HEAD, {"pyramid": 0.0}, ("cross_correlation must be 0", "head is affinity", "1.0")),
        (DIRECT_HEAD, {"cross_correlation": 0.0}, ("loss.pyramid must be 0", "pyramid is false")),
        ({"pyramid": False}, {"pyramid": 0.5}, ("loss.pyramid must be 0", "found 0.5")),
        ({}, {"pyramid_offsets": [DIRECT] * 3}, ("pyramid_offsets", "which are 4", "found 3")),
        ({}, {"pyramid_offsets": [[[0, -1, 0]], *[DIRECT] * 3]}, ("pyramid_offsets.0", "direct")),
    ],
)
def test_a_loss_that_does_not_fit_its_network_is_refused(network, loss, words):
    with pytest.raises(ConfigError) as caught:
        settings_with(network, **loss)
    for word in ("run.yaml", *words):
        assert word in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 4


def test_a_loss_that_fits_its_network_is_taken():
    run = settings_with(DIRECT_HEAD, cross_correlation=0.0, pyramid=0.0)
    assert run.network.head == "affinity"
    assert settings_with({"pyramid": False}, pyramid=0.0).train.loss.cross_correlation == 1
    given = settings_with({}, pyramid_offsets=[LONG, DIRECT, DIRECT, DIRECT])
    assert [len(offsets) for offsets in given.train.loss.pyramid_offsets] == [6, 3, 3, 3]
