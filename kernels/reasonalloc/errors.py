"""Errors of the algorithm package.

ReasonAllocError
 ├── InfeasibleSplitError   the bounds cannot add up to the total
 └── ProfileError           a layer profile that is malformed or made for another model

Wrong shapes and dtypes are the caller's mistake and raise ``ValueError``.
"""


class ReasonAllocError(Exception):
    """Root of the errors this package raises on purpose."""


class InfeasibleSplitError(ReasonAllocError):
    """No split of the total keeps every lower and upper bound."""


class ProfileError(ReasonAllocError):
    """A layer profile is malformed, or does not fit the model it was meant for."""
