"""Views: keyed by instance alone, with torchvision's formulas, the same on any number of devices."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P
from PIL import Image

from contrastive_jax.data import views
from contrastive_jax.jobs.logs import view_pictures

FULL = views.ViewConfig(size=20)
NOTHING = views.ViewConfig(
    size=4, crop_scale=(1, 1), crop_ratio=(1, 1), flip=0, jitter=0, greyscale=0, blur=0, mean=0.0, std=1.0
)
CROP = dataclasses.replace(NOTHING, crop_scale=(0.2, 1.0))
MANY = 2000

plain_view = jax.jit(views.plain_view, static_argnames="config")
crop = jax.jit(views._crop, static_argnames="size")


def images_of(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def replace(config, **changes):
    return dataclasses.replace(config, **changes)


@functools.cache
def viewer(config, num_views=2):
    return jax.jit(functools.partial(views.random_views, num_views=num_views, config=config))


@pytest.fixture(scope="module")
def batch():
    """Eight RGB images with their ids and, under the full configuration, their views."""
    images, ids = images_of(8, 24, 22, 3), np.arange(8, dtype=np.int32) * 7
    return images, ids, np.asarray(viewer(FULL)(images, ids, seed=3, epoch=5))


@pytest.fixture(scope="module")
def small():
    """Four little RGB images with their ids and their random crops."""
    images, ids = images_of(4, 4, 4, 3), np.arange(4, dtype=np.int32)
    return images, ids, np.asarray(viewer(CROP)(images, ids, seed=0, epoch=0))


def test_shape_dtype_and_range(batch):
    found = batch[2]
    assert found.shape == (2, 8, 20, 20, 3)
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    assert -1 <= found.min() < -0.5 < 0.5 < found.max() <= 1  # mean and std are 0.5


def test_a_view_does_not_depend_on_the_rest_of_the_batch(batch):
    images, ids, found = batch
    order = np.array([6, 2, 2, 0, 7, 1, 5, 3])
    shuffled = viewer(FULL)(images[order], ids[order], seed=3, epoch=5)
    np.testing.assert_allclose(shuffled, found[:, order], atol=1e-5)
    others = np.where(np.arange(8)[:, None, None, None] == 4, images, 255 - images)
    among_others = viewer(FULL)(others, np.where(np.arange(8) == 4, ids, ids + 1), seed=3, epoch=5)
    np.testing.assert_allclose(among_others[:, 4], found[:, 4], atol=1e-5)


def test_more_views_leave_the_first_ones_as_they_are(small):
    images, ids, found = small
    three = viewer(CROP, 3)(images, ids, seed=0, epoch=0)
    np.testing.assert_allclose(three[:2], found, atol=1e-6)
    assert not np.allclose(three[2], three[1])


def test_seed_epoch_id_and_view_each_change_the_view(batch):
    images, ids, found = batch
    view = viewer(FULL)
    changed = [
        view(images, ids, seed=4, epoch=5),
        view(images, ids, seed=3, epoch=6),
        view(images, ids + 1, seed=3, epoch=5),
    ]
    for other in [*changed, found[::-1]]:
        assert (np.abs(np.asarray(other) - found).max(axis=(2, 3, 4)) > 1e-3).all()


def test_the_epoch_of_evaluation_is_none_of_training(small):
    images, ids, _ = small
    assert np.iinfo(np.int32).max < views.EVALUATION_EPOCH <= np.iinfo(np.uint32).max
    found = [viewer(CROP)(images, ids, seed=0, epoch=np.uint32(epoch)) for epoch in (views.EVALUATION_EPOCH, 0)]
    assert (np.abs(found[0] - found[1]).max(axis=(2, 3, 4)) > 1e-3).all()
    held_out = viewer_of_evaluation(images, ids)
    np.testing.assert_allclose(held_out, found[0], atol=1e-6)


@jax.jit
def viewer_of_evaluation(images, ids):
    """The epoch as a constant, which no int32 holds."""
    return views.random_views(images, ids, seed=0, epoch=views.EVALUATION_EPOCH, config=CROP)


def test_one_trace_serves_every_epoch(small):
    images, ids, _ = small

    @jax.jit
    @chex.assert_max_traces(n=1)
    def view(seed, epoch):
        return views.random_views(images, ids, seed=seed, epoch=epoch, num_views=1, config=NOTHING)

    for epoch in range(3):
        view(epoch, epoch)


def test_shard_map_gives_the_single_device_views(batch):
    images, ids, found = batch
    mesh = jax.make_mesh((4,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,), devices=jax.devices()[:4])
    shards = jax.shard_map(
        lambda images, ids, epoch: views.random_views(images, ids, seed=3, epoch=epoch, config=FULL),
        mesh=mesh,
        in_specs=(P("batch"), P("batch"), P()),
        out_specs=P(None, "batch"),
        check_vma=True,
    )
    np.testing.assert_allclose(jax.jit(shards)(images, ids, np.int32(5)), found, atol=1e-5)


def test_pmap_gives_the_single_device_views(small):
    images, ids, found = small
    per_device = functools.partial(views.random_views, seed=0, epoch=0, config=CROP)
    shards = jax.pmap(per_device, axis_name="batch", out_axes=1)(images[:, None], ids[:, None])
    np.testing.assert_allclose(np.reshape(shards, found.shape), found, atol=1e-5)


def test_nothing_random_is_the_plain_view(small):
    images, ids, _ = small
    found = viewer(NOTHING, 1)(images, ids, seed=0, epoch=0)
    np.testing.assert_allclose(found[0], images / 255, atol=1e-6)
    np.testing.assert_allclose(plain_view(images, config=NOTHING), found[0], atol=1e-6)


def test_strength_zero_leaves_only_the_crop(small):
    images, ids, found = small
    # A view of 4 pixels is too small for a blur.
    still = replace(CROP, jitter=1.0, brightness=0, contrast=0, saturation=0, hue=0, blur=1.0)
    np.testing.assert_array_equal(viewer(still)(images, ids, seed=0, epoch=0), found)


def test_normalisation_is_by_channel():
    images = images_of(2, 4, 4, 3)
    config = replace(NOTHING, mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0))
    expected = (images / 255 - [0.1, 0.2, 0.3]) / [1, 2, 4]
    np.testing.assert_allclose(plain_view(images, config=config), expected, atol=1e-6)


def pillow_resize(image, size, box):
    planes = [
        Image.fromarray(plane.astype(np.float32)).resize((size, size), Image.Resampling.BILINEAR, box=box)
        for plane in np.moveaxis(image, -1, 0)
    ]
    return np.stack([np.asarray(plane) for plane in planes], axis=-1) / 255


@pytest.mark.parametrize("size", [5, 13, 24])
@pytest.mark.parametrize(("corner", "extent"), [((0, 0), (24, 20)), ((3, 2), (17, 9)), ((20, 10), (4, 10))])
def test_crop_is_pillows_antialiased_resize(size, corner, extent):
    image = images_of(24, 20, 3)
    found = crop(views._to_unit(jnp.array(image)), jnp.float32(corner), jnp.float32(extent), size=size)
    (top, left), (height, width) = corner, extent
    expected = pillow_resize(image, size, (left, top, left + width, top + height))
    np.testing.assert_allclose(np.moveaxis(found, 0, -1), expected, atol=2e-6)


@pytest.mark.parametrize(("size", "box"), [(28, (2, 2, 30, 30)), (32, (0, 0, 32, 32)), (40, (0, 0, 32, 32))])
def test_plain_view_crops_seven_eighths_of_a_larger_image(size, box):
    images = images_of(1, 32, 32, 1)
    found = plain_view(images, config=replace(NOTHING, size=size))
    np.testing.assert_allclose(found[0], pillow_resize(images[0], size, box), atol=2e-6)


def test_plain_view_takes_the_centre_of_an_oblong_image():
    images = np.zeros((1, 8, 24, 1), np.uint8)
    images[:, :, 8:16] = 255
    np.testing.assert_allclose(plain_view(images, config=replace(NOTHING, size=8)), 1.0)


@pytest.fixture(scope="module")
def draws():
    """The draws of many views."""
    return jax.jit(jax.vmap(views._draw))(jax.random.split(jax.random.key(0), MANY))


def torchvision_boxes(count, height, width, scale, ratio):
    """Extents as torchvision's RandomResizedCrop.get_params draws them."""
    rng, extents = np.random.default_rng(0), []
    for _ in range(count):
        for _ in range(10):
            area = height * width * rng.uniform(*scale)
            aspect = np.exp(rng.uniform(*np.log(ratio)))
            w, h = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                extents.append((h, w))
                break
        else:
            raise AssertionError("no box fits")
    return np.array(extents)


def test_boxes_lie_in_the_image_and_are_distributed_as_torchvisions(draws):
    height, width = 32, 40
    boxes = jax.jit(jax.vmap(lambda draws: views._random_box(draws, height, width, FULL)))(draws)
    corners, extents = (np.asarray(part) for part in boxes)
    free = np.array([height, width]) - extents
    assert (corners >= 0).all() and (extents >= 1).all() and (corners <= free).all()
    np.testing.assert_array_equal(np.round(boxes), boxes)
    expected = torchvision_boxes(MANY, height, width, FULL.crop_scale, FULL.crop_ratio)
    quantiles = np.linspace(0.05, 0.95, 10)
    for statistic in (lambda extents: extents.prod(axis=1), lambda extents: extents[:, 1] / extents[:, 0]):
        wanted = statistic(expected)
        found = np.quantile(statistic(extents), quantiles)
        np.testing.assert_allclose(found, np.quantile(wanted, quantiles), atol=0.15 * wanted.std())
    np.testing.assert_allclose((corners[free > 0] / free[free > 0]).mean(), 0.5, atol=0.03)


def test_where_no_box_fits_the_crop_is_central():
    config = replace(FULL, crop_scale=(1.0, 1.0), crop_ratio=(2.0, 2.0))
    corner, extent = views._random_box(views._draw(jax.random.key(0)), 16, 16, config)
    np.testing.assert_array_equal(extent, [8, 16])
    np.testing.assert_array_equal(corner, [4, 0])


@pytest.mark.parametrize(("name", "probability"), [("flip", 0.5), ("greyscale", 0.2), ("jitter", 0.8)])
def test_probabilities(draws, name, probability):
    image = images_of(4, 4, 3, seed=1)
    config = replace(NOTHING, **{name: probability})
    found = np.asarray(jax.jit(jax.vmap(lambda draws: views._view(draws, jnp.array(image), config)))(draws))
    unit = (image / 255).astype(np.float32)
    changed = np.abs(found - unit).max(axis=(1, 2, 3)) > 1e-4
    np.testing.assert_allclose(changed.mean(), probability, atol=4 * np.sqrt(0.25 / MANY))
    if name == "flip":
        np.testing.assert_allclose(found[changed], np.broadcast_to(unit[:, ::-1], found[changed].shape), atol=1e-6)
    if name == "greyscale":
        luma = unit @ np.float32([0.2989, 0.587, 0.114])
        np.testing.assert_allclose(found[changed][0], np.repeat(luma[..., None], 3, axis=-1), atol=1e-6)


def test_draws_are_uniform_and_independent(draws):
    numbers = np.concatenate([np.reshape(part, (MANY, -1)) for part in draws], axis=1)
    np.testing.assert_allclose(numbers.mean(axis=0), 0.5, atol=5 * np.sqrt(1 / 12 / MANY))
    correlations = np.corrcoef(numbers.T) - np.eye(numbers.shape[1])
    assert np.abs(correlations).max() < 5 / np.sqrt(MANY)


def test_flat_images_stay_finite(batch):
    images = np.broadcast_to(np.uint8([0, 255] * 4)[:, None, None, None], batch[0].shape)
    assert np.isfinite(viewer(FULL)(images, batch[1], seed=0, epoch=0)).all()


def test_grey_images():
    found = viewer(views.ViewConfig(size=8))(images_of(4, 8, 8, 1), np.arange(4, dtype=np.int32), seed=0, epoch=0)
    assert found.shape == (2, 4, 8, 8, 1)
    assert np.isfinite(found).all()


def test_hue_alone_keeps_the_value(small):
    images, ids, _ = small
    config = replace(NOTHING, jitter=1, brightness=0, contrast=0, saturation=0)
    found = np.asarray(viewer(config, 1)(images, ids, seed=0, epoch=0))[0]
    np.testing.assert_allclose(found.max(axis=-1), images.max(axis=-1) / 255, atol=1e-5)
    assert np.abs(found - images / 255).max() > 1e-2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flip": 1.5}, r"flip: expected a probability in \[0, 1\], got 1.5"),
        ({"hue": 0.6}, r"hue: expected a strength in \[0, 0.5\], got 0.6"),
        ({"crop_scale": (0.5, 0.2)}, r"crop_scale: expected 0 < least <= greatest <= 1.0, got \(0.5, 0.2\)"),
        ({"size": 0, "flip": 2}, "size: expected at least 1 pixel, got 0; flip: expected"),
        ({"std": (1.0, 0.0, 1.0)}, r"std: expected positive numbers, got \(1.0, 0.0, 1.0\)"),
        ({"std": float("nan")}, "std: expected positive numbers, got nan"),
        ({"mean": float("inf")}, "mean: expected finite numbers, got inf"),
    ],
)
def test_bad_configurations_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        replace(FULL, **changes)


def test_plain_views_of_floats_are_those_of_the_pixels_they_are():
    images = images_of(3, 9, 12, 3)
    found = views.plain_view((images / 255).astype(np.float32), config=FULL)
    np.testing.assert_allclose(found, views.plain_view(images, config=FULL), rtol=0, atol=1e-5)


def test_bad_images_are_refused():
    ids = np.arange(2, dtype=np.int32)
    for images in (np.zeros((2, 4, 4, 3), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4, 2), np.uint8)):
        with pytest.raises(ValueError, match=r"expected uint8 \[b, h, w, c\]"):
            views.random_views(images, ids, seed=0, epoch=0, config=FULL)
    for images in (np.zeros((2, 4, 4, 3), int), np.zeros((4, 4, 3), np.uint8), np.zeros((2, 4, 4, 2), np.float32)):
        with pytest.raises(ValueError, match=r"expected uint8 or floats \[b, h, w, c\]"):
            views.plain_view(images, config=FULL)
    with pytest.raises(ValueError, match=r"ids: expected one for each of the \d+ images"):
        views.random_views(images_of(3, 4, 4, 1), ids, seed=0, epoch=0, config=FULL)
    config = replace(FULL, mean=(0.4, 0.4, 0.4))
    with pytest.raises(ValueError, match="mean: expected 1 number or one for each of 1 channels, got 3"):
        views.random_views(images_of(2, 4, 4, 1), ids, seed=0, epoch=0, config=config)


@pytest.mark.parametrize(("count", "channels"), [(20, 1), (5, 3)])
def test_picture_is_written_whole_or_not_at_all(tmp_path, count, channels):
    path = tmp_path / "pictures" / "views.png"
    images, found = images_of(count, 4, 4, channels), np.zeros((2, count, 6, 6, channels), np.float32)
    view_pictures.save_views_picture(path, images, found, mean=0.5, std=0.5)
    with Image.open(path) as picture:
        picture.load()
        assert picture.width > 800
    before = path.read_bytes()
    with pytest.raises(ValueError):
        view_pictures.save_views_picture(path, images[:3], found, mean=0.5, std=0.5)
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["views.png"]
