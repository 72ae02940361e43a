"""Scenes: a function of their address alone, and what their parts claim is true of them."""

from __future__ import annotations

import hashlib
import multiprocessing

import numpy as np
import pytest

from mmseg_otseg.datasets.shapes import (
    BACKGROUND,
    SHAPES_CLASSES,
    SHAPES_PALETTE,
    SHAPES_UNSEEN,
    WORLDS,
    World,
    get_world,
    render_scene,
)
from mmseg_otseg.datasets.shapes.worlds import COLORS
from tools.shapes.captions import NUM_FACTS, VOCABULARY, caption_scene, scene_facts


def digest(worlds: tuple[str, ...] = ("clean", "haze", "lowlight")) -> str:
    """SHA-256 of a few scenes of some worlds."""
    sha = hashlib.sha256()
    for world in worlds:
        for index in range(5):
            scene = render_scene(world, "val", index, seed=3)
            sha.update(scene.image.tobytes() + scene.labels.tobytes())
    return sha.hexdigest()


def test_classes_and_unseen_split():
    assert len(SHAPES_CLASSES) == len(set(SHAPES_CLASSES)) == 20
    assert len(SHAPES_PALETTE) == len({tuple(c) for c in SHAPES_PALETTE}) == 20
    assert len(set(SHAPES_UNSEEN)) == 5
    seen = {n for n in SHAPES_CLASSES if n not in SHAPES_UNSEEN}
    for name in SHAPES_UNSEEN:
        color, shape = name.split()
        assert any(n.startswith(color) for n in seen), name
        assert any(n.endswith(shape) for n in seen), name


def test_same_address_same_scene_in_another_process():
    with multiprocessing.get_context("fork").Pool(2) as pool:
        there = pool.map(digest, [("clean", "haze", "lowlight")] * 4, chunksize=1)
    for index in reversed(range(5)):  # another order, and other scenes in between
        render_scene("crowd", "train", index)
    assert set(there) == {digest()}


def test_scenes_are_the_recorded_ones():
    """The shipped CLIP and every published figure belong to exactly these images."""
    scene = render_scene(get_world("haze", 0.6), "test", 7, seed=1)
    digest = hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()
    assert digest[:16] == "8f112a03eb0c707d"


def test_address_parts_all_matter():
    address = dict(world="crowd", subset="val", index=0, seed=0)
    base = render_scene(**address).image
    for change in (dict(subset="test"), dict(subset="train"), dict(index=1), dict(seed=1)):
        assert not np.array_equal(base, render_scene(**{**address, **change}).image), change


@pytest.mark.parametrize("world", list(WORLDS))
def test_images_and_labels_are_valid(world):
    seen_labels = set()
    for index in range(100):
        scene = render_scene(world, "val", index)
        assert scene.image.shape == (64, 64, 3) and scene.image.dtype == np.uint8
        assert scene.labels.shape == (64, 64) and scene.labels.dtype == np.uint8
        present = set(np.unique(scene.labels).tolist())
        assert present - {BACKGROUND} == {o.label for o in scene.objects if o.pixels}
        assert BACKGROUND in present
        low, high = WORLDS[world].objects
        assert low <= len(scene.objects) <= high
        assert sum(o.pixels for o in scene.objects) == int((scene.labels != BACKGROUND).sum())
        seen_labels |= present
    assert set(range(20)) <= seen_labels


def test_pixels_have_the_color_of_their_class():
    for index in range(60):
        scene = render_scene("clean", "train", index)
        for thing in scene.objects:
            pixels = scene.image[scene.labels == thing.label]
            if len(pixels) > 30:
                distances = np.abs(pixels.mean(0) - list(COLORS.values())).sum(1)
                assert distances.argmin() == thing.label // 4


def test_area_of_a_whole_object_matches_its_shape():
    """The visible share, on which captions rely, is 1 for an object that nothing hides."""
    alone = World("alone", objects=(1, 1), radius=(0.2, 0.2), clutter=(0, 0))
    objects = [
        thing
        for index in range(200)
        for thing in render_scene(alone, "val", index, size=128).objects
    ]
    for shape in range(4):
        shares = [thing.visible for thing in objects if thing.label % 4 == shape]
        assert max(shares) > 0.97 and np.median(shares) > 0.9


def test_size_may_be_rectangular_and_keeps_the_layout():
    small, large = render_scene("crowd", "val", 4), render_scene("crowd", "val", 4, size=256)
    assert [o.label for o in small.objects] == [o.label for o in large.objects]
    agree = (large.labels[2::4, 2::4] == small.labels).mean()
    assert agree > 0.97
    assert render_scene("crowd", "val", 4, size=(48, 80)).image.shape == (48, 80, 3)


def test_severity_takes_away_contrast():
    spread = [
        np.mean(
            [render_scene(get_world("haze", a), "val", i, size=96).image.std() for i in range(20)]
        )
        for a in (0.0, 0.4, 0.8)
    ]
    assert spread[0] > spread[1] > spread[2]
    cameras = (get_world(name, 0.7) for name in ("haze", "lowlight"))
    haze, dark = (np.mean(render_scene(world, "val", 0).image) for world in cameras)
    assert haze > 140 and dark < 70


def test_bad_addresses_are_refused():
    with pytest.raises(ValueError, match=r"'dev'.*train"):
        render_scene("clean", "dev", 0)
    with pytest.raises(ValueError, match=r"'fog'.*clean"):
        render_scene("fog", "val", 0)
    with pytest.raises(ValueError, match=r"severity.*0\.95"):
        get_world("haze", 1.5)


def test_captions_are_true_and_made_of_the_vocabulary():
    texts = set()
    for index in range(200):
        scene = render_scene("clean", "pretrain", index)
        caption, facts = caption_scene(scene, index), scene_facts(scene)
        assert caption.facts.shape == facts.shape == (NUM_FACTS,)
        assert not (caption.facts & ~facts).any(), caption.text
        named = {n for i, n in enumerate(SHAPES_CLASSES) if caption.nouns[i]}
        assert named == {n for n in SHAPES_CLASSES if n in caption.text}
        words = caption.text.replace(",", " ,").replace(".", " .").split()
        assert set(words) <= set(VOCABULARY), caption.text
        for size, of_size in zip(("small", "medium", "large"), caption.facts[20:80].reshape(3, 20)):
            assert caption.text.count(size) == of_size.sum()
        texts.add(caption.text)
    assert any("part of" in t for t in texts) and any(" and " in t for t in texts)
    assert len(texts) > 100


def test_caption_of_an_empty_scene_claims_nothing():
    empty = World("empty", objects=(0, 0), radius=(0.1, 0.1), clutter=(0, 0))
    scene = render_scene(empty, "val", 0)
    assert (scene.labels == BACKGROUND).all()
    assert not scene_facts(scene).any() and not caption_scene(scene).facts.any()
