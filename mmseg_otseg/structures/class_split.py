"""The class split: all classes, and which of them are unseen (without labels in training)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmseg.datasets import (
    ADE20KDataset,
    COCOStuffDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)

from mmseg_otseg.errors import UserError

from .class_names import read_class_names

# The splits of zero-shot segmentation (Xian et al., CVPR 2019, for VOC and COCO-Stuff; OTSeg for
# Context). VOC's first name is the background, which the protocol ignores.
_NAMED: dict[str, tuple[Sequence[str], tuple[int, ...]]] = {
    "voc": (PascalVOCDataset.METAINFO["classes"][1:], (15, 16, 17, 18, 19)),
    "context": (
        PascalContextDataset59.METAINFO["classes"],
        (0, 6, 7, 14, 19, 24, 31, 33, 48, 54),
    ),
    "cocostuff": (
        COCOStuffDataset.METAINFO["classes"],
        (19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160),
    ),
    # Used only to test models trained on other datasets, so no class is unseen here.
    "ade20k": (ADE20KDataset.METAINFO["classes"], ()),
}


@dataclass(frozen=True)
class ClassSplit:
    """The class names in label order, and the classes unseen in training.

    Dataset, text prompts, head and metric all take their classes from one such object.

    Args:
        classes: The K class names; the label of a pixel is an index into them.
        unseen: Indices of the unseen classes, stored in increasing order. Empty if all classes are
            seen.

    Raises:
        UserError: If there is no name, a name or index is given twice, an index is outside 0..K-1,
            or no class is seen.
    """

    classes: tuple[str, ...]
    unseen: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        classes = _as_names(self.classes)
        unseen = _as_indices(self.unseen, classes, "unseen")
        if len(unseen) == len(classes):
            raise UserError(
                f"all {len(classes)} classes are unseen; at least one class must be seen, since "
                "training needs labels. Take some out of `unseen`."
            )
        object.__setattr__(self, "classes", classes)
        object.__setattr__(self, "unseen", unseen)

    @classmethod
    def build(cls, split: SplitLike, classes: Sequence[str] | None = None) -> ClassSplit:
        """Build a split from any form that a config may use.

        Args:
            split: A split; the name of a known one ("voc", "context", "cocostuff", "ade20k"); or a
                dict with ``classes`` (names, a ``.txt`` file with one name per line, or the name of
                a known split), ``unseen`` (names, indices, or the name of a known split) and,
                optionally, ``seen`` (names or indices). If only one of the two lists is given, the
                other one is the rest of the classes; if neither is, all classes are seen.
            classes: The class names of the data. They are used if the dict has no ``classes``;
                otherwise both must be the same.

        Returns:
            The split.

        Raises:
            FileNotFoundError: If ``classes`` names a text file that does not exist.
            UserError: If ``split`` is none of the above.
            UserError: If a split, key or class name is unknown, seen and unseen classes overlap or
                do not cover all classes, the names differ from ``classes``, the text file is
                invalid, or the constructor refuses the classes.
        """
        if isinstance(split, str):
            names, unseen = _named(split)
            built = cls(tuple(names), unseen)
        elif isinstance(split, Mapping):
            built = cls._from_mapping(split, classes)
        elif isinstance(split, cls):
            built = split
        else:
            raise UserError(
                f"a class split is a ClassSplit, one of the names {', '.join(_NAMED)}, or a dict "
                f"with `classes` and `unseen`, not {type(split).__name__}."
            )
        if classes is not None and tuple(classes) != built.classes:
            raise UserError(_difference(built.classes, tuple(classes)))
        return built

    @classmethod
    def _from_mapping(cls, split: Mapping, default_names: Sequence[str] | None) -> ClassSplit:
        unknown = sorted(set(split) - {"classes", "seen", "unseen"})
        if unknown:
            raise UserError(
                f"a class split has no key {', '.join(map(repr, unknown))}; "
                "it takes `classes`, `unseen` and `seen`."
            )
        given = split.get("classes", default_names)
        if given is None:
            raise UserError("the class split has no `classes`: list the class names.")
        names = _as_names(_names_of(given) if isinstance(given, str) else given)

        lists = {key: split.get(key) for key in ("seen", "unseen")}
        if isinstance(lists["unseen"], str) and lists["unseen"] in _NAMED:
            lists["unseen"] = _unseen_of(lists["unseen"], names)
        seen, unseen = (
            None if items is None else _as_indices(items, names, key)
            for key, items in lists.items()
        )
        if seen is None:
            return cls(names, unseen or ())
        rest = tuple(index for index in range(len(names)) if index not in seen)
        if unseen is None:
            return cls(names, rest)
        both = [names[index] for index in unseen if index in seen]
        if both:
            raise UserError(f"seen and unseen classes overlap: {', '.join(both)} are in both.")
        neither = [names[index] for index in rest if index not in unseen]
        if neither:
            raise UserError(
                f"the classes {', '.join(neither)} are neither seen nor unseen; "
                "add them to one list, or leave one list out."
            )
        return cls(names, unseen)

    @classmethod
    def agreed(cls, places: Mapping[str, SplitLike | None]) -> ClassSplit:
        """The split that several places of a config agree on.

        Args:
            places: For the name of each place, the split given there, or None.

        Raises:
            UserError: If two places give different splits, or no place gives one.
        """
        named = {place: cls.build(split) for place, split in places.items() if split is not None}
        if not named:
            raise UserError(
                "no class split is given: set model=dict(split=dict(classes=[names], unseen=[...]))"
            )
        (first, split), *others = named.items()
        for place, other in others:
            if other != split:
                raise UserError(
                    f"{first} and {place} do not mean the same classes: "
                    f"{split.difference(other)}. Name the split in one place, `model.split`."
                )
        return split

    def difference(self, other: ClassSplit) -> str:
        """How another split differs, in words."""
        if self.classes == other.classes:
            unseen = [", ".join(one.unseen_names) or "none" for one in (self, other)]
            return f"unseen are {unseen[0]} in the first, {unseen[1]} in the second"
        if self.num_classes != other.num_classes:
            return f"there are {self.num_classes} in the first, {other.num_classes} in the second"
        index = next(i for i, (a, b) in enumerate(zip(self.classes, other.classes)) if a != b)
        return (
            f"they differ first at index {index}, {self.classes[index]!r} in the first, "
            f"{other.classes[index]!r} in the second"
        )

    @property
    def num_classes(self) -> int:
        """K, seen and unseen classes together."""
        return len(self.classes)

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
        """The split's entries in a dataset's ``metainfo``: ``classes``, ``seen`` and ``unseen``."""
        return {"classes": self.classes, "seen": list(self.seen), "unseen": list(self.unseen)}


SplitLike = str | Mapping[str, Any] | ClassSplit


def _names_of(given: str) -> Sequence[str]:
    """The names in a text file, or those of a named split."""
    return read_class_names(given) if given.endswith(".txt") else _named(given)[0]


def _named(name: str) -> tuple[Sequence[str], tuple[int, ...]]:
    if name not in _NAMED:
        raise UserError(
            f"unknown class split {name!r}; known are {', '.join(_NAMED)}. For other classes give "
            "dict(classes=[names], unseen=[names or indices])."
        )
    return _NAMED[name]


def _unseen_of(name: str, classes: tuple[str, ...]) -> tuple[int, ...]:
    """The unseen classes of a named split, which must be the split of these classes."""
    names, unseen = _named(name)
    if tuple(names) != classes:
        raise UserError(
            f"`unseen={name!r}` stands for the unseen classes of the split {name!r}, but `classes` "
            f"differ from that split's ({', '.join(classes[:4])}, ...): list the unseen classes, "
            "unseen=[names or indices]."
        )
    return unseen


def _as_names(names: Iterable[str]) -> tuple[str, ...]:
    if isinstance(names, str):
        raise UserError(f"class names must be a list of names, not the single string {names!r}.")
    names = tuple(names)
    if not names:
        raise UserError("the class split has no class; list at least one class name.")
    for name in names:
        if not isinstance(name, str):
            raise UserError(f"class names must be strings, but {name!r} is not.")
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise UserError(f"the class names {', '.join(doubled)} are given more than once.")
    return names


def _as_indices(items: Iterable[str | int], names: tuple[str, ...], what: str) -> tuple[int, ...]:
    """Turn class names or indices into sorted indices into ``names``."""
    if isinstance(items, (str, int)):
        raise UserError(f"`{what}` must be a list of class names or indices, not {items!r}.")
    indices = []
    for item in items:
        if isinstance(item, str):
            if item not in names:
                raise UserError(
                    f"`{what}` names the unknown class {item!r}; the classes are "
                    f"{', '.join(names)}."
                )
            indices.append(names.index(item))
        elif isinstance(item, bool) or not hasattr(item, "__index__"):
            raise UserError(f"`{what}` must hold class names or indices, but {item!r} is neither.")
        elif not 0 <= item < len(names):
            raise UserError(
                f"`{what}` holds the index {item}, which is out of range: the {len(names)} classes "
                f"have the indices 0 to {len(names) - 1}."
            )
        else:
            indices.append(int(item))
    doubled = sorted({index for index in indices if indices.count(index) > 1})
    if doubled:
        listed = ", ".join(f"{index} ({names[index]})" for index in doubled)
        raise UserError(f"`{what}` holds classes more than once: {listed}.")
    return tuple(sorted(indices))


def _difference(split: tuple[str, ...], data: tuple[str, ...]) -> str:
    message = f"the split has {len(split)} classes and the data {len(data)}"
    if len(split) == len(data):
        first = next(i for i, (a, b) in enumerate(zip(split, data)) if a != b)
        message = (
            f"the classes of the split and of the data differ, first at index {first}: "
            f"{split[first]!r} in the split, {data[first]!r} in the data"
        )
    return (
        f"{message}. They must have the same names in the same order: change `split`, or "
        "choose and reorder the dataset's classes with its `metainfo=dict(classes=...)`. Other "
        "names than its own need a class derived from it with another METAINFO."
    )
