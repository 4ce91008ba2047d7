"""The network that a run describes, with new weights."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn

from pipeline.config import Network
from pipeline.errors import ExtensionError
from pipeline.model.output import Output
from pipeline.model.resunet import ResUNet


def build(network: Network, num_affinities: int) -> nn.Module:
    """A network with new weights, drawn from torch's global generator.

    Args:
        num_affinities: channels of a head of direct affinities; no matter to embeddings.

    Raises:
        ExtensionError: the backbone is one, and cannot be had or makes no module. The module
        raises it too, when it is called and its output is not as ``Backbone.build`` says.
    """
    channels = network.embedding if network.head == "embedding" else num_affinities
    if network.extension is None:
        return ResUNet(network, channels)
    module = network.extension.build(network, channels)
    if not isinstance(module, nn.Module):
        raise ExtensionError(
            f"the backbone {network.backbone} must build a torch.nn.Module, "
            f"found {type(module).__name__}"
        )
    module.register_forward_hook(partial(_check_output, network, channels))
    return module


def _check_output(
    network: Network, channels: int, module: nn.Module, given: tuple[Tensor], output: object
) -> None:
    batch, _, *sides = given[0].shape
    expected = [(batch, channels, *sides)]
    if network.pyramid:
        for factor in network.level_factors:
            coarse = (side // n for side, n in zip(sides, factor, strict=True))
            expected.append((batch, network.embedding, *coarse))
    if not isinstance(output, Output):
        raise ExtensionError(
            f"the backbone {network.backbone} must return a pipeline.model.output.Output, "
            f"found {type(output).__name__}"
        )
    found = [tuple(tensor.shape) for tensor in (output.full, *output.pyramid)]
    if found != expected:
        raise ExtensionError(
            f"the backbone {network.backbone} must return tensors of shapes {expected}, "
            f"found {found}"
        )
