"""The class split: the named ones, what a config may hold, and every mistake in it."""

from __future__ import annotations

import pickle
import re

import numpy as np
import pytest
from mmengine.config import ConfigDict

from mmseg_otseg.structures import IGNORED, UNLABELED, ClassSplit

NAMES = ("sky", "road", "tree", "car")


def test_label_values():
    assert (IGNORED, UNLABELED) == (255, 254)


@pytest.mark.parametrize(
    ("name", "number", "unseen"),
    [
        ("voc", 20, {"pottedplant", "sheep", "sofa", "train", "tvmonitor"}),
        (
            "context",
            59,
            {
                *("cow", "motorbike", "sofa", "cat", "boat", "fence", "bird", "tvmonitor"),
                *("keyboard", "aeroplane"),
            },
        ),
        (
            "cocostuff",
            171,
            {
                *("cow", "giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors"),
                *("cardboard", "clouds", "grass", "playingfield", "river", "road", "tree"),
                "wall-concrete",
            },
        ),
        ("ade20k", 150, set()),
    ],
)
def test_known_splits(name, number, unseen):
    split = ClassSplit.build(name)
    assert split.num_classes == number
    assert set(split.unseen_names) == unseen
    assert sorted(split.seen + split.unseen) == list(range(number))
    assert "background" not in split.classes


@pytest.mark.parametrize(
    "given",
    [
        dict(classes=NAMES, unseen=[3, 1]),
        dict(classes=list(NAMES), unseen=["car", "road"]),
        dict(classes=NAMES, unseen=[1, "car"]),
        dict(classes=NAMES, unseen=np.array([3, 1])),
        dict(classes=NAMES, seen=["sky", 2]),
        dict(classes=NAMES, seen=[0, 2], unseen=[1, 3]),
        dict(classes=NAMES, seen=None, unseen=[1, 3]),
        dict(classes="sky, road, tree, car", unseen=[1, 3]),
        ConfigDict(classes=list(NAMES), unseen=[1, 3]),
        ClassSplit(NAMES, (3, 1)),
    ],
)
def test_forms_of_the_same_split(given):
    split = ClassSplit.build(given)
    assert split == ClassSplit(NAMES, (1, 3))
    assert hash(split) == hash(ClassSplit(NAMES, (1, 3)))
    assert split.seen == (0, 2)
    assert split.seen_names == ("sky", "tree")
    assert split.unseen_names == ("road", "car")
    assert split.metainfo == dict(classes=NAMES, seen=[0, 2], unseen=[1, 3])
    assert all(type(index) is int for index in split.seen + split.unseen)


def test_names_of_a_named_split_with_other_unseen_classes():
    split = ClassSplit.build(dict(classes="voc", unseen=["cat", "dog"]))
    assert split.classes == ClassSplit.build("voc").classes
    assert split.unseen_names == ("cat", "dog")


def test_unseen_classes_of_a_named_split():
    assert ClassSplit.build(dict(classes="voc", unseen="voc")) == ClassSplit.build("voc")
    with pytest.raises(ValueError, match=r"unseen='context'.*aeroplane, bicycle"):
        ClassSplit.build(dict(classes="voc", unseen="context"))


def test_difference():
    split = ClassSplit(NAMES, (3,))
    for other, message in (
        (ClassSplit(NAMES), " car .* none "),
        (ClassSplit(NAMES[:2]), "4 .*2"),
        (ClassSplit(("sky", "way", *NAMES[2:]), (3,)), "1.*'road'.*'way'"),
    ):
        assert re.search(message, split.difference(other))


def test_names_from_the_data():
    assert ClassSplit.build(dict(unseen=["car"]), classes=NAMES) == ClassSplit(NAMES, (3,))
    assert ClassSplit.build("voc", classes=list(ClassSplit.build("voc").classes)).num_classes == 20


def test_is_frozen_and_can_be_pickled():
    split = ClassSplit.build("voc")
    with pytest.raises(AttributeError):
        split.unseen = ()  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(split)) == split


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("vcc", "'vcc'.* voc, context, cocostuff"),
        (dict(classes="ade", unseen=[1]), "'ade'.* voc"),
        (dict(classes=NAMES, unseen=[4]), "index 4,.* 3"),
        (dict(classes=NAMES, unseen=[-1]), "index -1,.* 3"),
        (dict(classes=NAMES, unseen=[1, 1]), r"`unseen`.* 1 \(road\)"),
        (dict(classes=NAMES, unseen=[1, "road"]), r"`unseen`.* 1 \(road\)"),
        (dict(classes=NAMES, unseen=["bus"]), "'bus'.* sky, road"),
        (dict(classes=NAMES, unseen=[1.5]), r"`unseen`.* 1\.5 "),
        (dict(classes=NAMES, unseen="car"), "`unseen`.*'car'"),
        (dict(classes=NAMES, seen=[0, 1, 2], unseen=[2, 3]), "tree .*overlap"),
        (dict(classes=NAMES, seen=[0, 1], unseen=[3]), "tree .*neither"),
        (dict(classes=NAMES, unseen=[0, 1, 2, 3]), " 4 .*`unseen`"),
        (dict(classes=NAMES, seen=[]), " 4 .*`unseen`"),
        (dict(classes=["a", "b", "a"], unseen=[1]), "a .*1, 3"),
        (dict(classes=("water"), unseen=[]), "comma"),
        (dict(classes=[], unseen=[]), "class name"),
        (dict(classes=["a", 3]), "number 2.* 3"),
        (dict(unseen=[1]), "`classes`"),
        (dict(classes=NAMES, unsen=[1]), "'unsen'"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message):
        ClassSplit.build(given)


def test_wrong_type():
    with pytest.raises(ValueError, match=r"^3 "):
        ClassSplit.build(3)


def test_constructor_checks_as_well():
    with pytest.raises(ValueError, match="index 7,"):
        ClassSplit(NAMES, (7,))
    with pytest.raises(ValueError, match="sky"):
        ClassSplit("sky", ())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (("sky", "tree", "road", "car"), "index 1.*'road'.*'tree'"),
        (("sky", "road"), r"4 .* 2\b"),
    ],
)
def test_names_that_differ_from_the_data(data, message):
    with pytest.raises(ValueError, match=message):
        ClassSplit.build(dict(classes=NAMES, unseen=[1]), classes=data)


def test_names_from_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("0: sky\n1: road\n2: tree\n3: car\n")
    assert ClassSplit.build(dict(classes=str(file), unseen=["car"])) == ClassSplit(NAMES, (3,))
    file.write_text("sky\nroad\nsky\n")
    with pytest.raises(ValueError, match=r"names\.txt.*sky.*lines 1, 3"):
        ClassSplit.build(dict(classes=str(file)))
