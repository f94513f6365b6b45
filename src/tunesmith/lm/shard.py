# pyright: basic
"""A base that is spread over several processes: each holds a part of every layer and gathers a layer when it computes it.

Adapters are small and are not spread. Embeddings and head stay whole, since the head is read outside of any layer. All
processes have to make the same number of passes, or they wait for each other for ever.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from tunesmith.lm.load import Base, BaseRefused


def spread(base: Base, device: torch.device) -> Base:
    """Spread the layers of a base, which lies on the CPU, over the processes of the default group, each on its device.

    To be called after the layers have been made LoRA's, and before the first pass.

    Raises:
        BaseRefused: the decoder has no list of layers.
    """
    layers: Any = getattr(base.decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise BaseRefused(f"{type(base.model).__name__} has no list of layers that could be spread over processes")
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    for module in base.model.modules():
        for name, tensor in [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]:
            if not isinstance(tensor, DTensor) and tensor.device != device:
                moved = tensor.data.to(device)
                if isinstance(tensor, nn.Parameter):
                    tensor.data = moved
                else:
                    module._buffers[name] = moved
    return replace(base, device=device)
