"""Parses a pickle into a tree that describes its content, without making any of its calls.

Unpickling would call whatever functions a file names. Here, the instructions of the file (protocol
2, used by ``torch.save`` and TorchScript) only build a tree of plain values. In the tree, a global
is a :class:`Name`, an object a :class:`Call` and a storage a :class:`Stored`. The reader of the
tree decides what to do with them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO
from pickletools import genops
from typing import Any, BinaryIO

MAX_OPERATIONS = 500_000  # a checkpoint of 1,000 tensors with optimizer state has 150,000
MAX_DEPTH = 100
# An object counts once for each reference to it, because code that traverses the result visits it
# each time. Genuine files have only a few values per byte.
VALUES_PER_BYTE, VALUES_OF_ANY_FILE = 64, 1_000_000
SMALL_INTEGER = 2**61 - 1  # smaller integers are their own hash, so keys cannot be made to collide
TOO_DEEP = f"its pickle nests more than {MAX_DEPTH} levels deep"
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
LITERALS = {"BINUNICODE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(eq=False, slots=True)
class Name:
    """A global that the file refers to.

    Attributes:
        path: ``"module.name"``.
    """

    path: str


@dataclass(eq=False, slots=True)
class Call:
    """A call that the file requests to make an object.

    Attributes:
        function: The function to call.
        arguments: Its arguments.
        state: The state to set on the result.
        items: The (key, value) pairs to set on the result.
    """

    function: Name
    arguments: tuple
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class Stored:
    """A reference to the storage of a tensor, whose bytes are outside the pickle.

    Attributes:
        kind: Type of the storage, such as ``"FloatStorage"``.
        name: Name of the bytes in the file.
        location: Device it was saved from.
        count: Number of values.
    """

    kind: str
    name: str
    location: str
    count: int


class ForeignObjectError(ValueError):
    """A file contains something other than tensors and plain values.

    Args:
        name: Name of the foreign object, as in the file.
    """

    def __init__(self, name: str) -> None:
        self.name = name[:100]
        super().__init__(f"it contains {self.name}, which is neither a tensor nor a plain value")


class _Mark:
    """Marks on the stack where a list of items begins."""


def parse_pickle(data: bytes | BinaryIO) -> tuple[Any, dict[str, Stored]]:
    """Parse a pickle into a tree.

    Args:
        data: The pickle, or a stream positioned at its beginning, which is read to its end.

    Returns:
        The tree, without cycles, of numbers, strings, None, tuples, lists, dicts, :class:`Name`,
        :class:`Call` and :class:`Stored`; and all storages it refers to, by name.

    Raises:
        ValueError: If it is not a pickle, has an instruction that ``torch.save`` never writes, is
            nested more than ``MAX_DEPTH`` levels deep, contains itself, or expands to far more
            values than a genuine file of its size.
    """
    stream = BytesIO(data) if isinstance(data, bytes) else data
    start = stream.tell()
    try:
        machine = _Machine()
        tree = machine.run(stream)
    except (IndexError, KeyError) as error:
        raise ValueError("its pickle uses values that it never stored") from error
    _Extent(VALUES_PER_BYTE * (stream.tell() - start) + VALUES_OF_ANY_FILE).measure(tree)
    return tree, machine.storages


class _Machine:
    """A pickle machine that calls no functions and imports nothing."""

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
        raise ValueError("its pickle is incomplete")

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
    if type(function) is Call:  # for example, a method returned by getattr
        raise ForeignObjectError(function.function.path)
    if type(function) is not Name or type(arguments) is not tuple:
        raise ValueError(f"its pickle calls a {_kind(function)}")
    return Call(function, arguments)


def _stored(key: Any) -> Stored:
    """Parse a reference to a storage: ("storage", kind, name, location, count)."""
    match key:
        case ("storage", Name(path=kind), str(name), str(location), int(count), *rest):
            if count >= 0 and rest in ([], [None]):
                return Stored(kind.rpartition(".")[2], name, location, count)
    raise ValueError("its pickle refers to something other than the storage of a tensor")


def check_key(key: Any) -> None:
    """Raise a ValueError unless a value can be a key: a string, a number, a bool or None."""
    plain = key is None or isinstance(key, (str, int, float))
    if not plain or (isinstance(key, int) and abs(key) >= SMALL_INTEGER):
        raise ValueError(f"its pickle has a {_kind(key)} as a key")


def _kind(value: Any) -> str:
    """The type of a value, for messages."""
    return f"call of {value.function.path}" if type(value) is Call else type(value).__name__.lower()


class _Extent:
    """Refuses trees that contain themselves, are too deep, or expand to too many values.

    Args:
        limit: Maximum number of values and text characters in the tree, where every reference to
            an object counts as a copy of it.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.known: dict[int, tuple[int, int]] = {}
        self.open: set[int] = set()

    def measure(self, value: Any, depth: int = 0) -> tuple[int, int]:
        """Number of values in ``value``, including itself, and number of levels below it.

        Raises:
            ValueError: If it contains itself, is too deep, or exceeds the limit.
        """
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
            raise ValueError(f"its pickle expands to more than {self.limit} values")
        return size, levels


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [*value.keys(), *value.values()]
    if isinstance(value, (list, tuple)):
        return list(value)
    if isinstance(value, Call):
        return [value.arguments, value.state, *(part for item in value.items for part in item)]
    return []
