"""Decode heads.

The methods differ in how text queries and local features become class maps. To add one, write:

- a head: derive it from :class:`ZeroShotHead` and implement ``class_maps(queries, levels)``. It
  takes queries (B, K, N, D), which are not normalized, and the pixels (B, M, D) of each level,
  which have unit length, and returns maps (B, K, M) by name, as logits. Losses, self-training,
  seen-class bias, any vocabulary and any CLIP come from the base class;
- a decoder, if the method has a new one: :class:`Decoder` brings layers, initialization and a mark
  in checkpoints, :class:`DecoderLayer` everything after the attention;
- a config that inherits a method's and names what is new. Levels, adapters, prompts and schedules
  are options of what is there. The inherited head's options go to the new head too, unless its
  settings have ``_delete_=True``: needed with OTSeg's, ZegOT's and all shapes configs, whose
  heads have options of their own. ``embed_dim``, ``num_classes`` and ``num_levels`` are filled in.

Methods that need more override these; ``tests/examples/clip_rc`` uses them all:

- ``ZeroShotHead.maps_and_losses(inputs)`` for losses besides those of the maps;
- ``CLIPBackbone.extra_tokens(tokens, grid)`` for tokens of its own in CLIP's image tower, with a
  mask of who attends to whom, which must be a float tensor;
  ``CLIPBackbone.plain_features(images)`` are the features of the untouched CLIP;
- ``DLFANeck.make_queries(text, features)`` for other queries;
- ``training_only = ("name",)`` in a backbone, neck or head for parts that only training uses: a
  checkpoint without them can be tested.

Two things to know: a new parameter of the backbone learns ten times slower than the rest unless
``optim_wrapper.paramwise_cfg.custom_keys`` names it. And in a head whose classes see each other,
such as one with self-attention between queries, the values of a class depend on which other
classes are in the vocabulary, which in this package's heads they do not.

None of it has to be in this package. As an example, Cascade-CLIP's idea (arXiv 2406.00670): each
level has a decoder of its own, and their maps are averaged. The head, ``cascade_head.py``::

    import torch
    from mmseg.registry import MODELS
    from torch import nn

    from mmseg_otseg.models.decode_heads import MultiHeadDecoder, ZeroShotHead


    @MODELS.register_module()
    class CascadeHead(ZeroShotHead):
        def __init__(self, num_levels, **kwargs):
            super().__init__(num_levels=num_levels, **kwargs)
            self.decoders = nn.ModuleList(
                MultiHeadDecoder(self.channels) for _ in range(num_levels)
            )

        def class_maps(self, queries, levels):
            maps = [decode(queries, pixels) for decode, pixels in zip(self.decoders, levels)]
            return {"cascade": torch.stack(maps).mean(0)}

The config beside it. ``_base_`` is an absolute path or relative to the config's folder, here the
project's. ``PYTHONPATH`` is the head's folder when it runs:
``PYTHONPATH=. python tools/train.py cascade_voc_512.py``::

    _base_ = "configs/zegclip/voc_512.py"
    custom_imports = dict(imports=["mmseg_otseg", "cascade_head"])
    model = dict(
        backbone=dict(out_indices=(-5, -3, -1), project=False),
        neck=dict(adapters=3),  # one for each of the backbone's levels
        decode_head=dict(type="CascadeHead", num_levels=3),
    )
"""

from .decoder import Decoder, DecoderLayer
from .mpsa_head import MPSADecoder, MPSADecoderLayer, MPSAHead, MPSAMap
from .seen_bias import state_key
from .similarity_head import SimilarityHead
from .zegclip_head import MultiHeadDecoder, MultiHeadLayer, MultiHeadMap, ZegCLIPHead
from .zero_shot_head import ZeroShotHead, query_targets

__all__ = [
    "Decoder",
    "DecoderLayer",
    "MPSADecoder",
    "MPSADecoderLayer",
    "MPSAHead",
    "MPSAMap",
    "MultiHeadDecoder",
    "MultiHeadLayer",
    "MultiHeadMap",
    "SimilarityHead",
    "ZegCLIPHead",
    "ZeroShotHead",
    "query_targets",
    "state_key",
]
