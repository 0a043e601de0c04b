"""Every error a caller can meet.

ReasonServeError
 ├── InvalidRequestError        a field cannot be honoured, now or ever      INVALID_ARGUMENT
 ├── UnauthenticatedError       no key, or one unknown, revoked or expired   UNAUTHENTICATED
 ├── PermissionDeniedError      known, but may not do this               PERMISSION_DENIED
 ├── NotFoundError              no such tenant, key or profile               NOT_FOUND
 ├── AlreadyExistsError         the id is taken                              ALREADY_EXISTS
 ├── StaleEtagError             somebody else wrote first                    ABORTED
 ├── PreconditionError          contradicts the state of the cluster         FAILED_PRECONDITION
 ├── BudgetExhaustedError       the tenant's KV memory is taken for now      RESOURCE_EXHAUSTED + RetryInfo
 ├── UnavailableError           engine or controller is not there            UNAVAILABLE
 └── StartupError               the service must not start; says the remedy  (never on the wire)

Messages say what was given, what is allowed and what to do. They reach clients: no paths,
addresses or tracebacks in them.
"""


class ReasonServeError(Exception):
    """Root of all errors that carry a message for the caller.

    Args:
        message: What was given, what is allowed, what to do.
        field: Path of the request field at fault, such as ``kv.budget_tokens``.
    """

    def __init__(self, message: str, *, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), dict(self.__dict__)))


def _rebuild(cls: type[ReasonServeError], state: dict[str, object]) -> ReasonServeError:
    """Rebuilds an error on the far side of a process boundary."""
    error = cls.__new__(cls)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class InvalidRequestError(ReasonServeError):
    """A field of the request cannot be honoured."""


class UnauthenticatedError(ReasonServeError):
    """The caller is not known."""


class PermissionDeniedError(ReasonServeError):
    """The caller is known, but may not do this."""


class NotFoundError(ReasonServeError):
    """The named resource does not exist."""


class AlreadyExistsError(ReasonServeError):
    """The id is taken."""


class StaleEtagError(ReasonServeError):
    """The resource changed since it was read."""


class PreconditionError(ReasonServeError):
    """The request contradicts the state of the cluster."""


class BudgetExhaustedError(ReasonServeError):
    """The tenant's KV memory is taken for now.

    Args:
        retry_after_s: When a retry may succeed, in seconds from now.
    """

    def __init__(self, message: str, *, retry_after_s: float, field: str = "") -> None:
        super().__init__(message, field=field)
        self.retry_after_s = retry_after_s


class UnavailableError(ReasonServeError):
    """A part of the service is not there; the caller may retry."""


class StartupError(ReasonServeError):
    """The service must not start as configured."""
