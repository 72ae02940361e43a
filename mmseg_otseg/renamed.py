"""Options that have a new name and can still be given by the old one, for one release."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any


def renamed_options(**new_names: str) -> Callable[[Callable], Callable]:
    """Let a function or constructor take keyword arguments by their old names too.

    Args:
        **new_names: The new name of each old one.

    Returns:
        A decorator. What it decorates gives a ``FutureWarning``, which Python shows by default,
        for each old name, and raises a ``TypeError`` if an option is given by both names.
    """

    def decorate(function: Callable) -> Callable:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            for old, new in new_names.items():
                if old not in kwargs:
                    continue
                if new in kwargs:
                    raise TypeError(f"`{old}` is the old name of `{new}`: give only `{new}`")
                warnings.warn(
                    f"the option `{old}` of {function.__qualname__.removesuffix('.__init__')} is "
                    f"now called `{new}`; the old name will be gone in the next release",
                    FutureWarning,
                    stacklevel=2,
                )
                kwargs[new] = kwargs.pop(old)
            return function(*args, **kwargs)

        return call

    return decorate
