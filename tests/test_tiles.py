"""Tiles cover an image once and begin in step with the networks."""

import numpy as np
import pytest

from cosdd import tiles


def all_of(space):
    return [slice(0, size) for size in space]


@pytest.mark.parametrize("edge", [None, 1, 16, 48, 500])
@pytest.mark.parametrize("space", [(96,), (64, 128), (16, 32, 48)])
def test_every_pixel_belongs_to_one_tile(space, edge):
    given = np.zeros(space, int)
    for tile in tiles.plan(all_of(space), space, 21, 16, pixels=8000, edge=edge):
        given[tile.inner] += 1
        for inner, seen, within, size in zip(tile.inner, tile.seen, tile.within, space, strict=True):
            assert seen.start % 16 == 0
            assert seen.start == max(0, inner.start - 32)
            assert seen.stop == min(size, inner.stop + 32)
            assert within.stop - within.start == inner.stop - inner.start
        coarse = tile.at(16)
        for fine, same in ((tile.inner, coarse.inner), (tile.seen, coarse.seen), (tile.within, coarse.within)):
            assert [(span.start, span.stop) for span in fine] == [(16 * span.start, 16 * span.stop) for span in same]
        if edge is None and len(space) == 2:
            assert tile.pixels <= 8000
    assert (given == 1).all()


def test_an_image_that_fits_is_one_tile():
    (tile,) = tiles.plan(all_of((64, 96)), (64, 96), 40, 16, pixels=64 * 96)
    assert tile.inner == tile.seen == (slice(0, 64), slice(0, 96))
    assert len(tiles.plan(all_of((64, 96)), (64, 96), 16, 16, pixels=64 * 96 - 1)) > 1


def test_only_the_window_is_made():
    """In step with the networks, so perhaps a little more; and it looks beyond the window as far as the image goes."""
    made = np.zeros((80, 400), int)
    for tile in tiles.plan((slice(9, 70), slice(100, 300)), made.shape, 20, 8, pixels=6000):
        made[tile.inner] += 1
        assert all(span.start % 8 == span.stop % 8 == 0 for span in (*tile.inner, *tile.seen))
        assert tile.pixels <= 6000
    assert (made[8:72, 96:304] == 1).all()
    assert made.sum() == 64 * 208
