"""What all heads have in common: losses, self-training, prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.utils import SampleList
from torch import Tensor

from mmseg_otseg.errors import UserError
from mmseg_otseg.models.trained import TrainedModule
from mmseg_otseg.structures.class_split import MAX_CLASSES, ignored_label, unlabeled_label
from mmseg_otseg.structures.features import AlignedFeatures

PSEUDO_CLASSES = 64  # unseen classes whose maps are upsampled at a time
DEFAULT_SEEN_BIAS = 0.1  # the papers' value for the inductive setting, in probabilities


def state_key(predict_from: str) -> str:
    """Key of a calibrated bias in a head's state dict; each kind of prediction has its own."""
    return f"calibrated_seen_bias.{predict_from}"


class ZeroShotHead(TrainedModule, BaseDecodeHead):
    """Class maps by matching text queries and patches; a method implements :meth:`class_maps`.

    The neck decides which classes have queries, and from which of these self-training takes pseudo
    labels (``AlignedFeatures.unseen``); the head follows. Labels come in as full class indices,
    predictions go out as probabilities: ``sigmoid(logits)`` minus the seen-class bias. In testing
    there is a map for each name of a class, and :meth:`merge_names` makes them one.

    Args:
        num_classes: Number of classes predicted in testing, seen and unseen.
        num_names: Number of their names, Q; None is one for each class.
        embed_dim: Width D of patches and queries: that of CLIP's joint space.
        num_levels: Levels the neck returns.
        seen_bias: Subtracted from the seen classes' probabilities in testing ("calibrated stacking"
            in generalized zero-shot learning); 0.1 in the papers' inductive setting, 0 in the
            others. None takes the value that was calibrated for the loaded checkpoint
            (``tools/analysis/calibrate_seen_bias.py --write``), or else 0.1.
        loss_decode: Config of the loss.

    Attributes:
        predict_from: Which maps predict.
        normalizes: Whether :meth:`merge_names` compares names, rather than only picking one.

    Raises:
        UserError: If the number of levels or classes does not fit, or ``seen_bias`` is not a number
            between -1 and 1.
    """

    predict_from = "ensemble"
    normalizes = False

    def __init__(
        self,
        num_classes: int,
        embed_dim: int,
        num_levels: int = 1,
        seen_bias: float | None = None,
        loss_decode: Mapping[str, Any] | None = None,
        num_names: int | None = None,
        init_cfg: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(
            in_channels=embed_dim,
            channels=embed_dim,
            num_classes=num_classes,
            out_channels=num_classes,
            # mmseg thresholds a single map into {0, 1}; with one class only 0 is a class.
            threshold=1.0,
            dropout_ratio=0.0,
            loss_decode=dict(loss_decode or {"type": "FocalDiceLoss"}),
            init_cfg=init_cfg,
        )
        del self.conv_seg  # maps come from matching text, not from a classifier
        self.out_channels = num_names or num_classes
        self.num_levels = num_levels
        if seen_bias is not None and not -1 <= seen_bias <= 1:
            raise UserError(
                "seen_bias is subtracted from probabilities, so it must be a number between -1 and "
                f"1, or None for the checkpoint's own; got {seen_bias!r}"
            )
        self._own_bias = seen_bias
        self._calibrated_bias: float | None = None

    @property
    def bias_is_calibrated(self) -> bool:
        """Whether the seen-class bias was calibrated for the loaded weights."""
        return self._own_bias is None and self._calibrated_bias is not None

    @property
    def seen_bias(self) -> float:
        """The seen-class bias in use, a probability: the config's, or the checkpoint's, or 0.1."""
        known = (self._own_bias, self._calibrated_bias, DEFAULT_SEEN_BIAS)
        return next(bias for bias in known if bias is not None)

    @seen_bias.setter
    def seen_bias(self, bias: float) -> None:
        self._own_bias = bias

    def train(self, mode: bool = True) -> ZeroShotHead:
        """Switch to training or testing; training ends the validity of a calibrated bias."""
        if mode and self.bias_is_calibrated:
            self._calibrated_bias = None
            ended = f"Training ends what was calibrated: the seen-class bias is {self.seen_bias:g}."
            print_log(ended, "current")
        return super().train(mode)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        start = prefix + state_key("")
        found = {
            key.removeprefix(start): state_dict.pop(key)
            for key in [key for key in state_dict if key.startswith(start)]
        }
        self._calibrated_bias = None
        if self.predict_from in found:
            self._calibrated_bias = found[self.predict_from].item()
        if found:
            others = ", ".join(f"{value.item():g} for {kind}" for kind, value in found.items())
            source = f"not the checkpoint's, which was calibrated: {others}"
            if self.bias_is_calibrated:
                source = "calibrated, from the checkpoint"
            print_log(f"Seen-class bias {self.seen_bias:g}, {source}.", "current")
        super()._load_from_state_dict(state_dict, prefix, *args)

    @abstractmethod
    def class_maps(self, queries: Tensor, levels: list[Tensor]) -> dict[str, Tensor]:
        """The method: match the prompts of each class with the patches.

        Args:
            queries: Shape (B, K, N, D), not normalized.
            levels: Patches of each level, shape (B, M, D) each, unit length.

        Returns:
            One or more maps by name, shape (B, K, M) each, logits. Each has losses of its own.
        """

    def maps_and_losses(
        self, inputs: AlignedFeatures
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What a training step learns from; a method with losses of its own overrides this.

        ``inputs`` is the output of the neck, ``inputs.features`` that of the backbone.

        Returns:
            Maps by name, shape (B, K, H, W) each, logits, which get mask losses; here those of
            :meth:`forward`. And losses by name, scalars, which are added to them; here none.
            mmengine sums up those with ``loss`` in their names, and only logs the others.
        """
        return self.forward(inputs), {}

    def predicting_map(self, maps: Mapping[str, Tensor]) -> Tensor:
        """The map that predicts: here the mean of all class maps, which have one shape, logits."""
        return torch.stack(list(maps.values())).mean(0)

    def forward(self, inputs: AlignedFeatures) -> dict[str, Tensor]:
        """Class maps at patch resolution, from the output of the neck.

        Returns:
            Maps by name, shape (B, K, H, W), logits for every class that has queries.

        Raises:
            UserError: If the neck returns another number of levels, or features of another width.
        """
        number, width = len(inputs.pixels), inputs.queries.shape[-1]
        if (number, width) != (self.num_levels, self.in_channels):
            raise UserError(
                f"the head has num_levels={self.num_levels} and embed_dim={self.in_channels}, but "
                f"the neck returns {number} and {width}: set model.decode_head to these"
            )
        grid = inputs.pixels[-1].shape[-2:]
        levels = [level.flatten(2).transpose(1, 2) for level in inputs.pixels]
        maps = self.class_maps(inputs.queries, levels)
        return {name: class_map.unflatten(-1, grid) for name, class_map in maps.items()}

    def loss(
        self, inputs: AlignedFeatures, batch_data_samples: SampleList, train_cfg: Any = None
    ) -> dict[str, Tensor]:
        """Mask losses of every map, and losses of the method's own.

        Args:
            inputs: Output of the neck.
            batch_data_samples: Samples with ``gt_sem_seg``: full class indices, 255 ignored, 254
                unlabeled (pixels of unseen classes in the transductive setting); 65535 and 65536
                with more than 254 classes.
            train_cfg: Not used.

        Returns:
            ``<map>.loss_mask`` and ``<map>.loss_dice`` for every map, and what
            :meth:`maps_and_losses` adds.
        """
        maps, losses = self.maps_and_losses(inputs)
        labels = torch.cat([sample.gt_sem_seg.data for sample in batch_data_samples])
        target = query_targets(labels, inputs.classes)
        if inputs.unseen is not None and len(inputs.unseen):
            pseudo = self._pseudo_labels(maps, inputs.unseen, labels.shape[1:])
            target = torch.where(labels == unlabeled_label(self.num_classes), pseudo, target)
        for name, class_map in maps.items():
            loss = self.loss_decode(class_map, target)
            losses |= {f"{name}.{key}": value for key, value in loss.items()}
        return losses

    def predict(
        self, inputs: AlignedFeatures, batch_img_metas: list[dict], test_cfg: Any
    ) -> Tensor:
        """Values of every name at the size that the images' meta information says.

        Returns:
            What :meth:`values` makes of the resized :meth:`name_maps`, shape (B, Q, h, w), with Q =
            K unless a class has several names; the class of the largest value wins.
        """
        maps = self.predict_by_feat(self.name_maps(inputs), batch_img_metas)
        return self.activate(maps, inputs.seen)

    def name_maps(self, inputs: AlignedFeatures) -> Tensor:
        """The maps that predict, at patch resolution.

        Args:
            inputs: Output of the neck.

        Returns:
            Shape (B, Q, H, W).

        Raises:
            UserError: If there are not as many queries as names.
        """
        if len(inputs.classes) != self.out_channels:
            raise UserError(
                f"the vocabulary has {len(inputs.classes)} names, but the head has num_classes="
                f"{self.num_classes} and num_names={self.out_channels}"
            )
        return self.predicting_map(self.forward(inputs))

    def activate(self, maps: Tensor, seen: Tensor) -> Tensor:
        """Turn resized logits into values to compare; they are averaged over windows afterwards.

        Args:
            maps: Maps of any Q' names, logits, shape (..., Q', h, w).
            seen: Whether the class of each is seen, shape (Q',), bool.

        Returns:
            ``sigmoid(logits)`` minus the seen-class bias, of that shape.
        """
        maps = maps.sigmoid()
        return maps - self.seen_bias * seen[:, None, None].to(maps) if self.seen_bias else maps

    def merge_names(self, maps: Tensor, names_per_class: Sequence[int], seen: Tensor) -> Tensor:
        """Class maps from the maps of all names, once windows are averaged and maps refined.

        Args:
            maps: What :meth:`predict` returned, shape (B, Q, h, w).
            names_per_class: How many of the Q names each of the K classes has, in order.
            seen: Whether each class is seen, shape (K,), bool; for heads that subtract the
                seen-class bias here.

        Returns:
            The largest value of a class's names, shape (B, K, h, w).
        """
        if len(names_per_class) == maps.shape[1]:
            return maps
        parts = maps.split(list(names_per_class), dim=1)
        return torch.stack([part.amax(1) for part in parts], dim=1)

    @torch.no_grad()
    def _pseudo_labels(
        self, maps: Mapping[str, Tensor], unseen: Tensor, size: torch.Size
    ) -> Tensor:
        """Best of the ``unseen`` queries (U,) for every pixel, (B, h, w), as an index into all."""
        logits = torch.stack(list(maps.values())).mean(0)[:, unseen]
        best, index = logits.new_full((), -torch.inf), torch.zeros_like(unseen[0])
        for start in range(0, len(unseen), PSEUDO_CLASSES):  # what is upsampled at a time
            part = logits[:, start : start + PSEUDO_CLASSES]
            part = F.interpolate(part, size, mode="bilinear")
            value, winner = part.max(1)
            index = torch.where(value > best, winner + start, index)
            best = torch.maximum(best, value)
        return unseen[index]


def query_targets(labels: Tensor, classes: Tensor) -> Tensor:
    """Full class indices to indices into the query classes.

    Args:
        labels: Full class indices, any shape, integer; values up to 65536 may be no class.
        classes: Full class index of each query class, shape (K,), int64.

    Returns:
        Index 0..K-1 where the label is a query class, and elsewhere the label that means ignored
        beside K classes; shape of ``labels``, int64.
    """
    size, ignored = MAX_CLASSES + 2, ignored_label(len(classes))
    table = torch.full((size,), ignored, dtype=torch.int64, device=labels.device)
    table[classes] = torch.arange(len(classes), device=labels.device)
    return table[labels.long()]
