"""The class split: the named ones, what a config may hold, and every mistake in it."""

from __future__ import annotations

import pytest
from mmengine.config import ConfigDict

from mmseg_otseg.structures import ClassSplit

NAMES = ("sky", "road", "tree", "car")


UNSEEN = {
    "voc": "pottedplant sheep sofa train tvmonitor",
    "context": "cow motorbike sofa cat boat fence bird tvmonitor keyboard aeroplane",
    "cocostuff": "cow giraffe suitcase frisbee skateboard carrot scissors cardboard clouds grass "
    "playingfield river road tree wall-concrete",
    "ade20k": "",
}


@pytest.mark.parametrize(
    ("name", "number"), [("voc", 20), ("context", 59), ("cocostuff", 171), ("ade20k", 150)]
)
def test_known_splits(name: str, number: int):
    split = ClassSplit.build(name)
    assert split.num_classes == number
    assert set(split.unseen_names) == set(UNSEEN[name].split())
    assert sorted(split.seen + split.unseen) == list(range(number))
    assert "background" not in split.classes


@pytest.mark.parametrize(
    "given",
    [
        dict(classes=NAMES, unseen=[3, 1]),
        dict(classes=["sky ", *NAMES[1:]], unseen=[1, "car "]),
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


def test_unseen_classes_of_a_named_split():
    assert ClassSplit.build(dict(classes="voc", unseen="voc")) == ClassSplit.build("voc")
    with pytest.raises(ValueError, match=r"unseen='context'.*aeroplane, bicycle"):
        ClassSplit.build(dict(classes="voc", unseen="context"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (ClassSplit(NAMES), "unseen are car .* none "),
        (ClassSplit(NAMES, (3,), "threshold"), "None .* threshold"),
        (ClassSplit(NAMES[:2]), "4 .*2"),
        (ClassSplit(("sky", "way", *NAMES[2:]), (3,)), "1.*'road'.*'way'"),
    ],
)
def test_how_two_splits_differ(other: ClassSplit, message: str):
    with pytest.raises(ValueError, match=f"the model and the data.*{message}"):
        ClassSplit(NAMES, (3,)).check_same(other, "the model", "the data")


def test_names_from_the_data():
    assert ClassSplit.build(dict(unseen=["car"]), classes=NAMES) == ClassSplit(NAMES, (3,))
    assert ClassSplit.build("voc", classes=list(ClassSplit.build("voc").classes)).num_classes == 20


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("vcc", "'vcc'.* voc, context, cocostuff"),
        (dict(classes=NAMES, unseen=[4]), "index 4,.* 3"),
        (dict(classes=NAMES, unseen=["bus"]), "'bus'.* sky, road"),
        (dict(classes=NAMES, unseen="car"), "`unseen`.*'car'"),
        (dict(classes=NAMES, unseen=[0, 1, 2, 3]), " 4 .*`unseen`"),
        (dict(classes=["a", "b", "a"], unseen=[1]), "a .*1, 3"),
        (dict(classes=("water"), unseen=[]), "comma"),
        (dict(unseen=[1]), "`classes`"),
        (dict(classes=NAMES, unsen=[1]), "'unsen'"),
        (3, "^3 "),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message):
        ClassSplit.build(given)


def test_names_from_a_file(tmp_path):
    file = tmp_path / "names.txt"
    file.write_text("0: sky\n1: road\n2: tree\n3: car\n")
    assert ClassSplit.build(dict(classes=str(file), unseen=["car"])) == ClassSplit(NAMES, (3,))
