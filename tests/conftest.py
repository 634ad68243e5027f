"""Import hypothesis before anything runs: imported late, it may meet a loop's finalizer in the middle of parsing a module."""

import hypothesis  # noqa: F401 - for its import alone
