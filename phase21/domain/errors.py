"""What can go wrong and is told to a person: one base class, one line each.

The command line prints `str(error)` and exits with `exit_status`; nothing else decides an exit status for an error.
"""


class Phase21Error(Exception):
    """Something a person can mend: the message says what is wrong, where, and what is allowed."""

    exit_status = 2


class ConfigurationError(Phase21Error):
    """The configuration names an unknown key or a wrong value."""


class PermissionsError(Phase21Error):
    """A file that can run code is open to others, or belongs to somebody else."""


class UsageError(Phase21Error):
    """The command line asks for something that does not exist."""


class InputRefused(Phase21Error):
    """Input was refused: `path` is the field's path within it (`tasks[0].priority`), or None for the whole."""

    exit_status = 3

    def __init__(self, message: str, path: str | None = None) -> None:
        super().__init__(message)
        self.path = path


class UnknownRun(Phase21Error):
    """No run of that name was ever accepted."""

    exit_status = 3


class StateHeld(Phase21Error):
    """Another daemon (or `run`) holds this state folder."""

    exit_status = 4


class TimedOut(Phase21Error):
    """`--timeout` ran out before the work was done."""

    exit_status = 5


class StorageUnavailable(Phase21Error):
    """The disk is full, read-only or failing, and the caller cannot wait for it."""


class HandlerError(Exception):
    """What a handler raises to say what is to happen next; one that raises anything else is tried again as configured."""


class Retryable(HandlerError):
    """The attempt failed, and another may succeed."""


class Permanent(HandlerError):
    """No other attempt can succeed: the task is FAILED."""


class RateLimited(Retryable):
    """Whom the handler called asks it to come again, in `retry_after` seconds."""

    def __init__(self, retry_after: float, message: str = "") -> None:
        super().__init__(message or f"come again in {retry_after:g} s")
        self.retry_after = retry_after


class NeedsApproval(HandlerError):
    """A person must approve first: the task is DEFERRED, and tried again once approved."""


class MessageRefused(HandlerError):
    """What a handler asked of messages, shared values or locks cannot be: nobody of that name, too large, not JSON."""


class NoAnswer(Retryable):
    """A request was not answered: its deadline passed, or its recipient is gone."""


class AttemptOver(HandlerError):
    """The attempt that speaks here has ended; what a thread of it still says is not heard."""
