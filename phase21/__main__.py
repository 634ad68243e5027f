"""`python -m phase21`, and the installed command."""

from __future__ import annotations

from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its status."""
    from phase21.cli import phase21  # noqa: PLC0415 - a script that only wants the name pays nothing

    phase21.main()
    raise SystemExit(0)


if __name__ == "__main__":
    main()
