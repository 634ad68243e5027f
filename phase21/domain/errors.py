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
