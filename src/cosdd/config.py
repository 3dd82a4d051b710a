"""Every setting once: its type, its default and one sentence; and the presets."""


class InputError(ValueError):
    """What the user gave is at fault: one line that says file, seen, expected, and what to do."""
