"""Optimizers for models with mostly frozen parameters, and mixed precision on a CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import DefaultOptimWrapperConstructor, OptimWrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS
from torch import nn

from mmseg_otseg.errors import UserError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class TrainableOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    """mmengine's default constructor, restricted to parameters that require a gradient.

    Two more differences suit a frozen CLIP whose head has a higher learning rate: frozen modules
    are skipped without a log line for each of their parameters, and ``norm_decay_mult`` also
    applies to norms whose learning rate is multiplied by a custom key, unless that key sets
    ``decay_mult`` itself.
    """

    paramwise_cfg: dict

    def add_params(
        self,
        params: list[dict],
        module: nn.Module,
        prefix: str = "",
        is_dcn_module: int | float | None = None,
    ) -> None:
        """Append one group for each trainable parameter of ``module``; see the base class."""
        if not any(parameter.requires_grad for parameter in module.parameters()):
            return
        first = len(params)
        super().add_params(params, module, prefix, is_dcn_module)
        norm_decay = self.paramwise_cfg.get("norm_decay_mult")
        if isinstance(module, NORMS) and norm_decay is not None:
            for group in params[first:]:
                if "decay_mult" not in group:
                    group["weight_decay"] = self.base_wd * norm_decay

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer of ``model``.

        Raises:
            UserError: If no parameter of the model requires a gradient.
        """
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise UserError(
                f"No parameter of the {type(model).__name__} requires a gradient: every part "
                "of it is frozen, so there is nothing to train."
            )
        # Without paramwise options the base class would use all parameters, even frozen ones.
        self.paramwise_cfg = self.paramwise_cfg or dict(custom_keys={})
        return super().__call__(model)


NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@OPTIM_WRAPPERS.register_module()
class CPUAmpOptimWrapper(OptimWrapper):
    """Automatic mixed precision on a CPU, where mmengine's ``AmpOptimWrapper`` refuses to run.

    Forward passes run under autocast to bfloat16. It has the range of float32, so gradients need no
    loss scale.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """The context of a forward pass: the base class's, and autocast to bfloat16.

        Args:
            model: The model in training.
        """
        with super().optim_context(model), torch.autocast("cpu", torch.bfloat16):
            yield
