"""Distortions against torch's own turning and flipping, and what must not depend on the batch."""

import math
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from batchlab import _random
from batchlab.errors import InvalidValueError
from batchlab.tasks.augment import Augmentation, Warp, augment, drawn, normal, smooth, warped

NONE = Augmentation(**{one.name: 0 for one in fields(Augmentation)})
STRONG = Augmentation(40.0, 0.4, 0.3, 0.2, 0.1, 2, 0.5, 0.2)
SIDE = 8
IMAGES = torch.rand(6, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
KEYS = torch.arange(6) + _random.key(0, "test") // 2


def still(count=6, side=SIDE):
    one, zero = torch.ones(count), torch.zeros(count)
    return Warp(zero, one, zero, torch.zeros(count, 2), one, torch.zeros(count, side, side, 2))


def close(a, b):
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("quarters", [1, 2, 3, -1])
def test_quarter_turns_are_rot90(quarters, side):
    images = IMAGES[..., :7, :7] if side == 9 else IMAGES
    warp = still(side=images.shape[-1])
    turned = warped(images, warp._replace(angle=warp.angle + quarters * math.pi / 2))
    close(turned, torch.rot90(images, quarters, (2, 3)))


def test_a_mirror_is_flip():
    close(warped(IMAGES, still()._replace(mirror=-torch.ones(6))), IMAGES.flip(-1))


@pytest.mark.parametrize(("right", "down"), [(1, 0), (0, 2), (-3, 1)])
def test_a_shift_by_whole_pixels_moves_rows_and_leaves_black(right, down):
    shift = (torch.tensor([right, down]) * 2 / SIDE).expand(6, 2)
    moved = warped(IMAGES, still()._replace(shift=shift))
    padded = torch.nn.functional.pad(IMAGES, (4, 4, 4, 4))
    close(moved, padded[..., 4 - down : 4 - down + SIDE, 4 - right : 4 - right + SIDE])


def test_a_zoom_by_two_magnifies_the_middle():
    image = torch.zeros(1, 1, 8, 8)
    image[..., 3:5, 3:5] = 1
    zoomed = warped(image, still(1)._replace(zoom=torch.tensor([2.0])))
    # Bilinear edges: the mean of a square of twice the side.
    assert float(zoomed.sum()) == pytest.approx(4 * float(image.sum()), rel=1e-5)


def test_a_field_moves_each_pixel_by_its_own():
    field = torch.zeros(6, SIDE, SIDE, 2)
    field[:, 2, 3, 0] = 2 / SIDE
    moved = warped(IMAGES, still()._replace(field=field))
    expected = IMAGES.clone()
    expected[..., 2, 3] = IMAGES[..., 2, 4]
    close(moved, expected)


def test_an_elastic_field_is_bilinear_between_its_knots():
    knots = torch.tensor([[[[0.0, 3.0], [6.0, 9.0]], [[1.0, 1.0], [1.0, 1.0]]]])
    field = smooth(knots, 4)
    rows, columns = torch.meshgrid(2 * torch.arange(4.0), torch.arange(4.0), indexing="ij")
    close(field[0, ..., 0], rows + columns)
    close(field[0, ..., 1], torch.ones(4, 4))


def test_strength_zero_is_the_picture_itself():
    assert augment(IMAGES, KEYS, NONE) is IMAGES


@pytest.mark.parametrize("name", [one.name for one in fields(Augmentation)])
def test_every_distortion_alone_changes_pictures_within_its_strength(name):
    alone = replace(NONE, **{name: getattr(STRONG, name)})
    made = augment(IMAGES, KEYS, alone)
    assert not torch.allclose(made, IMAGES, atol=1e-2)
    warp = drawn(torch.arange(2000), SIDE, alone)
    assert float(warp.angle.abs().max()) <= math.radians(alone.rotation) + 1e-6
    assert float(warp.zoom.log().abs().max()) <= alone.zoom + 1e-6
    assert float(warp.shear.abs().max()) <= alone.shear
    assert float(warp.shift.abs().max()) <= 2 * (alone.shift + alone.crop / SIDE) + 1e-6
    assert float(warp.field.abs().max()) <= 2 * alone.elastic + 1e-6


def test_crops_take_every_whole_shift_equally_often():
    warp = drawn(torch.arange(9000), SIDE, replace(NONE, crop=1))
    pixels = (warp.shift * SIDE / 2).round().long() + 1
    counts = torch.bincount((3 * pixels[:, 0] + pixels[:, 1]), minlength=9)
    # Nine cells of 1,000 ± 29.8: 4 standard deviations.
    assert (counts - 1000).abs().max() < 4 * 29.8


@pytest.mark.parametrize("chance", [0.0, 0.3, 1.0])
def test_flips_come_with_their_chance(chance):
    mirrors = drawn(torch.arange(10_000), SIDE, replace(NONE, flip=chance)).mirror
    share = float((mirrors < 0).float().mean())
    assert abs(share - chance) <= 4 * math.sqrt(chance * (1 - chance) / 10_000)


def test_noise_is_normal():
    numbers = normal(torch.arange(100), 2, 1001).double()
    n = numbers.numel()
    assert abs(numbers.mean()) < 4 / math.sqrt(n)
    assert abs(numbers.square().mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs(numbers.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=6))
def test_a_picture_is_the_same_in_any_batch(which):
    index = torch.tensor(which)
    close(augment(IMAGES[index], KEYS[index], STRONG), augment(IMAGES, KEYS, STRONG)[index])


def test_halves_are_the_halves_of_the_whole():
    halves = [augment(IMAGES[p], KEYS[p], STRONG) for p in (slice(0, 3), slice(3, 6))]
    close(torch.cat(halves), augment(IMAGES, KEYS, STRONG))


def test_other_keys_give_other_pictures():
    same = IMAGES[:1].expand(6, -1, -1, -1)
    made = augment(same, KEYS, STRONG).flatten(1)
    apart = torch.cdist(made, made) + 10 * torch.eye(6)
    assert float(apart.min()) > 0.5


def test_it_is_the_same_under_vmap():
    stacked = torch.vmap(lambda images, keys: augment(images, keys, STRONG))
    made = stacked(IMAGES.view(2, 3, 2, SIDE, SIDE), KEYS.view(2, 3))
    close(made.flatten(0, 1), augment(IMAGES, KEYS, STRONG))


@pytest.mark.parametrize(
    ("name", "value"), [("rotation", -1.0), ("noise", math.nan), ("flip", 1.5), ("crop", -1)]
)
def test_an_impossible_strength_is_refused(name, value):
    with pytest.raises(InvalidValueError, match=f"`{name}` must be"):
        replace(NONE, **{name: value})
