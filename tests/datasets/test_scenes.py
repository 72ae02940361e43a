"""Scenes: a function of their address alone, and what their parts claim is true of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from mmseg_otseg.datasets.shapes import (
    BACKGROUND,
    NUM_FACTS,
    SHAPES_CLASSES,
    VOCABULARY,
    WORLDS,
    caption_scene,
    get_world,
    render_scene,
    scene_facts,
)


def test_scenes_are_the_recorded_ones():
    """The shipped CLIP and every published figure belong to exactly these images."""
    render_scene("crowd", "train", 3)  # what was drawn before does not matter
    scene = render_scene(get_world("haze", 0.6), "test", 7, seed=1)
    digest = hashlib.sha256(scene.image.tobytes() + scene.labels.tobytes()).hexdigest()
    assert digest[:16] == "8f112a03eb0c707d"


@pytest.mark.parametrize("world", ["clean", "haze"])
def test_images_and_labels_are_valid(world):
    seen_labels = set()
    for index in range(60):
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


def test_captions_are_true_and_made_of_the_vocabulary():
    texts = set()
    for index in range(120):
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
    assert len(texts) > 60
