"""Errors of the algorithm package.

ReasonAllocError
 ├── InfeasibleSplitError   the bounds cannot add up to the total
 ├── MethodError            a method's name that stands for nothing
 └── ProfileError           a layer profile that is malformed or made for another model

Wrong shapes and dtypes are the caller's mistake and raise ``ValueError``.
"""


class ReasonAllocError(Exception):
    """Root of the errors this package raises on purpose."""


class InfeasibleSplitError(ReasonAllocError):
    """No split of the total keeps every lower and upper bound."""


class MethodError(ReasonAllocError):
    """A method's name stands for no triple of layer rule, head rule and scorer."""


class ProfileError(ReasonAllocError):
    """A layer profile is malformed, or does not fit the model it was meant for."""
