"""What a pickle would do, read without doing any of it.

The opcodes are walked on a stack of inert records: a global is its name, a call is a note of what
would be called with what. Nothing is imported, called or allocated by a number in the file.
"""

import pickletools
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_MOST_OPCODES = 4_000_000  # seconds' worth; 50,000 records of images take a million
_DEEPEST_TUPLE = 20  # hashing a tuple follows it down without a guard
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}


@dataclass(frozen=True)
class Global:
    """Something that the pickle asks for by name, ``module.name``."""

    name: str


@dataclass(eq=False)
class Call:
    """Something that the pickle would call, and what it would put into the result."""

    function: object
    arguments: object
    items: dict[Hashable, Any] = field(default_factory=dict)
    state: object = None


@dataclass(frozen=True, eq=False)
class Persistent:
    """Something that lies outside of the pickle: a tensor's numbers."""

    id: object


@dataclass(frozen=True, eq=False)
class Pickle:
    """A pickle without its effects.

    Attributes:
        value: what it holds: plain values, `Global`, `Call` and `Persistent`; None where ``fault``.
        globals: the names that it asks for, in order, each once.
        calls: all calls, also those whose result it throws away.
        stored: the ids of what lies outside.
        fault: what stopped the reading; None for a whole pickle.
    """

    value: object
    globals: tuple[str, ...]
    calls: tuple[Call, ...]
    stored: tuple[object, ...]
    fault: str | None


def read_pickle(stream: BinaryIO) -> Pickle:
    """Read one pickle from a stream, up to its STOP. Damage is told in ``fault``, never raised."""
    machine = _Machine()
    fault = None
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > _MOST_OPCODES:
                raise ValueError(f"more than {_MOST_OPCODES} opcodes")
            machine.step(opcode.name, argument)
    except Exception as error:  # a damaged pickle can raise anything
        fault = f"{type(error).__name__}: {error}"
    return Pickle(
        machine.stack[-1] if machine.stack and not fault else None,
        tuple(dict.fromkeys(machine.globals)),
        tuple(machine.calls),
        tuple(machine.stored),
        fault,
    )


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: list[str] = []
        self.calls: list[Call] = []
        self.stored: list[object] = []
        self.depths: dict[int, tuple[int, object]] = {}  # of nested tuples, kept alive

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _CONSTANTS:
            stack.append(argument)
        elif name in _FIXED:
            stack.append(_FIXED[name])
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME", "STOP"):
            pass
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marked.append(stack)
            self.stack = []
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            items = self.pop(count)
            self.stack.append(self.tuple(items))
        elif name == "TUPLE":
            items = self.to_mark()
            self.stack.append(self.tuple(items))
        elif name in ("LIST", "FROZENSET"):
            items = self.to_mark()
            self.stack.append(items)
        elif name == "DICT":
            items = self.to_mark()
            self.stack.append({})
            self.put(items)
        elif name == "APPEND":
            self.extend(self.pop(1))
        elif name in ("APPENDS", "ADDITEMS"):
            self.extend(self.to_mark())
        elif name == "SETITEM":
            self.put(self.pop(2))
        elif name == "SETITEMS":
            self.put(self.to_mark())
        elif name in ("GLOBAL", "INST", "STACK_GLOBAL"):
            if name == "STACK_GLOBAL":
                argument = " ".join(map(str, self.pop(2)))
            arguments = self.tuple(self.to_mark()) if name == "INST" else ()
            found = Global(str(argument).replace(" ", ".", 1))
            self.globals.append(found.name)
            self.stack.append(found)
            if name == "INST":
                self.call(arguments)
        elif name in ("REDUCE", "NEWOBJ"):
            self.call(self.pop(1)[0])
        elif name == "NEWOBJ_EX":
            self.call(self.tuple(self.pop(2)))
        elif name == "OBJ":
            function, *arguments_given = self.to_mark()
            self.stack.append(function)
            self.call(self.tuple(arguments_given))
        elif name == "BUILD":
            state = self.pop(1)[0]
            if isinstance(self.stack[-1], Call):
                self.stack[-1].state = state
        elif name == "PERSID":
            self.persistent(argument)
        elif name == "BINPERSID":
            self.persistent(self.pop(1)[0])
        elif name == "POP":
            self.stack = stack[:-1] if stack else self.marked.pop()
        elif name == "POP_MARK":
            self.to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            raise ValueError(f"opcode {name}")

    def pop(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("nothing left on the stack")
        items = self.stack[-count:]
        del self.stack[-count:]
        return items

    def to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.marked.pop()
        return items

    def tuple(self, items: list[Any]) -> Any:
        depth = 1 + max((self.depths[id(i)][0] for i in items if id(i) in self.depths), default=0)
        if depth > _DEEPEST_TUPLE:
            raise ValueError(f"tuples nested deeper than {_DEEPEST_TUPLE}")
        made = tuple(items)
        if any(isinstance(item, tuple) for item in items) or depth > 1:
            self.depths[id(made)] = depth, made
        return made

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Call):
            raise ValueError(f"appending to a {type(target).__name__}")

    def put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        pairs = dict(zip(items[::2], items[1::2], strict=True))
        if isinstance(target, Call):
            target.items |= pairs
        elif isinstance(target, dict):
            target |= pairs
        else:
            raise ValueError(f"setting an item of a {type(target).__name__}")

    def call(self, arguments: Any) -> None:
        made = Call(self.stack.pop(), arguments)
        self.calls.append(made)
        self.stack.append(made)

    def persistent(self, identity: object) -> None:
        self.stored.append(identity)
        self.stack.append(Persistent(identity))
