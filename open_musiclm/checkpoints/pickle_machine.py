"""Reads a pickle as data: its steps work on plain values, within bounds, and nothing in it is ever executed.

A pickle is a program for a stack machine (Python's `pickletools` documents its steps). A few bytes can describe values
that fill all memory, or nested tuples that take for ever to hash or print. So steps, depth and size are bounded, and
size counts a value each time it occurs. Only text and whole numbers are keys. Nothing is hashed or printed before it
is checked.
"""

import pickletools
from collections.abc import Callable
from io import BytesIO
from typing import Any

_DEEPEST = 50
_MOST_VALUES = 1 << 20
_MOST_INT_BITS = 128
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_NUMBERS = {"BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"}
_TEXTS = {"BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_MARK = object()


class PickleMachine:
    """One run over the pickle in `stream`. A subclass says what stands for names, calls, states and storages.

    `most_steps` and `most_bytes` bound the pickle itself. What is wrong with it is a ValueError, TypeError or one of
    the LookupErrors.
    """

    def __init__(self, stream: BytesIO, most_steps: int, most_bytes: int) -> None:
        self.stream = stream
        self._size = len(stream.getbuffer())
        self._most_steps, self._most_bytes = most_steps, most_bytes
        self._stack: list[Any] = []
        self._memo: dict[int, object] = {}
        # Depth and size by id, of values that are kept so that no other gets their id; and what lies in another.
        self._measures: dict[int, tuple[int, int]] = {}
        self._kept: list[object] = []
        self._within: set[int] = set()

    def load(self) -> object:
        """The value that the pickle describes."""
        steps = spent = 0
        before = self.stream.tell()
        for step, argument, _ in pickletools.genops(self.stream):
            steps, spent = steps + 1, spent + self.stream.tell() - before
            if steps > self._most_steps or spent > self._most_bytes:
                raise ValueError("far more steps than such a file needs")
            if step.name == "STOP":
                (result,) = self._stack
                return result
            self._take(step.name, argument)
            before = self.stream.tell()
        raise ValueError("it has no end")

    def named(self, name: str) -> object:
        """The value for a class or function that the pickle names."""
        raise ValueError(f"it names {name[:80]!r}")

    def called(self, function: object, arguments: tuple[object, ...]) -> object:
        """The value for the result of a call."""
        raise TypeError("it calls something")

    def built(self, value: object, state: object) -> object:
        """The value after its state was set."""
        raise TypeError("it sets the state of something")

    def stored(self, identifier: object) -> object:
        """The value for something outside of the pickle."""
        raise TypeError("it refers to something outside")

    def _take(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in ("PROTO", "FRAME"):
            return
        if name in _NUMBERS:
            stack.append(_checked_number(argument))
        elif name in _TEXTS or name in _BYTES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in _PUTS or name == "MEMOIZE":
            self._keep(len(self._memo) if name == "MEMOIZE" else argument)
        elif name in _GETS:
            stack.append(self._memo[argument])
        elif name in _STEPS:
            _STEPS[name](self)
        elif name in _TUPLES:
            self._push(tuple(self._pop() for _ in range(_TUPLES[name]))[::-1])
        elif name == "GLOBAL":
            stack.append(self.named(argument.replace(" ", ".", 1)))
        else:
            raise ValueError(f"a step {name} that no such file needs")

    def _keep(self, number: int) -> None:
        if not 0 <= number < self._size:
            raise ValueError(f"a value is kept under number {number}, in a pickle of {self._size} bytes")
        self._memo[number] = self._top()

    def _top(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise ValueError("a step without a value")
        return self._stack[-1]

    def _pop(self) -> Any:
        self._top()
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        values: list[Any] = []
        while self._stack and self._stack[-1] is not _MARK:
            values.append(self._stack.pop())
        if not self._stack:
            raise ValueError("a step without a mark")
        self._stack.pop()
        return values[::-1]

    def _push(self, value: object, parts: tuple[object, ...] | None = None) -> None:
        """Puts a new value on the stack; `parts` are what it may hold, where it is no tuple."""
        self._measure(value, value if parts is None and isinstance(value, tuple) else parts or ())
        self._stack.append(value)

    def _measure(self, value: object, parts: tuple[object, ...] | list[object]) -> None:
        """Adds parts to the depth and size of a value. Raises ValueError if they are too large."""
        if id(value) not in self._measures:
            self._kept.append(value)
        depth, size = self._measures.get(id(value), (1, 1))
        for part in parts:
            part_depth, part_size = self._measures.get(id(part), (0, 1))
            depth, size = max(depth, part_depth + 1), size + part_size
            if part_depth:
                self._within.add(id(part))
        if depth > _DEEPEST or size > _MOST_VALUES:
            raise ValueError("values nested deeper, or more of them, than such a file needs")
        self._measures[id(value)] = depth, size

    def _grow(self, kind: type, parts: list[object]) -> Any:
        """The list or dict that is to take these parts."""
        value = self._top()
        if not isinstance(value, kind):
            raise TypeError(f"items for a {type(value).__name__}")
        if id(value) in self._within or any(part is value for part in parts):
            raise ValueError("a value within itself, or that changes after another took it")
        self._measure(value, parts)
        return value

    def _append(self, values: list[object]) -> None:
        self._grow(list, values).extend(values)

    def _set(self, items: list[object]) -> None:
        keys, values = items[::2], items[1::2]
        if not all(type(key) in (str, int) for key in keys) or len(keys) != len(values):
            raise TypeError("a dict with keys other than text and whole numbers")
        self._grow(dict, items).update(zip(keys, values, strict=True))

    def _pairs(self) -> list[object]:
        value, key = self._pop(), self._pop()
        return [key, value]

    def _call(self) -> None:
        arguments, function = self._pop(), self._pop()
        if not isinstance(arguments, tuple):
            raise TypeError("a call without arguments")
        self._push(self.called(function, arguments), arguments)

    def _build(self) -> None:
        state, value = self._pop(), self._pop()
        if id(value) in self._within:
            raise ValueError("a value that changes after another took it")
        self._measure(value, [state])
        self._push(self.built(value, state), (state,))

    def _name(self) -> None:
        name, module = self._pop(), self._pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no text")
        self._stack.append(self.named(f"{module}.{name}"))


def _checked_number(number: float) -> float:
    if isinstance(number, int) and number.bit_length() > _MOST_INT_BITS:
        raise ValueError("a number larger than any file holds")
    return number


_STEPS: dict[str, Callable[[PickleMachine], None]] = {
    "EMPTY_LIST": lambda machine: machine._push([]),
    "EMPTY_DICT": lambda machine: machine._push({}),
    "TUPLE": lambda machine: machine._push(tuple(machine._pop_to_mark())),
    "APPEND": lambda machine: machine._append([machine._pop()]),
    "APPENDS": lambda machine: machine._append(machine._pop_to_mark()),
    "SETITEM": lambda machine: machine._set(machine._pairs()),
    "SETITEMS": lambda machine: machine._set(machine._pop_to_mark()),
    "STACK_GLOBAL": lambda machine: machine._name(),
    "REDUCE": lambda machine: machine._call(),
    "NEWOBJ": lambda machine: machine._call(),
    "BUILD": lambda machine: machine._build(),
    "BINPERSID": lambda machine: machine._push(machine.stored(machine._pop())),
}
