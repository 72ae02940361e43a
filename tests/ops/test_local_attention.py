"""A plain reading of CLIP's tower, with the last block of NACLIP's released code."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmseg_otseg.ops import local_attention
from tests.helpers.paths import DATA


def arrays(name: str) -> dict[str, Tensor]:
    with np.load(DATA / f"training_free_tiny_{name}.npz") as file:
        return {
            key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind in "fiu"
        }


def patch_embeddings(data: dict[str, Tensor], kind: str) -> Tensor:
    """Unit patch embeddings (B, M, D) of the arrays' image."""
    state = {key.removeprefix("state/"): value for key, value in data.items()}
    heads, layers = int(data["config/heads"]), int(data["config/layers"])

    def norm(tokens: Tensor, name: str) -> Tensor:
        width = tokens.shape[-1:]
        return F.layer_norm(tokens, width, state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(tokens: Tensor, name: str) -> Tensor:
        return F.linear(tokens, state[f"{name}.weight"], state[f"{name}.bias"])

    patches = F.conv2d(
        data["input/image"], state["conv1.weight"], stride=state["conv1.weight"].shape[-1]
    )
    height, width = patches.shape[2:]
    tokens = patches.flatten(2).transpose(1, 2)
    first = state["class_embedding"].expand(len(tokens), 1, -1)
    tokens = norm(torch.cat([first, tokens], dim=1) + positions(state, height, width), "ln_pre")
    for layer in range(layers):
        block = f"transformer.resblocks.{layer}"
        qkv = F.linear(
            norm(tokens, f"{block}.ln_1"),
            state[f"{block}.attn.in_proj_weight"],
            state[f"{block}.attn.in_proj_bias"],
        )
        q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        if layer < layers - 1 or kind == "vanilla":
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            attended = local_attention(kind, q, k, v, (height, width))
        output = linear(attended.transpose(1, 2).flatten(2), f"{block}.attn.out_proj")
        if layer == layers - 1 and kind in ("naclip", "kk"):
            tokens = output
            continue
        tokens = tokens + output
        hidden = linear(norm(tokens, f"{block}.ln_2"), f"{block}.mlp.c_fc")
        tokens = tokens + linear(hidden * torch.sigmoid(1.702 * hidden), f"{block}.mlp.c_proj")
    return F.normalize(norm(tokens[:, 1:], "ln_post") @ state["proj"], dim=-1)


def positions(state: dict[str, Tensor], height: int, width: int) -> Tensor:
    position = state["positional_embedding"]
    side = math.isqrt(len(position) - 1)
    if (height, width) == (side, side):
        return position
    factor = ((height + 0.1) / side, (width + 0.1) / side)
    grid = position[1:].T.reshape(1, -1, side, side)
    grid = F.interpolate(grid, scale_factor=factor, mode="bicubic", align_corners=False)
    return torch.cat([position[:1], grid[0].flatten(1).T])


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("kind", ["naclip", "sclip", "kk", "vanilla"])
def test_patch_embeddings_are_those_of_the_released_code(name: str, kind: str) -> None:
    data = arrays(name)
    expected = data[f"output/{'kk_reduced' if kind == 'kk' else kind}/patch_embeddings"]
    assert (patch_embeddings(data, kind) - expected).abs().max() < 1e-5
