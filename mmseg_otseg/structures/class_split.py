"""The class split, which classes have no labels in training, and the values of label maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmseg.datasets import (
    ADE20KDataset,
    COCOStuffDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)

from mmseg_otseg.errors import UserError
from mmseg_otseg.imaging.classes import class_list, names_of

# The splits of zero-shot segmentation (Xian et al., CVPR 2019, for VOC and COCO-Stuff; OTSeg for
# Context). VOC's first name is the background, which the protocol ignores.
KNOWN_CLASSES: dict[str, tuple[str, ...]] = {
    "voc": tuple(PascalVOCDataset.METAINFO["classes"][1:]),
    "context": tuple(PascalContextDataset59.METAINFO["classes"]),
    "cocostuff": tuple(COCOStuffDataset.METAINFO["classes"]),
    # mmseg writes one of its names with a blank at the end.
    "ade20k": tuple(name.strip() for name in ADE20KDataset.METAINFO["classes"]),
}
KNOWN_UNSEEN: dict[str, tuple[int, ...]] = {
    "voc": (15, 16, 17, 18, 19),
    "context": (0, 6, 7, 14, 19, 24, 31, 33, 48, 54),
    "cocostuff": (19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160),
    "ade20k": (),  # used only to test models trained on other datasets
}

IGNORED = 255
"""Label of a pixel of no class, mmseg's ``ignore_index``; see :func:`ignored_label`.

The metrics leave it out. :class:`~mmseg_otseg.models.FocalDiceLoss` by default counts it as a
negative for every class, as the authors do; ``ignored="masked"`` leaves it out there as well.
"""

UNLABELED = 254
"""Label of a pixel of some unseen class (transductive training); see :func:`unlabeled_label`."""

MAX_CLASSES = 65535
"""Values of a file with 16 bits, of which one is for ignored pixels."""


def ignored_label(count: int) -> int:
    """The label of ignored pixels beside ``count`` others: 255; 65535 if 8 bits are too few."""
    return IGNORED if count <= UNLABELED else MAX_CLASSES


def unlabeled_label(count: int) -> int:
    """The label of pixels of some unseen class, beside ``count`` classes: 254, or 65536."""
    return UNLABELED if count <= UNLABELED else MAX_CLASSES + 1


@dataclass(frozen=True)
class ClassSplit:
    """The class names in label order, and the classes unseen in training.

    Dataset, text prompts, head and metric all take their classes from one such object. A class may
    have several names, ``"sofa | couch"`` or ``["sofa", "couch"]``: it is called by the first one,
    learns with that one, and is predicted where any of them fits.

    Args:
        classes: The K class names; the label of a pixel is an index into them. Stored as the first
            name of each.
        unseen: Indices or names of the unseen classes, stored as indices in increasing order. Empty
            if all classes are seen.
        background: What becomes of pixels that the data calls background. None: they are ignored.
            ``"threshold"``: in testing they have the label K, which the model predicts where the
            best value is below ``test_cfg.none_below``. ``"names"``: the last class is the
            background, and the data has names for the others alone; with ``none_below``, pixels
            below it belong to this class as well.

    Attributes:
        names: The names of each class, in the order of ``classes``. Splits that differ only in the
            further names are equal: labels mean the same in both.

    Raises:
        UserError: If there is no name, a name is given twice, an index is outside 0..K-1, no class
            is seen, or ``background`` is something else.
    """

    classes: tuple[str, ...]
    unseen: tuple[int, ...] = ()
    background: str | None = None
    names: tuple[tuple[str, ...], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        entries = class_list(self.classes, KNOWN_CLASSES, in_config=True)
        names = tuple(map(names_of, entries))
        classes = tuple(first for first, *_ in names)
        unseen = _indices(self.unseen, classes)
        if len(unseen) == len(classes):
            raise UserError(
                f"all {len(classes)} classes are unseen; at least one class must be seen, since "
                "training needs labels. Take some out of `unseen`."
            )
        if self.background not in (None, "threshold", "names"):
            raise UserError(
                f"background={self.background!r} of the class split is unknown: give 'threshold', "
                "'names' if the last class is the background, or None to ignore it."
            )
        object.__setattr__(self, "names", names)
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "unseen", unseen)

    @classmethod
    def build(cls, split: SplitLike, classes: Sequence[str] | None = None) -> ClassSplit:
        """Build a split from any form that a config may use.

        Args:
            split: A split; the name of a known one ("voc", "context", "cocostuff", "ade20k"); or a
                dict with ``classes`` (in any form that
                :func:`~mmseg_otseg.imaging.classes.class_list` reads) and, optionally, ``unseen``
                (names, indices, or the name of a known split; none by default) and ``background``.
            classes: The class names of the data. They are used if the dict has no ``classes``;
                otherwise both must be the same, a background among the classes left out.

        Returns:
            The split.

        Raises:
            FileNotFoundError: If ``classes`` names a text file that does not exist.
            UserError: If ``split`` is none of the above; if a split, key or class name is unknown,
                the names differ from ``classes``, or the constructor refuses the classes.
        """
        if isinstance(split, str) and split in KNOWN_CLASSES:
            built = cls(KNOWN_CLASSES[split], KNOWN_UNSEEN[split])
        elif isinstance(split, Mapping):
            built = cls._from_mapping(split, classes)
        elif isinstance(split, cls):
            built = split
        else:
            raise UserError(
                f"{split!r} is not a class split: give one of {', '.join(KNOWN_CLASSES)}, or "
                "dict(classes=[names], unseen=[names or indices])."
            )
        own = built.foreground
        theirs = own if classes is None else tuple(name.strip() for name in classes)
        if theirs != own:
            raise UserError(
                f"the split and the data do not have the same classes: "
                f"{_difference(own, theirs, 'the split', 'the data')}. They must "
                "have the same names in the same order: change `split`, or choose and reorder the "
                "dataset's classes with its `metainfo=dict(classes=...)`."
            )
        return built

    @classmethod
    def _from_mapping(cls, split: Mapping, default_names: Sequence[str] | None) -> ClassSplit:
        unknown = sorted(set(split) - {"classes", "unseen", "background"})
        if unknown:
            raise UserError(
                f"a class split has no key {', '.join(map(repr, unknown))}; "
                "it takes `classes`, `unseen` and `background`."
            )
        given = split.get("classes", default_names)
        if given is None:
            raise UserError("the class split has no `classes`: list the class names.")
        entries = tuple(class_list(given, KNOWN_CLASSES, in_config=True))
        unseen = split.get("unseen")
        if isinstance(unseen, str) and unseen in KNOWN_CLASSES:
            names = tuple(names_of(entry)[0] for entry in entries)
            if names != KNOWN_CLASSES[unseen]:
                raise UserError(
                    f"`unseen={unseen!r}` stands for the unseen classes of the split {unseen!r}, "
                    f"but `classes` differ from that split's ({', '.join(names[:4])}, ...): list "
                    "the unseen classes, unseen=[names or indices]."
                )
            unseen = KNOWN_UNSEEN[unseen]
        return cls(entries, () if unseen is None else unseen, split.get("background"))

    def as_config(self) -> dict[str, Any]:
        """The split as a config has it: plain lists of names, and ``background`` if it counts."""
        names = {"classes": list(self.joined_names), "unseen": list(self.unseen_names)}
        return {**names, **self._counted}

    def check_same(self, other: ClassSplit, who: str, whose: str) -> None:
        """Refuse another split.

        Args:
            other: The other split.
            who: What has this split, for the message.
            whose: What has the other one.

        Raises:
            UserError: If the two differ.
        """
        if other == self:
            return
        problem = _difference(self.classes, other.classes, who, whose)
        if not problem and self.unseen == other.unseen:
            problem = f"background is {self.background} in {who}, {other.background} in {whose}"
        elif not problem:
            mine, theirs = (", ".join(split.unseen_names) or "none" for split in (self, other))
            problem = f"unseen are {mine} in {who}, {theirs} in {whose}"
        raise UserError(
            f"{who} and {whose} do not mean the same classes: {problem}. Name the split in one "
            "place, `model.split`"
        )

    @property
    def num_classes(self) -> int:
        """K, seen and unseen classes together."""
        return len(self.classes)

    @property
    def foreground(self) -> tuple[str, ...]:
        """The classes without the background."""
        return self.classes[:-1] if self.background == "names" else self.classes

    @property
    def joined_names(self) -> tuple[str, ...]:
        """All names of each class in one string, as a config may write them: "sofa | couch"."""
        return tuple(map(" | ".join, self.names))

    @property
    def texts(self) -> tuple[str, ...]:
        """The Q names of all classes, one after the other; each has a text embedding."""
        return tuple(name for names in self.names for name in names)

    @property
    def names_per_class(self) -> tuple[int, ...]:
        """How many of :attr:`texts` each class has; their sum is Q."""
        return tuple(map(len, self.names))

    @property
    def seen(self) -> tuple[int, ...]:
        """Indices of the seen classes, in increasing order."""
        hidden = set(self.unseen)
        return tuple(index for index in range(self.num_classes) if index not in hidden)

    @property
    def seen_names(self) -> tuple[str, ...]:
        """Names of the seen classes."""
        return tuple(self.classes[index] for index in self.seen)

    @property
    def unseen_names(self) -> tuple[str, ...]:
        """Names of the unseen classes."""
        return tuple(self.classes[index] for index in self.unseen)

    @property
    def metainfo(self) -> dict:
        """The split's entries in a dataset's ``metainfo``, among them lists ``seen``, ``unseen``.

        ``background`` is there only if it counts.
        """
        indices = {"seen": list(self.seen), "unseen": list(self.unseen)}
        return {"classes": self.classes, **indices, **self._counted}

    @property
    def data_metainfo(self) -> dict:
        """``metainfo`` of a dataset without names of its own, which a ZeroShotDataset wraps."""
        names = list(self.foreground)
        return {"classes": names, "unseen": [i for i in self.unseen if i < len(names)]}

    @property
    def _counted(self) -> dict[str, str]:
        return {"background": self.background} if self.background else {}


SplitLike = str | Mapping[str, Any] | ClassSplit


def _indices(unseen: Iterable[str | int], names: tuple[str, ...]) -> tuple[int, ...]:
    """Turn class names or indices into sorted indices into ``names``."""
    if isinstance(unseen, (str, int)):
        raise UserError(f"`unseen` must be a list of class names or indices, not {unseen!r}.")
    indices: set[int] = set()
    for item in unseen:
        if isinstance(item, str):
            item = item.strip()
            if item not in names:
                raise UserError(
                    f"`unseen` names the unknown class {item!r}; the classes are "
                    f"{', '.join(names)}."
                )
            item = names.index(item)
        if not 0 <= item < len(names):
            raise UserError(
                f"`unseen` holds the index {item}, which is out of range: the {len(names)} classes "
                f"have the indices 0 to {len(names) - 1}."
            )
        indices.add(int(item))
    return tuple(sorted(indices))


def _difference(one: tuple[str, ...], other: tuple[str, ...], first: str, second: str) -> str:
    """How two lists of names differ, for a message; empty if they do not."""
    if len(one) != len(other):
        return f"{first} has {len(one)} classes, {second} {len(other)}"
    for index, (a, b) in enumerate(zip(one, other)):
        if a != b:
            return f"at index {index}, {first} has {a!r}, {second} {b!r}"
    return ""
