"""Which channels every layer would lose when the layers before it lose some of theirs: found by running the network.

No graph is traced. One forward pass carries a pair of images in one batch, which differ nowhere but in the channels
that are to be removed: every convolution and linear layer answers the same random numbers for both, plus a
difference in the output channels that it is to lose. Whatever lies between (activations, pools, additions,
concatenations, shuffles, flattening, reshaping) moves the difference along by itself, so each layer's input shows
which of its channels come from removed ones. The stem's input shows no difference at all and is kept.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from kdtool.models.hooks import patched
from kdtool.models.layers import CONV_LINEAR, is_channelwise, is_depthwise
from kdtool.models.modules import ChannelSelect
from kdtool.surgery.tracing.attention import Contractions
from kdtool.surgery.tracing.differences import difference, keeps, kept_rows, noise, output_shape, restricted, signature
from kdtool.surgery.tracing.flow import Answer, Choose, Flow, positive
from kdtool.surgery.tracing.recurrent import is_plain, outputs_of


def trace(module: nn.Module, shape: tuple[int, int, int], choose: Choose) -> Flow:
    """Return the channels that the layers of ``module`` keep when each mixing layer keeps those that ``choose`` says.

    The module is in eval mode and comes back as it was. ``shape`` is channels, height, width of an image.

    Raises:
        RuntimeError: or whatever else the network's own forward raises.
    """
    flow = Flow()
    image = noise("", 0, (1, *shape))
    products = Contractions(module, flow.behind, lambda *one: flow.products.append(one), paired=True)
    with torch.no_grad(), positive(module), products, patched(module, _Probe(flow, choose).stand_in):
        module(torch.cat([image, image]))
    return flow


class _Probe:
    """Stand-ins for the layers' forward that note what comes in."""

    def __init__(self, flow: Flow, choose: Choose) -> None:
        self.flow = flow
        self.choose = choose

    def stand_in(self, path: str, layer: nn.Module) -> Callable[..., Any] | None:
        if isinstance(layer, CONV_LINEAR):
            return self.mixing(path, layer)
        if isinstance(layer, nn.RNNBase):
            return self.recurrent(path, layer) if is_plain(layer) else None
        if isinstance(layer, nn.MultiheadAttention):
            return self.attention(path, layer) if layer.batch_first and layer._qkv_same_embed_dim else None
        if isinstance(layer, ChannelSelect):
            return self.select(path, layer)
        return self.channelwise(path, layer) if is_channelwise(layer) else None

    def select(self, path: str, layer: ChannelSelect) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Tensor) -> Tensor:
            kept = keeps(difference(x, 1))
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            return forward(x)

        return run

    def mixing(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward
        dim = -1 if isinstance(layer, nn.Linear) else 1

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self.flow.count(path)
            shape = output_shape(layer, forward, x, args, kwargs)
            paired = x.shape[0] % 2 == 0
            rows = difference(x, dim) if paired else x.isnan().movedim(dim, -1)
            kept = keeps(rows)
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
                if rows[0].numel() == rows.shape[-1]:
                    self.flow.single.add(path)
            elif paired:
                self.flow.unknown.add(path)
            chosen = self._outputs(path, layer, kept)
            whole = kept_rows(rows, dim) if kept is not None else {}
            means = signature(restricted(x, whole), dim)
            self.flow.answers[path, call] = Answer(shape, dim, chosen, kept, means, whole, paired)
            lost = torch.ones(shape[dim], dtype=torch.bool)
            lost[chosen] = False
            y = noise(path, call, (shape[0] // 2 if paired else shape[0], *shape[1:]))
            where = lost.view([-1 if i == dim % len(shape) else 1 for i in range(len(shape))])
            if not paired:
                # Not a batch of images but a table of positions, say: there are no two to differ.
                return torch.where(where, torch.nan, y)
            full = rows.all(-1)
            if kept is not None and full.any() and full.dim() == len(shape) - 1:
                # Rows (tokens, positions) that differ as a whole go on doing so: a layer that mixes tokens sees the
                # channels as rows.
                rest = full.unsqueeze(-1).movedim(-1, dim)
                if all(a in (b, 1) for a, b in zip(rest.shape[1:], shape[1:], strict=True)):
                    where = where | rest
            return torch.cat([y, y + where * noise(path, call, y.shape, 1)])

        return run

    def recurrent(self, path: str, layer: nn.RNNBase) -> Callable[..., Any]:
        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            call = self.flow.count(path)
            rows = difference(x, -1)
            kept = keeps(rows)
            if kept is not None:
                self._note(self.flow.inputs, path, kept)
            else:
                self.flow.unknown.add(path)
            state = self.choose(path, layer)
            self._note(self.flow.outputs, path, state)
            chosen = outputs_of(layer, state)
            shape = (*x.shape[:-1], len(outputs_of(layer, torch.arange(layer.hidden_size))))
            self.flow.answers[path, call] = Answer(shape, -1, chosen, kept, signature(x, -1))
            lost = torch.ones(shape[-1], dtype=torch.bool)
            lost[chosen] = False
            y = noise(path, call, (shape[0] // 2, *shape[1:]))
            return torch.cat([y, y + lost * noise(path, call, y.shape, 1)]), None

        return run

    def attention(self, path: str, layer: nn.MultiheadAttention) -> Callable[..., Any]:
        """Like a mixing layer, whose heads keep the same channels of queries, keys, values and what is read of them."""
        mixing = self.mixing(f"{path}.out_proj", layer.out_proj)

        def run(x: Tensor, *args: Any, **kwargs: Any) -> Any:
            y = mixing(x)
            kept = self.flow.inputs.get(f"{path}.out_proj")
            if kept is not None:
                width = layer.embed_dim
                inner = self.choose(path, layer)
                rows = torch.cat([inner, inner + width, inner + 2 * width])
                self.flow.inputs[f"{path}.out_proj"] = inner
                self.flow.tensors[f"{path}.in_proj_weight"] = {0: rows, 1: kept}
                self.flow.tensors[f"{path}.in_proj_bias"] = {0: rows}
            return y, None

        return run

    def channelwise(self, path: str, layer: nn.Module) -> Callable[..., Any]:
        forward = layer.forward

        def run(x: Any = None, *args: Any, **kwargs: Any) -> Any:
            y = forward(*(() if x is None else (x,)), *args, **kwargs)
            if not isinstance(x, Tensor) or not isinstance(y, Tensor) or x.dim() < 2 or x.shape[0] % 2:
                return y
            call = self.flow.count(path)
            places: dict[int, Tensor] = {}
            stays = functools.cache(lambda place: keeps(difference(x, place)))
            for name, tensor in [*layer._parameters.items(), *layer._buffers.items()]:
                if tensor is not None and tensor.dim():
                    places.update(self._note_tensor(f"{path}.{name}", tensor, x, stays))
            if y.shape != x.shape or not places:
                return y
            dim, kept = next(iter(places.items()))
            self.flow.answers[path, call] = Answer(tuple(y.shape), dim, kept, kept, signature(x, dim))
            # Norms mix channels by their statistics: let through what differs channel by channel alone.
            clean = noise(path, call, (y.shape[0] // 2, *y.shape[1:]))
            return torch.cat([clean, clean + difference(x) * noise(path, call, clean.shape, 1)])

        return run

    def _outputs(self, path: str, layer: nn.Module, kept: Tensor | None) -> Tensor:
        """Return the output channels that a layer keeps; a depthwise one keeps those of its kept inputs."""
        if is_depthwise(layer) and kept is not None:
            assert isinstance(layer, nn.modules.conv._ConvNd)
            times = layer.out_channels // layer.in_channels
            chosen = (kept[:, None] * times + torch.arange(times)).flatten()
        else:
            chosen = self.choose(path, layer)
        self._note(self.flow.outputs, path, chosen)
        return chosen

    def _note(self, where: dict[str, Tensor], path: str, kept: Tensor) -> None:
        if path in where and not torch.equal(where[path], kept):
            self.flow.conflicts.add(path)
        where[path] = kept

    def _note_tensor(
        self, name: str, tensor: Tensor, x: Tensor, stays: Callable[[int], Tensor | None]
    ) -> dict[int, Tensor]:
        """Note which indices of a tensor go; return by dimension of ``x`` which channels stay, as ``stays`` says."""
        dims = self.flow.tensors.get(name, {})
        places = {}
        for dim, size in enumerate(tensor.shape):
            if size == 1:
                continue
            # Aligned from the right as in broadcasting, or a norm's, along dimension 1.
            at = x.dim() - tensor.dim() + dim
            found = {place: stays(place) for place in (at, 1) if 0 < place < x.dim() and x.shape[place] == size}
            known = [(place, kept) for place, kept in found.items() if kept is not None]
            if known:
                place, kept = next((pair for pair in known if len(pair[1]) < size), known[0])
                if dim in dims and not torch.equal(dims[dim], kept):
                    self.flow.conflicts.add(name)
                dims[dim] = places[place] = kept
        if dims:
            self.flow.tensors[name] = dims
        return places
