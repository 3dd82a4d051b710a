"""``cosdd``, and ``python -m cosdd``: Ctrl-C ends it in a line, also while it is still being loaded."""

import sys


def main() -> None:
    """Load and run the command line; `cosdd.cli.main` has the exit codes."""
    try:
        from cosdd import cli

        cli.main()
    except KeyboardInterrupt:  # before it could say so itself
        print("cosdd: interrupted", file=sys.stderr)
        sys.exit(130)  # `cosdd.cli.INTERRUPTED`, which may not be there yet


if __name__ == "__main__":
    main()
