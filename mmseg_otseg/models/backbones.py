"""CLIP's image tower as a frozen backbone, with deep visual prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.ops import StochasticDepth

from mmseg_otseg.errors import UserError, check_option
from mmseg_otseg.models.clip import FrozenTower, check_image_tower, load_clip
from mmseg_otseg.models.clip.timm_towers import image_tower
from mmseg_otseg.models.clip.towers import POSITION_INTERPOLATIONS
from mmseg_otseg.models.trained import TrainedModule
from mmseg_otseg.ops import LOCAL_ATTENTIONS
from mmseg_otseg.structures.features import CLIPFeatures


class DeepVisualPrompts(nn.Module):
    """Learned tokens between the class token and the patches, new ones before every layer.

    Args:
        num_tokens: Tokens per layer, n.
        num_layers: Layers of the tower, L.
        width: Token width, C.
        patch_size: Patch side in pixels; sets the scale of the initial values.
        dropout: Dropout of the projected tokens.

    Source:
        Jia et al., "Visual Prompt Tuning" (ECCV 2022), VPT-Deep, as ZegCLIP (arXiv 2212.03588) uses
        it.
    """

    def __init__(
        self, num_tokens: int, num_layers: int, width: int, patch_size: int, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        bound = math.sqrt(6 / (3 * patch_size**2 + width))
        self.embeddings = nn.Parameter(
            torch.empty(num_layers, num_tokens, width).uniform_(-bound, bound)
        )
        self.proj = nn.Linear(width, width)
        nn.init.kaiming_normal_(self.proj.weight, a=0, mode="fan_out")
        self.dropout = nn.Dropout(dropout)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, batch: int) -> tuple[Tensor, ...]:
        """Prompt tokens for a batch of B images, one (B, n, C) tensor per layer."""
        tokens = self.proj(self.embeddings)
        return tuple(self.dropout(layer.expand(batch, -1, -1)) for layer in tokens)


@MODELS.register_module()
class CLIPBackbone(TrainedModule):
    """The image tower of an open_clip ViT: local tokens of any layers and the global token.

    CLIP's weights never train. Unless something else here does, such as visual prompts, the tower
    runs without a graph. Images of any size are taken; sides that are not a multiple of the patch
    are stretched to the next one. A method with tokens of its own overrides :meth:`extra_tokens`.
    With ``local_attention``, the patches are those of training-free segmentation.

    Args:
        clip: ``dict(model=..., pretrained=...)``, see :func:`~mmseg_otseg.models.clip.load_clip`.
        out_indices: Layers whose tokens are returned, negative ones counted from the last.
        project: Pass the tokens through CLIP's ``ln_post`` and projection (width D) instead of
            returning them as they are (the tower's width).
        visual_prompts: Arguments of :class:`DeepVisualPrompts` (``dict(num_tokens=10)``), or None.
        drop_path_rate: Stochastic depth of the last block while training, growing linearly from 0
            at the first. Only used with visual prompts.
        double_class_embedding: Add the class embedding to the global token once more, as the
            authors' code does and their checkpoints need. Weights trained with one setting do not
            fit the other, so a checkpoint carries its own and overrides this one.
        local_attention: How the patches attend in the last layer, see
            :func:`~mmseg_otseg.ops.local_attention`: ``"naclip"``, ``"sclip"`` or ``"kk"``. None is
            CLIP's own attention, which suits the global token and all trained methods.
        position_interpolation: How the position embedding is resized to images that do not have
            CLIP's native size: ``"bilinear"``, or ``"bicubic"`` as in SCLIP and NACLIP.
        save_clip: Write CLIP's weights into checkpoints too.
        with_cp: Compute each layer again in the backward pass instead of keeping what it computed:
            less memory for more time.

    Raises:
        UserError: If the model's image tower cannot run here, or a layer does not exist; if it has
            no tokens for visual prompts; if ``local_attention`` is unknown, or stands beside visual
            prompts or in a tower or layers where it cannot be.

    Source:
        OTSeg (arXiv 2403.14183), section 3.1; NACLIP (arXiv 2404.08181), section 3.
    """

    class_embedding_times: Tensor

    def __init__(
        self,
        clip: Mapping[str, Any],
        out_indices: Sequence[int] = (-1,),
        project: bool = True,
        visual_prompts: Mapping[str, Any] | None = None,
        drop_path_rate: float = 0.0,
        double_class_embedding: bool = False,
        local_attention: str | None = None,
        position_interpolation: str = "bilinear",
        save_clip: bool = False,
        with_cp: bool = False,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_image_tower(clip["model"])
        visual = load_clip(**clip).visual
        self.clip = FrozenTower(visual, save_clip, clip.get("precision", "fp32"))
        self.tower = tower = image_tower(self.clip.module)
        layers = len(tower.blocks)
        self.out_indices = _resolve_layers(out_indices, layers)
        self.project, self.with_cp = project, with_cp
        self.register_buffer("class_embedding_times", torch.tensor(1 + double_class_embedding))
        if visual_prompts is not None and not tower.takes_prompts:
            raise UserError(
                "visual prompts need a sequence of tokens, but this CLIP computes a feature map: "
                "set model.backbone.visual_prompts=None, or use a ViT"
            )
        check_option("position_interpolation", position_interpolation, POSITION_INTERPOLATIONS)
        check_option("local_attention", local_attention, (None, *LOCAL_ATTENTIONS))
        self.local_attention = local_attention
        self.position_interpolation = position_interpolation
        last_alone = visual_prompts is None and self.out_indices == (layers - 1,)
        if local_attention is not None and not (last_alone and tower.takes_local_attention):
            raise UserError(
                "local_attention changes the last layer of a ViT with a class token, a norm before "
                "its attention, and no visual prompts: set model.backbone.visual_prompts=None and "
                "out_indices=(-1,), or local_attention=None"
            )
        self.visual_prompts: DeepVisualPrompts | None = None
        if visual_prompts is not None:
            sizes = dict(num_layers=layers, width=tower.width, patch_size=tower.patch_size[0])
            self.visual_prompts = DeepVisualPrompts(**sizes, **visual_prompts)
            rates = torch.linspace(0, drop_path_rate, layers).tolist()
            self.drop_paths = nn.ModuleList(StochasticDepth(rate, mode="row") for rate in rates)

    @property
    def patch_size(self) -> tuple[int, int]:
        """Rows and columns of a patch, in pixels."""
        return self.tower.patch_size

    @property
    def num_prompts(self) -> int:
        """Visual prompts in each layer, V; 0 without them."""
        return 0 if self.visual_prompts is None else self.visual_prompts.num_tokens

    @property
    def visual(self) -> nn.Module:
        """open_clip's image tower."""
        return self.clip.module

    def forward(self, images: Tensor) -> CLIPFeatures:
        """Encode images.

        Args:
            images: Normalized images, shape (B, 3, h, w), any h and w.

        Returns:
            Local tokens of the chosen layers and the global token, in the images' type whatever the
            tower runs in.
        """
        trains = any(parameter.requires_grad for parameter in self.parameters())
        with nullcontext() if trains else torch.no_grad():
            return self._encode(images)

    @torch.no_grad()
    def plain_features(self, images: Tensor) -> CLIPFeatures:
        """Features of CLIP alone: what :meth:`forward` would return if nothing here were trained.

        There are no prompts, no extra tokens, no stochastic depth and no gradient.
        """
        return self._encode(images, plain=True)

    def extra_tokens(
        self, tokens: Tensor, grid: tuple[int, int]
    ) -> tuple[Tensor | None, Tensor | None]:
        """Tokens that a method adds after the patches; a subclass overrides this.

        They pass through all layers, but not through the visual prompts' LayerNorm, and come out as
        ``CLIPFeatures.extra``.

        Args:
            tokens: Embedded images [prefix, patches], shape (B, P + M, C).
            grid: Rows and columns of patches, H and W.

        Returns:
            The tokens, shape (B, E, C); here None. And a mask that every layer adds to its
            attention logits, or None: shape (L, L) for the L = P + V + M + E tokens [prefix,
            prompts, patches, extra], with a row for each token that attends. It must be floating,
            with ``-inf`` where a token must not attend.
        """
        return None, None

    def _encode(self, images: Tensor, plain: bool = False) -> CLIPFeatures:
        rows, columns = self.patch_size
        grid = (-(-images.shape[-2] // rows), -(-images.shape[-1] // columns))
        size = (grid[0] * rows, grid[1] * columns)
        pixels = images.to(self.clip.dtype)
        if size != tuple(images.shape[-2:]):
            pixels = F.interpolate(pixels, size, mode="bilinear", align_corners=False)
        tokens = self.tower.embed(pixels, self.class_embedding_times, self.position_interpolation)
        return self._run_blocks(tokens, grid, plain, images.dtype)

    def _run_blocks(
        self, tokens: Tensor, grid: tuple[int, int], plain: bool, dtype: torch.dtype
    ) -> CLIPFeatures:
        """Tokens [prefix, patches] (B, P + M, C) through all layers, to features at M = H * W.

        With V visual prompts and E extra tokens, the layers see [prefix, prompts, patches, extra],
        (B, P + V + M + E, C), and the prompts are new before each layer.

        With ``plain``, there are neither prompts nor extra tokens.
        """
        tower, prompts = self.tower, None if plain else self.visual_prompts
        prefix, num_prompts = tower.num_prefix, 0 if prompts is None else prompts.num_tokens
        layer_prompts = () if prompts is None else prompts(tokens.shape[0])
        extra, mask = (None, None) if plain else self.extra_tokens(tokens, grid)
        num_extra = 0 if extra is None else extra.shape[1]
        end = -num_extra if num_extra else None  # of the patches
        patches = slice(prefix + num_prompts, end)
        options = tower.block_options(grid, num_prompts, num_extra)
        if mask is not None:
            options["attn_mask"] = mask.to(tokens.dtype)
        if extra is not None:
            tokens = torch.cat([tokens, extra.to(tokens.dtype)], dim=1)
        last = len(tower.blocks) - 1
        chosen: dict[int, Tensor] = {}
        for index, block in enumerate(tower.blocks):
            if prompts is not None:
                skip = prefix if index == 0 else prefix + num_prompts
                new = layer_prompts[index].to(tokens.dtype)
                tokens = torch.cat([tokens[:, :prefix], new, tokens[:, skip:]], dim=1)
            drop = None if prompts is None else self.drop_paths[index]
            before, tokens = tokens, self._run_block(block, drop, tokens, options)
            if index == last and self.local_attention is not None:
                # The global token stays CLIP's own.
                local = tower.local_block(self.local_attention, before, grid, options)
                tokens = torch.cat([tokens[:, :prefix], local[:, prefix:]], dim=1)
            if index == last and prompts is not None:
                normed = prompts.norm(tokens[:, :end].to(prompts.norm.weight.dtype))
                rest = [] if end is None else [tokens[:, end:]]
                tokens = torch.cat([normed.to(tokens.dtype), *rest], dim=1)
            if index in self.out_indices:
                chosen[index] = tokens[:, patches]
        global_token = tower.global_token(tokens[:, :prefix], tokens[:, patches])
        levels = [chosen[index] for index in self.out_indices]
        extra = None if end is None else tokens[:, end:]
        if self.project:
            levels = [tower.to_joint_space(level) for level in levels]
            extra = None if extra is None else tower.to_joint_space(extra)
        return CLIPFeatures(
            tuple(level.to(dtype).transpose(1, 2).unflatten(2, grid) for level in levels),
            F.normalize(global_token.to(dtype), dim=-1),
            None if extra is None else extra.to(dtype),
        )

    def _run_block(
        self, block: Any, drop: StochasticDepth | None, tokens: Tensor, options: dict[str, Any]
    ) -> Tensor:
        """A block on tokens (B, L, C); in training with stochastic depth on its branches."""

        def run(tokens: Tensor) -> Tensor:
            if drop is None or not drop.training or not drop.p:
                return block(tokens, **options)
            for branch in self.tower.branches(block, options):
                tokens = tokens + drop(branch(tokens))
            return tokens

        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(run, tokens, use_reentrant=False)
        return run(tokens)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        state_dict.setdefault(prefix + "class_embedding_times", self.class_embedding_times)
        # The checkpoint's tower may have another native resolution, as the authors' files do.
        self.tower.adopt_native_resolution(state_dict, prefix + "clip.module.")
        super()._load_from_state_dict(state_dict, prefix, *args)


def _resolve_layers(indices: Sequence[int], layers: int) -> tuple[int, ...]:
    resolved = tuple(index + layers if index < 0 else index for index in indices)
    if not resolved or any(not 0 <= index < layers for index in resolved):
        raise UserError(
            f"out_indices={tuple(indices)} must name at least one of the tower's {layers} layers "
            f"(0..{layers - 1}, or negative from the last)"
        )
    return resolved
