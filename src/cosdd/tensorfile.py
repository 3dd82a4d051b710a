"""Tensors <-> one .safetensors file: written whole; read into memory of our own, each thing checked before it is big.

The format is that of the safetensors library, which writes it here. Reading is done by hand, because a library that
maps the file into memory changes its weights, or crashes, where somebody writes to the file meanwhile.

The header holds two checksums: `crc32` of the names and numbers of the tensors, and `crc32_of_header` of what it says
besides, however that is spelt, so that a library may write it again. Files of before there were any have none.
"""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from safetensors.torch import save as to_bytes
from torch import Tensor

from cosdd import writing

LARGEST_HEADER = 2**23  # bytes; ours are some hundred thousand
OF_TENSORS, OF_HEADER = CHECKSUMS = ("crc32", "crc32_of_header")
_KINDS = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class Damaged(ValueError):
    """Not a .safetensors file, or no longer a whole one."""


@dataclass(frozen=True)
class Entry:
    """What the file's header says about a tensor."""

    kind: torch.dtype
    shape: tuple[int, ...]
    begin: int  # bytes after the header


@dataclass(frozen=True)
class Contents:
    """An open file whose header is known to describe it to the last byte; no tensor is in memory yet."""

    metadata: dict[str, str]
    entries: dict[str, Entry]
    file: IO[bytes]
    before: os.stat_result
    start: int  # of the tensors

    def tensors(self) -> dict[str, Tensor]:
        """All of them, in memory of their own: as large as the file. Raises Damaged."""
        read: dict[str, Tensor] = {}
        self.file.seek(self.start)
        for name, entry in sorted(self.entries.items(), key=lambda item: item[1].begin):
            read[name] = torch.empty(entry.shape, dtype=entry.kind)
            if entry.kind == torch.bool:  # a byte that is neither 0 nor 1 is no truth value
                read[name] = _filled(self.file, torch.empty(entry.shape, dtype=torch.uint8)) != 0
            else:
                _filled(self.file, read[name])
        now = os.fstat(self.file.fileno())
        if (now.st_mtime_ns, now.st_size) != (self.before.st_mtime_ns, self.before.st_size):
            raise Damaged("it was written while it was read: try again")
        if self.metadata.get(OF_TENSORS, _checksum(read)) != _checksum(read):
            raise Damaged("its numbers are not those that were written: copy it again")
        return read


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write the file; it appears whole or not at all. Raises InputError where it cannot be written."""
    plain = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    said = dict(metadata) | {OF_TENSORS: _checksum(plain)}
    content = memoryview(to_bytes(plain, said))
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(bytes(content[8:start]))
    header["__metadata__"] = said | {OF_HEADER: _of_header(header)}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # as the format has it: tensors begin at a multiple of eight
    with writing.whole(path) as part, part.open("wb") as file:
        file.writelines((len(text).to_bytes(8, "little"), text, content[start:]))


@contextmanager
def opened(path: Path) -> Iterator[Contents]:
    """Open a file and read its header. Raises Damaged, or OSError."""
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(LARGEST_HEADER, before.st_size - 8):
            raise Damaged("no header")
        try:
            header = json.loads(file.read(length).decode("utf-8"))
            found = _of_header(header)
            metadata = header.pop("__metadata__", None) or {}
            entries = {name: _entry(said) for name, said in header.items()}
            end = 0
            for entry in sorted(entries.values(), key=lambda entry: entry.begin):
                if entry.begin != end:
                    raise ValueError("holes")
                end += entry.kind.itemsize * math.prod(entry.shape)
            if end != before.st_size - 8 - length or not all(isinstance(v, str) for v in metadata.values()):
                raise ValueError("another length")
        except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
            raise Damaged("its header does not describe it: cut off?") from None
        if metadata.get(OF_HEADER, found) != found:
            raise Damaged("its header is not the one that was written: copy it again")
        yield Contents(metadata, entries, file, before, 8 + length)


def _entry(said: dict) -> Entry:
    shape, (begin, end) = tuple(said["shape"]), said["data_offsets"]
    if not all(type(size) is int and 0 <= size < 2**48 for size in (*shape, begin, end)) or len(shape) > 8:
        raise ValueError("sizes")
    kind = _KINDS[said["dtype"]]
    if end - begin != kind.itemsize * math.prod(shape):
        raise ValueError("another size")
    return Entry(kind, shape, begin)


def _filled(file: IO[bytes], tensor: Tensor) -> Tensor:
    if tensor.numel() and file.readinto(_bytes(tensor)) != tensor.numel() * tensor.itemsize:  # type: ignore[attr-defined]
        raise Damaged("it ends too early")
    return tensor


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _of_header(header: dict) -> str:
    """Of all that it says, but for its own checksum."""
    said = {name: text for name, text in (header.get("__metadata__") or {}).items() if name != OF_HEADER}
    return f"{zlib.crc32(json.dumps(header | {'__metadata__': said}, sort_keys=True).encode()):08x}"


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    found = 0
    for name in sorted(tensors):
        found = zlib.crc32(_bytes(tensors[name]), zlib.crc32(name.encode("utf-8", "replace"), found))
    return f"{found:08x}"
