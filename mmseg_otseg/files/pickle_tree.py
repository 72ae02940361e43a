"""A pickle as a description: its values, and the calls it asks for, none of which is made.

Unpickling runs whatever a file names. Here the file's instructions (those of protocol 2, in which
``torch.save`` and TorchScript write) only build a tree of plain values, in which every global is a
:class:`Name`, every object a :class:`Call` and every storage a :class:`Stored`. What becomes of
those is up to the reader of the tree.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pickletools import genops
from typing import Any, BinaryIO

MAX_OPERATIONS = 500_000  # a checkpoint of 1,000 tensors with their optimizer has 150,000
MAX_DEPTH = 100
# Objects that are referred to many times count each time, as a program that walks through the
# result meets them each time. Honest files stay below a few values per byte.
VALUES_PER_BYTE, VALUES_OF_ANY_FILE = 64, 1_000_000
SMALL_INTEGER = 2**61 - 1  # below it, integers are their own hash and cannot be made to collide
TOO_DEEP = f"its pickle nests more than {MAX_DEPTH} levels deep"
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(eq=False, slots=True)
class Name:
    """A global the file refers to.

    Attributes:
        path: ``"module.name"``.
    """

    path: str


@dataclass(eq=False, slots=True)
class Call:
    """An object the file wants made.

    Attributes:
        function: What the file wants called.
        arguments: With these arguments.
        state: The state it wants set on the result.
        items: The (key, value) pairs it wants set on the result.
    """

    function: Name
    arguments: tuple
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Stored:
    """A reference to the storage of a tensor, whose bytes are outside the pickle.

    Attributes:
        kind: ``"FloatStorage"`` and the like.
        name: Under which the file keeps the bytes.
        location: Device it was saved from.
        count: Number of values.
    """

    kind: str
    name: str
    location: str
    count: int


class ForeignObjectError(ValueError):
    """A file brings something else than tensors and plain values.

    Args:
        name: What it brings, as it names it.
    """

    def __init__(self, name: str) -> None:
        self.name = name[:100]
        super().__init__(f"it brings {self.name}, which is no tensor and no plain value")


class _Mark:
    """Where on the stack a list of items begins."""


def parse_pickle(data: bytes | BinaryIO) -> tuple[Any, dict[str, Stored]]:
    """The tree a pickle describes.

    Args:
        data: The pickle, or a stream that stands at its beginning and is left at its end.

    Returns:
        The tree, without cycles, of numbers, strings, None, tuples, lists, dicts, :class:`Name`,
        :class:`Call` and :class:`Stored`; and every storage it refers to, by name.

    Raises:
        ValueError: If it is no pickle of protocol 2, or far larger when written out, or deeper,
            than an honest one of its size.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    start = stream.tell()
    try:
        machine = _Machine()
        tree = machine.run(stream)
    except (IndexError, KeyError) as error:
        raise ValueError("its pickle takes back what it never put down") from error
    _Extent(VALUES_PER_BYTE * (stream.tell() - start) + VALUES_OF_ANY_FILE).measure(tree)
    return tree, machine.storages


class _Machine:
    """The pickle machine without its hands: it calls nothing and looks nothing up."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Stored] = {}

    def run(self, stream: BinaryIO) -> Any:
        push = self.stack.append
        argument: Any
        for number, (opcode, argument, _) in enumerate(genops(stream)):
            if number > MAX_OPERATIONS:
                raise ValueError(f"its pickle has more than {MAX_OPERATIONS} instructions")
            name = opcode.name
            if name in LITERALS:
                push(argument)
            elif name in ("BINPUT", "LONG_BINPUT"):
                self.memo[argument] = self.stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                push(self.memo[argument])
            elif name in CONSTANTS:
                push(CONSTANTS[name])
            elif name == "MARK":
                push(_Mark)
            elif name == "TUPLE":
                push(tuple(self._pop_items()))
            elif name in TUPLES:
                push(tuple(reversed([self._pop() for _ in range(TUPLES[name])])))
            elif name == "REDUCE" or name == "NEWOBJ":
                arguments = self._pop()
                push(_call(self._pop(), arguments))
            elif name == "GLOBAL":
                module, _, rest = argument.partition(" ")
                push(Name(f"{PYTHON_2.get(module, module)}.{rest}"))
            elif name == "BINPERSID":
                push(_stored(self._pop()))
                self.storages[self.stack[-1].name] = self.stack[-1]
            elif name == "EMPTY_DICT":
                push({})
            elif name == "EMPTY_LIST":
                push([])
            elif name == "SETITEM":
                value, key = self._pop(), self._pop()
                self._set_items([key, value])
            elif name == "SETITEMS":
                self._set_items(self._pop_items())
            elif name == "APPEND":
                item = self._pop()
                self._extend([item])
            elif name == "APPENDS":
                self._extend(self._pop_items())
            elif name == "BUILD":
                state = self._pop()
                self._set_state(state)
            elif name == "STOP":
                return self._pop()
            elif name != "PROTO":
                raise ValueError(f"its pickle has the instruction {name}, unknown to torch.save")
        raise ValueError("its pickle has no end")

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _Mark:
            raise IndexError
        return value

    def _pop_items(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _Mark:
            start -= 1
            if start < 0:
                raise IndexError
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not list:
            raise ValueError(f"its pickle appends to a {_kind(target)}")
        target.extend(items)

    def _set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        for key, value in zip(items[::2], items[1::2], strict=True):
            check_key(key)
            if type(target) is dict:
                target[key] = value
            elif type(target) is Call:
                target.items.append((key, value))
            else:
                raise ValueError(f"its pickle sets an item of a {_kind(target)}")

    def _set_state(self, state: Any) -> None:
        target = self.stack[-1]
        if type(target) is not Call:
            raise ValueError(f"its pickle sets the state of a {_kind(target)}")
        target.state = state


def _call(function: Any, arguments: Any) -> Call:
    if type(function) is Call:  # such as the method that getattr would return
        raise ForeignObjectError(function.function.path)
    if type(function) is not Name or type(arguments) is not tuple:
        raise ValueError(f"its pickle calls a {_kind(function)}")
    return Call(function, arguments)


def _stored(key: Any) -> Stored:
    """The reference of a pickle to a storage: ("storage", kind, name, location, count)."""
    match key:
        case ("storage", Name(path=kind), str(name), str(location), int(count), *rest):
            if count >= 0 and rest in ([], [None]):
                return Stored(kind.rpartition(".")[2], name, location, count)
    raise ValueError("its pickle refers to something else than the storage of a tensor")


def check_key(key: Any) -> None:
    """Raise a ValueError unless a value can be a key: text, a number, a truth value, or None."""
    plain = key is None or isinstance(key, (str, int, float))
    if not plain or (isinstance(key, int) and abs(key) >= SMALL_INTEGER):
        raise ValueError(f"its pickle has a {_kind(key)} for a key")


def _kind(value: Any) -> str:
    """What a value is, in words for a message."""
    return f"call of {value.function.path}" if type(value) is Call else type(value).__name__.lower()


class _Extent:
    """Refuses trees that contain themselves, are deep, or grow when written out in full.

    Args:
        limit: Values, and characters of text, that the tree may have when every reference is
            counted as a copy.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.known: dict[int, tuple[int, int]] = {}
        self.open: set[int] = set()

    def measure(self, value: Any, depth: int = 0) -> tuple[int, int]:
        """Number of values in and below ``value``, and of levels."""
        if value is None or isinstance(value, (int, float)):
            return 1, 0
        if isinstance(value, str):
            return 1 + len(value), 0
        children = _children(value)
        if not children:
            return 1, 0
        identity = id(value)
        if identity in self.open:
            raise ValueError("its pickle holds an object that contains itself")
        if identity not in self.known:
            if depth > MAX_DEPTH:
                raise ValueError(TOO_DEEP)
            self.open.add(identity)
            extents = [self.measure(child, depth + 1) for child in children]
            self.open.remove(identity)
            self.known[identity] = (
                1 + sum(size for size, _ in extents),
                1 + max(levels for _, levels in extents),
            )
        size, levels = self.known[identity]
        if depth + levels > MAX_DEPTH:
            raise ValueError(TOO_DEEP)
        if size > self.limit:
            raise ValueError(f"its pickle grows to more than {self.limit} values when written out")
        return size, levels


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Call):
        return [value.arguments, value.state, *(part for item in value.items for part in item)]
    return []
