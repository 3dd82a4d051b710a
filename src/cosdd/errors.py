"""What is at fault, in one line: the input, the disk, or the memory."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# What libraries say where an allocation fails: torch; oneDNN; a loader of libraries; those of GPUs.
_MEMORY = ("can't allocate memory", "annot allocate memory", "not enough memory", "bad_alloc")
_MEMORY += ("could not create a primitive", "could not create a memory object")
_MEMORY += ("failed to map segment", "cannot create shared object descriptor")
_MEMORY += ("out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED")


class InputError(ValueError):
    """What the user gave is at fault: one line that says file, seen, expected, and what to do."""

    code = 2  # with which the command line ends

    def __reduce__(self) -> tuple[Any, ...]:
        """To another process goes also whether it was the disk (see `passing`) or the memory."""
        cause = self.__cause__ if isinstance(self.__cause__, OSError | MemoryError) else None
        return type(self), self.args, {"__cause__": cause}


AGAIN = "check the disk and the rights, and try again"  # where an error is `passing`


def passing(error: Exception) -> OSError | None:
    """The error, if the disk was at fault and not what the file holds: it may be gone the next time."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # those are said of damaged files
        return error
    return None


def refusal(source: object, seen: str, expected: str, fix: str) -> InputError:
    """The line for an image at fault; no source is an array in memory."""
    return InputError(" ".join(f"{source or 'array'}: {seen}; expected {expected}; {fix}".split()))


@contextmanager
def about(*paths: object) -> Iterator[None]:
    """What is at fault in here is the first of these, and is called so where the error names none of them.

    None has no name: pixels that are in no file.
    """
    names = [str(path) for path in paths if path is not None]
    try:
        yield
    except InputError as error:
        if not names or any(name in str(error) for name in names):
            raise
        raise type(error)(f"{names[0]}: {error}") from error.__cause__


def of_memory(error: BaseException) -> bool:
    """Was there too little memory, of Python, of a GPU or for a library?"""
    return (
        isinstance(error, MemoryError)
        or (isinstance(error, OSError) and error.errno == errno.ENOMEM)
        or type(error).__name__ == "OutOfMemoryError"
        or any(words in str(error) for words in _MEMORY)
    )


def brief(text: str, most: int = 100) -> str:
    """One line, and not a long one, whatever a file has put into it."""
    return " ".join(text.split())[:most]
