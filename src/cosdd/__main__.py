"""``python -m cosdd`` is ``cosdd``."""

from cosdd.cli import main

main()
