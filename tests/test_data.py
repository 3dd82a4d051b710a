"""Statistics, the split, the crops: what reaches the networks is what was in the files."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from tiny import frames, settings, stripes

from cosdd import data, lazy, preparation
from cosdd.data import Frames, Statistics
from cosdd.errors import InputError


def noise(*shape, mean=0.0, std=1.0, seed=0):
    return mean + std * np.random.default_rng(seed).normal(size=shape)


# ------------------------------------------------------------------------------------------- statistics


@pytest.mark.parametrize("stream_bytes", [1, 4000, 2**26])
@pytest.mark.parametrize(
    "arrays",
    [
        [noise(7, 2, 5, 9)],
        [noise(4, 1, 30, 30, mean=1e6, std=1)],
        [noise(3, 1, 40, mean=-5e4), noise(2, 1, 7, mean=300)],
        [noise(3, 2, 8, 8, mean=100, std=9), noise(5, 2, 16, 4, mean=80), noise(1, 2, 3, 3)],
        [noise(4, 1, 30, 30, mean=2000, std=50).astype(">u2")],
        [noise(2, 3, 4, 6, 5).astype(np.float32)],
        [np.where(noise(3, 1, 50, 50) > 2, 60_000, 100).astype(np.uint16)],
    ],
    ids=["2 channels", "offset 1e6", "1-D", "many sizes", "big-endian", "3-D float32", "hot pixels"],
)
def test_streamed_statistics_are_those_of_all_pixels(arrays, stream_bytes, monkeypatch):
    monkeypatch.setattr(lazy, "BLOCK_BYTES", stream_bytes)
    found = data.measure(arrays)
    channels = arrays[0].shape[1]
    for c in range(channels):
        pixels = np.concatenate([array[:, c].astype(np.float64).ravel() for array in arrays])
        assert found.mean[c] == pytest.approx(pixels.mean(), rel=1e-12)
        assert found.std[c] == pytest.approx(pixels.std(), rel=1e-6)


@pytest.mark.parametrize("channels", [1, 3])
def test_of_very_many_pixels_some_are_looked_at(monkeypatch, channels):
    pixels = np.random.default_rng(0).normal(500, 20, (600, channels, 16, 16))
    pixels[:, :, :, 8:] += 50  # nothing is always left out
    monkeypatch.setattr(lazy, "BLOCK_BYTES", 8 * 16 * 8)  # half an image of one channel
    monkeypatch.setattr(data, "ENOUGH_PIXELS", pixels.size // 8)
    whole, read = lazy.blocks, []

    def watched(*given):
        for where, block in whole(*given):
            read.append(block.size)
            yield where, block

    monkeypatch.setattr(lazy, "blocks", watched)
    found = data.measure([pixels])
    assert 0.08 < sum(read) / pixels.size < 0.17
    assert found.mean == pytest.approx(pixels.mean((0, 2, 3)), abs=2)
    assert found.std == pytest.approx(pixels.std((0, 2, 3)), rel=0.05)
    assert data.measure([pixels]) == found
    monkeypatch.setattr(data, "ENOUGH_PIXELS", 1)  # a channel of which nothing is chosen is measured all the same
    assert data.measure([pixels[:2]]).mean == pytest.approx(pixels[:2].mean((0, 2, 3)))


def test_statistics_of_a_memory_map(tmp_path):
    pixels = noise(5, 1, 12, 12, mean=500, std=20).astype(np.uint16)
    np.save(tmp_path / "a.npy", pixels)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert data.measure([mapped]) == data.measure([pixels])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [0, 77])
def test_pixels_that_are_no_numbers_are_refused(bad, place):
    pixels = noise(3, 1, 8, 8)
    pixels.flat[place] = bad
    with pytest.raises(InputError, match="NaN or infinite"):
        data.measure([pixels])


def test_a_constant_channel_is_named():
    pixels = noise(3, 2, 8, 8)
    pixels[:, 1] = 0.1
    with pytest.raises(InputError, match="channel 1 is constant"):
        data.measure([pixels])


@pytest.mark.parametrize("offset", [0.0, 1e4, 1e6])
def test_normalising_keeps_float32_precision_on_any_offset(offset):
    """bfloat16 statistics cost the authors 4 grey levels at 1000 (method 8.4)."""
    pixels = noise(2, 2, 30, 30, mean=offset, std=1.0)
    found = data.measure([pixels])
    normalised = found.normalise(pixels)
    assert normalised.dtype == np.float32
    exact = (pixels - np.reshape(found.mean, (2, 1, 1))) / np.reshape(found.std, (2, 1, 1))
    np.testing.assert_allclose(normalised, exact, atol=1e-6)
    assert normalised.mean() == pytest.approx(0, abs=1e-5)
    assert normalised.std() == pytest.approx(1, abs=1e-5)

    restored = found.restore(normalised)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, pixels, rtol=2**-24, atol=1e-6)
    # Half a grey value back and forth is still half a grey value.
    half = found.restore(normalised + np.float32(0.5)) - restored.astype(np.float64)
    np.testing.assert_allclose(
        half, 0.5 * np.reshape(found.std, (2, 1, 1)) * np.ones_like(half), atol=offset * 2**-23 + 1e-6
    )


def test_integers_do_not_wrap_around():
    statistics = Statistics((100.0,), (10.0,), 1.0)
    pixels = np.array([0, 90, 110, 255], np.uint8).reshape(1, 1, 4)
    np.testing.assert_allclose(statistics.normalise(pixels).ravel(), [-10, -1, 1, 15.5])
    np.testing.assert_array_equal(statistics.normalise(pixels.astype(">u2")), statistics.normalise(pixels))


def test_a_standard_deviation_has_no_offset():
    statistics = Statistics((1000.0, 5.0), (10.0, 2.0), 0.0)
    std = statistics.restore_std(np.full((1, 2, 3), 0.5, np.float32))
    np.testing.assert_array_equal(std[0, :, 0], [5, 1])
    assert std.dtype == np.float32


@pytest.mark.parametrize(
    ("pixels", "step"),
    [
        (np.arange(4000) % 50, 1.0),
        (np.arange(4000) % 50 * 16, 16.0),
        ((np.arange(4000) % 50).astype(">f4") / 65_535, 1 / 65_535),
        (noise(4000), 0.0),
        (noise(4000).astype(np.float32), 0.0),
    ],
    ids=["integers", "12 bits in 16", "integers as fractions", "continuous", "continuous float32"],
)
def test_the_grey_step_is_found(pixels, step):
    found = data.measure([pixels.reshape(4, 1, 100, 10)])
    assert found.grey_step == pytest.approx(step, rel=1e-4)


def test_the_floor_of_sigma_follows_the_grey_step():
    """Rounding alone has a standard deviation of 0.29 steps: nothing narrower is noise (method 8.1)."""
    assert Statistics((0.0,), (10.0,), 1.0).smallest_sigma() == pytest.approx(0.029, rel=0.1)
    assert Statistics((0.0,), (10.0,), 0.0).smallest_sigma() > 0
    # The quietest channel decides where there are several: its noise is not to be forbidden.
    assert Statistics((0.0, 0.0), (10.0, 100.0), 1.0).smallest_sigma() <= 0.029


# ----------------------------------------------------------------------------------------------- split


@pytest.mark.parametrize("sizes", [[10], [100], [7, 1, 12], [1] * 30])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_frame_is_lost_and_none_is_on_both_sides(sizes, seed):
    """The authors' shuffle lost half of the images and trained on half of the validation set (method 8.3)."""
    arrays = [noise(n, 1, 4, 4, seed=n) for n in sizes]
    split = Frames.split(arrays, 0.1, seed)
    everything = {(a, i) for a, n in enumerate(sizes) for i in range(n)}
    assert set(split.train) | set(split.validation) == everything
    assert len(split.train) + len(split.validation) == len(everything)
    assert len(split.validation) == round(0.1 * sum(sizes))


def test_the_split_is_drawn_by_the_seed():
    pixels = [noise(40, 1, 4, 4)]
    drawn = [Frames.split(pixels, 0.2, seed).validation for seed in range(6)]
    assert drawn[0] == Frames.split(pixels, 0.2, 0).validation
    assert len(set(drawn)) > 4
    assert len({frame for chosen in drawn for frame in chosen}) > 20


def test_nothing_is_held_out_of_a_few_frames():
    split = Frames.split([noise(9, 1, 4, 4)], 0.5, 0)
    assert (len(split.train), split.validation) == (9, ())
    assert split.validation_crops(0, 3, (4, 4)).shape == (3, 1, 4, 4)


def test_something_is_always_left_to_train_on():
    split = Frames.split([noise(10, 1, 4, 4)], 0.99, 0)
    assert split.train
    assert split.batch(0, 0, 2, (4, 4), "y").shape == (2, 1, 4, 4)


# ----------------------------------------------------------------------------------------------- crops


def numbered(count: int, *space: int) -> np.ndarray:
    """Frame i has the value i everywhere."""
    return np.broadcast_to(np.arange(count, dtype=float).reshape(-1, 1, *[1] * len(space)), (count, 1, *space))


def test_training_crops_come_from_training_frames_only():
    split = Frames.split([numbered(20, 8, 8)], 0.2, 0)
    seen, held = set(), set()
    for step in range(40):
        crops = split.statistics.restore(split.batch(0, step, 8, (4, 4), "y"))
        seen |= set(crops.round().ravel().astype(int).tolist())
    held = set(split.statistics.restore(split.validation_crops(0, 200, (4, 4))).round().ravel().astype(int).tolist())
    assert seen == {i for _, i in split.train}
    assert held == {i for _, i in split.validation}


def test_a_batch_is_a_pure_function_of_seed_and_step():
    """What makes a resumed run, or one on other hardware, see the same data."""
    one, other = frames(), frames()
    asked = (8, (16, 16), "y")
    first = one.batch(3, 7, *asked)
    for step in range(3):
        other.batch(3, step, *asked)
    np.random.default_rng(0).random()
    torch.manual_seed(99)
    np.testing.assert_array_equal(other.batch(3, 7, *asked), first)
    assert not np.array_equal(one.batch(3, 8, *asked), first)
    assert not np.array_equal(one.batch(4, 7, *asked), first)
    assert first.dtype == np.float32
    assert first.shape == (8, 1, 16, 16)


def test_validation_crops_are_the_same_every_time():
    split = frames()
    first = split.validation_crops(0, 5, (16, 16))
    split.batch(0, 0, 4, (16, 16), "y")
    np.testing.assert_array_equal(split.validation_crops(0, 5, (16, 16)), first)
    assert not np.array_equal(split.validation_crops(1, 5, (16, 16)), first)


def directions(crops: np.ndarray) -> list[set[int]]:
    """For each axis in space, the signs of the slopes of a ramp seen in the crops."""
    return [{int(np.sign(np.diff(crop[0], axis=axis).mean())) for crop in crops} for axis in range(crops.ndim - 2)]


@pytest.mark.parametrize(
    ("shape", "flips"),
    [((16, 16), "y"), ((16, 16), "x"), ((16, 16), "xyz"), ((8, 8, 8), "yz"), ((8, 8, 8), "xy"), ((32,), "yz")],
)
def test_crops_are_flipped_along_the_axes_that_allow_it_only(shape, flips):
    """The noise of a row need not look the same backwards (method 4.1)."""
    ramp = np.tensordot(10.0 ** np.arange(len(shape)), np.indices(shape), 1)
    split = Frames.split([np.broadcast_to(ramp, (2, 1, *shape))], 0.1, 0)
    edges = tuple(size // 2 for size in shape)
    seen = directions(split.batch(0, 0, 64, edges, flips))
    for letter, signs in zip("zyx"[-len(shape) :], seen, strict=True):
        assert signs == ({-1, 1} if letter in flips else {1}), letter
    assert directions(split.validation_crops(0, 32, edges)) == [{1}] * len(shape)


def test_crops_reach_every_corner_of_the_frame():
    position = np.arange(10 * 12, dtype=float).reshape(1, 1, 10, 12)
    split = Frames.split([position], 0.1, 0)
    crops = split.statistics.restore(split.batch(0, 0, 400, (4, 4), "y"))
    assert set(crops.round().ravel().astype(int).tolist()) == set(range(120))


def test_larger_frames_give_more_crops():
    """Every pixel is seen about as often as every other, whichever file it lies in."""
    split = Frames.split([numbered(1, 8, 8), 1 + numbered(1, 24, 24)], 0.1, 0)
    crops = split.statistics.restore(split.batch(0, 0, 1000, (8, 8), "y")).round()
    assert (crops[:, 0, 0, 0] == 1).mean() == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize(
    ("space", "crop", "stride", "edges"),
    [
        ((128, 256), 64, 16, (64, 64)),
        ((50, 256), 64, 16, (48, 64)),
        ((50, 256), 60, 16, (48, 48)),
        ((5, 300), 256, 128, (128, 256)),
        ((40,), 64, 8, (40,)),
    ],
)
def test_crop_edges_are_multiples_of_the_stride_within_the_frame(space, crop, stride, edges):
    assert frames(noise(2, 1, *space)).edges(crop, stride) == edges


def test_what_lies_outside_of_a_small_frame_is_missing():
    """Its mirror image would be the noise of other rows once more."""
    small = np.arange(1.0, 7.0).reshape(1, 1, 2, 3)
    split = Frames.split([small, noise(1, 1, 16, 16)], 0.1, 0)
    alone = data.Frames([small], split.statistics, ((0, 0),), ((0, 0),))
    crop = alone.validation_crops(0, 1, (8, 8))
    assert crop.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(split.statistics.restore(crop[..., :2, :3])[0, 0], small[0, 0], atol=1e-5)
    assert np.isfinite(crop).sum() == 6
    assert (np.isfinite(alone.batch(0, 0, 5, (8, 8), "yx")).sum((1, 2, 3)) == 6).all()
    (held_out,) = alone.one_of_each(alone.validation, 1, (8, 8))
    np.testing.assert_array_equal(held_out[0], crop[0, 0, :2, :3])


def test_an_epoch_visits_every_frame_as_often_as_crops_fit_into_it():
    """Supplement section 2.1, method 4.1: 100 frames of 1024 x 1024, 10 held out, are 90 updates."""
    split = frames(np.broadcast_to(noise(1, 1, 16, 16), (100, 1, 16, 16)))
    assert split.epoch((4, 4), 16) == 90
    assert split.epoch((16, 16), 1000) == 1


def test_a_frame_of_a_memory_map_is_read_only_where_it_is_cropped(tmp_path):
    np.save(tmp_path / "a.npy", stripes())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    np.testing.assert_array_equal(
        frames(mapped).batch(0, 0, 4, (16, 16), "y"), frames(stripes()).batch(0, 0, 4, (16, 16), "y")
    )


# --------------------------------------------------------------------------------------------- prepare


def prepare(*sources, axes=None, noise_axis="x", layers=()):
    return preparation.prepare(list(sources), axes, noise_axis, "tiny", {"method": "cosdd"}, *layers)


@pytest.mark.parametrize("axis", [1, False, ["x"], "w"])
def test_a_noise_axis_that_is_none_is_shown_back(axis):
    with pytest.raises(InputError, match="noise axis") as caught:
        prepare(stripes(3)[:, 0], noise_axis="auto", layers=[{"model": {"noise_axis": axis}}])
    assert repr(axis) in str(caught.value)


@pytest.mark.parametrize(
    ("pixels", "axes", "noise_axis", "dimensions", "channels", "count"),
    [
        (noise(20, 24), None, "x", 2, 1, 1),
        (noise(12, 20, 24), None, "y", 2, 1, 12),
        (noise(3, 20, 24), "CYX", "none", 2, 3, 1),
        (noise(5, 2, 20, 24), "TCYX", "x", 2, 2, 5),
        (noise(20, 24, 3), "YXC", "x", 2, 3, 1),
        (noise(14, 20, 24), "ZYX", "x", 2, 1, 14),
        (noise(14, 20, 24), "ZYX", "z", 3, 1, 1),
        (noise(300), None, "x", 1, 1, 1),
    ],
)
def test_what_the_settings_leave_open_is_read_off_the_images(pixels, axes, noise_axis, dimensions, channels, count):
    ready = prepare(pixels, axes=axes, noise_axis=noise_axis)
    model = ready.settings.model
    assert (model.dimensions, model.channels, model.noise_axis) == (dimensions, channels, noise_axis)
    assert len(ready.frames.train) + len(ready.frames.validation) == count
    assert ready.inspection is None


@pytest.mark.parametrize("axis", ["x", "y"])
def test_the_noise_axis_is_measured_where_it_is_not_given(axis):
    pixels = stripes(4, 64, 64)[:, 0]
    ready = prepare(pixels if axis == "x" else pixels.swapaxes(1, 2).copy(), noise_axis="auto")
    assert ready.settings.model.noise_axis == axis
    assert ready.inspection is not None


def test_the_noise_axis_is_measured_in_several_images():
    """The first may be the odd one, and one with white noise is no evidence against streaks."""
    white = 1000 + noise(64, 64, std=50)
    streaks = [image[0] for image in stripes(11, 64, 64)]
    ready = prepare(white, *streaks, noise_axis="auto")
    assert ready.settings.model.noise_axis == "x"
    (note,) = ready.notes
    assert "noise axis x is taken" in note
    assert "5 images looked at have it: array (none)." in note
    (note,) = prepare(*[image.T.copy() for image in streaks[:1]], *streaks, noise_axis="auto").notes
    assert "array (y)" in note


def test_doubts_about_any_of_several_images_are_said_once():
    images = [image[0] for image in stripes(9, 96, 96)]
    spoiled = [np.minimum(image, np.quantile(image, 0.97)).astype(np.uint16) for image in images[:2]]
    (note,) = prepare(images[2], *images[3:], *spoiled, noise_axis="x").notes
    assert "saturated" in note


def test_a_wrong_axis_is_said_before_the_time_is_spent():
    pixels = stripes(8, 96, 96)[:, 0]
    assert prepare(pixels, noise_axis="x").notes == ()
    (note,) = prepare(pixels, noise_axis="y").notes
    assert "try --noise-axis x" in note
    assert prepare(pixels, noise_axis="auto").notes == ()


def test_noise_along_both_axes_is_said():
    rng = np.random.default_rng(0)
    noise = ndimage.gaussian_filter(rng.normal(size=(12, 96, 96)), (0, 1, 1))
    notes = prepare((500 + 300 * noise).astype(np.float32), noise_axis="auto").notes
    assert any("both axes" in note for note in notes)


def test_saturated_pixels_are_said():
    pixels = stripes(8, 96, 96)[:, 0]
    (note,) = prepare(np.minimum(pixels, np.quantile(pixels, 0.97)).astype(np.uint16), noise_axis="x").notes
    assert "saturated" in note


def test_little_data_is_said():
    (note,) = prepare(stripes(2, 64, 64)[:, 0], noise_axis="x").notes
    assert "8,192 pixels" in note


def test_a_noise_axis_in_the_settings_counts_where_the_command_says_auto():
    ready = prepare(stripes(4)[:, 0], noise_axis="auto", layers=({"model": {"noise_axis": "y"}},))
    assert (ready.settings.model.noise_axis, ready.inspection) == ("y", None)


def test_a_noise_axis_z_means_volumes_wherever_it_is_said():
    ready = prepare(noise(14, 20, 24), axes="ZYX", noise_axis="auto", layers=({"model": {"noise_axis": "z"}},))
    assert (ready.settings.model.noise_axis, ready.settings.model.dimensions) == ("z", 3)


def test_dimensions_can_be_chosen():
    lines = prepare(noise(5, 300), layers=({"model": {"dimensions": 1}},))
    assert lines.frames.arrays[0].shape == (5, 1, 300)
    ready = prepare(noise(14, 20, 24), axes="ZYX", layers=({"model": {"dimensions": 3}},))
    assert ready.settings.model.dimensions == 3
    assert ready.frames.arrays[0].shape == (1, 1, 14, 20, 24)


@pytest.mark.parametrize(
    ("sources", "asked", "said"),
    [
        ([noise(20, 24)], {"noise_axis": "diagonal"}, "auto, x, y, z, none"),
        ([noise(20, 24)], {"noise_axis": "z"}, "axis Z is missing"),
        ([noise(30)], {"noise_axis": "y"}, "noise axis y"),
        ([noise(4, 8, 8)], {"axes": "CYX", "layers": ({"model": {"dimensions": 3}},)}, "axis Z is missing"),
        ([np.zeros((8, 8))], {}, "every pixel is 0"),
        ([np.full((8, 8), np.nan)], {}, "NaN"),
    ],
)
def test_images_that_cannot_be_trained_on_are_refused_in_one_line(sources, asked, said):
    with pytest.raises(InputError, match=said) as caught:
        prepare(*sources, **asked)
    assert "\n" not in str(caught.value)


def test_images_of_two_kinds_are_refused(tmp_path):
    np.save(tmp_path / "grey.npy", noise(16, 16))
    grey = preparation.gather([tmp_path / "grey.npy"], None)[0]
    with pytest.raises(InputError, match=r"3 channel\(s\), but .*grey\.npy has 1"):
        prepare(grey, preparation.gather([noise(3, 16, 16)], "CYX")[0])


def test_files_and_arrays_give_the_same_crops(tmp_path):
    pixels = stripes()[:, 0]
    np.save(tmp_path / "stack.npy", pixels)
    batches = [
        prepare(source, axes="TYX", layers=({"train": settings().train.model_dump()},)).frames.batch(
            0, 0, 4, (16, 16), "x"
        )
        for source in (pixels, tmp_path / "stack.npy", str(tmp_path / "*.npy"))
    ]
    np.testing.assert_array_equal(batches[1], batches[0])
    np.testing.assert_array_equal(batches[2], batches[0])


def test_windows_hold_frames_of_every_size_once_and_unpadded():
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(2, 1, 40, 50)), rng.normal(size=(1, 1, 300, 520))]
    windows = Frames.split(arrays, 0.1, 0).windows()
    assert [window.shape for window in windows] == [(1, 40, 50)] * 2 + [(1, 256, 256)] * 2
    many = Frames.split([rng.normal(size=(400, 1, 64, 64))], 0.1, 0).windows(pixels=1 << 16)
    assert 1 << 15 <= sum(window.size for window in many) <= 1 << 20
    deep = Frames.split([rng.normal(size=(1, 1, 20, 80, 80))], 0.1, 0).windows(pixels=1 << 15)
    assert [window.shape for window in deep] == [(1, 20, 32, 32)]


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_what_is_no_grey_value_is_refused_on_its_way_back(value):
    statistics = Statistics((5.0,), (1e9,), 0.0)
    pixels = np.ones((1, 1, 4, 4), np.float32)
    assert statistics.restore(pixels).dtype == np.float32
    pixels[0, 0, 1, 2] = value
    with np.errstate(all="ignore"):
        for back in (statistics.restore, statistics.restore_std):
            with pytest.raises(InputError, match="what the model gives is not finite"):
                back(pixels)
