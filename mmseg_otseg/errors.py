"""The error that users can fix."""

from __future__ import annotations


class UserError(ValueError):
    """Something in the input is wrong: a setting, a class name, a file, a mix of versions.

    The message says what is wrong and what to do. The command-line tools print it as one paragraph;
    any other error is a fault of the program and keeps its traceback.
    """
