"""An array in a file gives the same pixels as one in memory, and does not stay there."""

import math

import numpy as np
import pytest

from cosdd import lazy
from cosdd.lazy import Chunks, Kept, Lazy


def in_file(pixels: np.ndarray, chunk: tuple[int, ...], kept: Kept | None = None) -> tuple[Lazy, list]:
    """These pixels as if in a file, and the places of the chunks that were read."""
    read = []

    def chunk_at(place):
        read.append(place)
        return pixels[tuple(slice(i * c, (i + 1) * c) for i, c in zip(place, chunk, strict=True))].copy()

    return Lazy(Chunks(pixels.shape, pixels.dtype, chunk, chunk_at, kept or Kept())), read


def numbers(*shape: int) -> np.ndarray:
    return np.arange(math.prod(shape), dtype=">u4").reshape(shape)


def some_key(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple:
    key = []
    for length in shape:
        first, last = np.sort(rng.integers(-length - 2, length + 2, 2)).tolist()
        step = int(rng.integers(1, 4))
        cuts = [slice(first, last, step), slice(None), slice(last, first, -step), slice(last, None)]
        key.append([int(rng.integers(-length, length)), *cuts][rng.integers(5)])
    if rng.random() < 0.3:
        at = int(rng.integers(len(key)))
        key[at:] = [...]
    return tuple(key)


@pytest.mark.parametrize("chunk", [(1, 1, 1, 1), (1, 2, 3, 4), (2, 3, 5, 7), (9, 9, 9, 9)])
def test_any_part_is_that_of_the_array(chunk):
    pixels = numbers(3, 4, 5, 11)
    array, _ = in_file(pixels, chunk)
    assert (array.shape, array.dtype, array.ndim, len(array)) == (pixels.shape, pixels.dtype, 4, 3)
    rng = np.random.default_rng(0)
    for _ in range(200):
        key = some_key(rng, pixels.shape)
        found, expected = array[key], pixels[key]
        assert found.shape == expected.shape
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(np.asarray(array), pixels)
    for wrong in (3, -4, (0, 0, 0, 0, 0), (0, 7)):
        with pytest.raises(IndexError):
            array[wrong]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, -1, 0, 3), (-1, 3, 2, -1, 0)])
@pytest.mark.parametrize("merged", [0, 1, 2, 3])
def test_axes_are_arranged_and_merged_without_reading(order, merged):
    pixels = numbers(3, 1, 4, 5)
    array, read = in_file(pixels, (2, 1, 3, 2))
    view = lazy.merge(lazy.arrange(array, order), merged)
    expected = lazy.merge(lazy.arrange(pixels, order), merged)
    assert not read
    assert (view.shape, view.size, view.nbytes) == (expected.shape, expected.size, expected.nbytes)
    np.testing.assert_array_equal(np.asarray(view), expected)
    rng = np.random.default_rng(1)
    for _ in range(40):
        key = some_key(rng, view.shape)
        np.testing.assert_array_equal(view[key], expected[key])


def test_only_axes_of_length_1_may_be_left_out():
    for array in (numbers(2, 3), in_file(numbers(2, 3), (1, 1))[0]):
        with pytest.raises(ValueError, match="left out"):
            lazy.arrange(array, [1])


def test_only_chunks_that_are_asked_for_are_read_and_once():
    array, read = in_file(numbers(40, 40), (10, 10))
    array[12:18, 25:35]
    assert read == [(1, 2), (1, 3)]
    array[15, 26], array[19, 20:40]
    assert len(read) == 2
    array[::20, 3]
    assert read[2:] == [(0, 0), (2, 0)]


def test_memory_is_bounded_and_what_was_used_last_stays():
    kept = Kept(most=3 * 400)
    array, read = in_file(numbers(100, 10), (10, 10), kept)
    for start in (0, 10, 20, 0, 30, 0):  # 30 takes the place of 10, as 0 was used again
        array[start]
    assert [place[0] for place in read] == [0, 1, 2, 3]
    for start in range(0, 100, 10):
        array[start]
        assert kept.bytes <= 1200
    big, _ = in_file(numbers(100, 10), (100, 10), kept)
    np.testing.assert_array_equal(big[99], numbers(100, 10)[99])  # larger than what is kept


@pytest.mark.parametrize("block", [1, 300, 4000, 10**9])
def test_blocks_hold_every_pixel_once(block, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK_BYTES", block)
    pixels = numbers(3, 4, 6, 10)
    array, read = in_file(pixels, (1, 3, 6, 4), Kept(most=1))
    for data in (pixels, array, lazy.merge(array, 2)):
        seen = np.zeros(data.shape, int)
        for where, part in lazy.blocks(data):
            seen[where] += 1
            np.testing.assert_array_equal(part, data[where])
            assert 8 * part.size <= max(block, 8 * math.prod(getattr(data, "chunk", (1,))))
        assert (seen == 1).all()
    read.clear()
    for _ in lazy.blocks(array):
        pass
    assert len(read) == 3 * 2 * 3  # none twice, although none is kept


def test_a_mapped_file_gives_its_parts(tmp_path):
    pixels = numbers(3, 4, 50)
    (tmp_path / "a.raw").write_bytes(b"header.." + pixels.tobytes())
    array = Lazy(lazy.Mapped(tmp_path / "a.raw", pixels.dtype, 8, pixels.shape))
    rng = np.random.default_rng(0)
    for _ in range(50):
        key = some_key(rng, pixels.shape)
        np.testing.assert_array_equal(array[key], pixels[key])
        assert not isinstance(array[key], np.memmap)
    np.testing.assert_array_equal(np.asarray(lazy.merge(array, 2)), pixels.reshape(12, 50))
