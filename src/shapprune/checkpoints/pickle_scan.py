"""What a pickle would do, read without doing any of it.

The opcodes are walked on a stack of inert records: a global is its name, a call is a note of what
would be called with what. Nothing is imported, called or allocated by a number in the file, and
the time is linear in its length.
"""

import pickletools
import struct
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

_MOST_OPCODES = 1_500_000  # 50,000 records of images take a million
_MOST_DIGITS = 620  # of a number: those of the 255 bytes of LONG1
_LONGEST_NAME = 500
_MOST_NAMES = 10_000
_MOST_LOOSE_KEYS = 5_000  # whose hashes a file can choose; colliding, each is compared with all
_CONSTANTS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE"),
    *("BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": list}  # an empty set takes 216 bytes
COMPUTED = "a name that it computes"


@dataclass(frozen=True)
class Global:
    """Something that the pickle asks for by name, ``module.name``."""

    name: str


@dataclass(eq=False, slots=True)
class Call:
    """Something that the pickle would call, and what it would put into the result."""

    function: object
    arguments: object
    items: dict[Hashable, Any] = field(default_factory=dict)
    state: object = None


@dataclass(frozen=True, eq=False, slots=True)
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
        builds: all states that it gives, each with what gets it.
        stored: the ids of what lies outside.
        fault: what stopped the reading; None for a whole pickle.
        opcodes: how many were read.
    """

    value: object
    globals: tuple[str, ...]
    calls: tuple[Call, ...]
    builds: tuple[tuple[object, object], ...]
    stored: tuple[object, ...]
    fault: str | None
    opcodes: int


def read_pickle(stream: BinaryIO, *, most: int = _MOST_OPCODES) -> Pickle:
    """Read one pickle from a stream, up to its STOP. Damage is told in ``fault``, never raised.

    Args:
        most: opcodes that are read.
    """
    machine = _Machine()
    fault, count = None, 0
    try:
        for count, (name, argument) in enumerate(_opcodes(stream), 1):
            if count > most:
                raise ValueError(f"more than {most} opcodes")
            machine.step(name, argument)
    except Exception as error:  # a damaged pickle can raise anything
        fault = f"{type(error).__name__}: {error}"
    return Pickle(
        machine.stack[-1] if machine.stack and not fault else None,
        tuple(machine.globals),
        tuple(machine.calls),
        tuple(machine.builds),
        tuple(machine.stored),
        fault,
        count,
    )


def is_plain_key(key: object) -> bool:
    """Whether a file cannot choose the key's hash, or not so that many collide."""
    if isinstance(key, int):
        return -(1 << 60) < key < 1 << 60
    return key is None or isinstance(key, str | bytes)


def _opcodes(stream: BinaryIO) -> Iterator[tuple[str, Any]]:
    """Each opcode's name and argument.

    Not `pickletools.genops`: it reads numbers and names in text otherwise than pickle does, and
    where it stops, pickle goes on (``I0x10``).
    """
    while True:
        code = stream.read(1)
        if code not in _READERS:
            raise ValueError(f"no opcode {code!r}" if code else "the end before STOP")
        name, read = _READERS[code]
        yield name, read(stream) if read else None
        if name == "STOP":
            return


def _number(stream: BinaryIO) -> int | bool:
    """As C's strtol reads it with base 0: ``0x10`` and ``010`` are numbers, ``01`` is True."""
    text = stream.readline(_MOST_DIGITS + 3)
    if not text.endswith(b"\n"):
        raise ValueError("a number that does not end")
    text = text.strip().removesuffix(b"L")
    if text in (b"00", b"01"):
        return text == b"01"
    sign, digits = (-1, text[1:]) if text[:1] == b"-" else (1, text.removeprefix(b"+"))
    octal = digits[:1] == b"0" and digits[1:].isdigit()
    return sign * (int(digits, 8) if octal else int(digits, 0))


def _long(stream: BinaryIO) -> int:
    (length,) = struct.unpack("<i", stream.read(4))
    if not 0 <= length <= 255:
        raise ValueError(f"a number of {length} bytes")
    return int.from_bytes(stream.read(length), "little", signed=True)


def _names(stream: BinaryIO) -> str:
    module, name = (stream.readline(_LONGEST_NAME) for _ in range(2))
    if not (module.endswith(b"\n") and name.endswith(b"\n")):
        raise ValueError("a name that is too long, or does not end")
    return f"{module[:-1].decode()} {name[:-1].decode()}"


def _text(stream: BinaryIO) -> str:
    return stream.readline().decode("latin-1").strip("'\"\n")


_READ_AS_PICKLE_DOES: dict[str, Callable[[BinaryIO], Any]] = {
    **{"INT": _number, "LONG": _number, "LONG4": _long, "GLOBAL": _names, "INST": _names},
    **{"STRING": _text, "PERSID": _text},
}
_READERS: dict[bytes, tuple[str, Callable[[Any], Any] | None]] = {
    opcode.code.encode("latin-1"): (
        opcode.name,
        _READ_AS_PICKLE_DOES.get(opcode.name, opcode.arg.reader if opcode.arg else None),
    )
    for opcode in pickletools.opcodes
}


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.globals: dict[str, Global] = {}
        self.calls: list[Call] = []
        self.builds: list[tuple[object, object]] = []
        self.stored: list[object] = []
        self.loose_keys = 0

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
            stack.append(tuple(self.pop(int(name[-1]))))
        elif name == "TUPLE":
            items = self.to_mark()
            self.stack.append(tuple(items))
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
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self.ask_for(self.pop(2) if name == "STACK_GLOBAL" else argument.split(" ", 1))
        elif name == "POP":
            if stack:
                stack.pop()
            else:
                self.to_mark()
        elif name == "POP_MARK":
            self.to_mark()
        elif name == "DUP":
            stack.append(stack[-1])
        else:
            self.step_that_acts(name, argument)

    def step_that_acts(self, name: str, argument: Any) -> None:
        if name in ("REDUCE", "NEWOBJ"):
            self.call(self.pop(1)[0])
        elif name == "NEWOBJ_EX":
            self.call(tuple(self.pop(2)))
        elif name == "OBJ":
            function, *arguments = self.to_mark()
            self.stack.append(function)
            self.call(tuple(arguments))
        elif name == "INST":
            arguments = self.to_mark()
            self.ask_for(argument.split(" ", 1))
            self.call(tuple(arguments))
        elif name == "BUILD":
            state = self.pop(1)[0]
            self.builds.append((self.stack[-1], state))
            if isinstance(self.stack[-1], Call):
                self.stack[-1].state = state
        elif name == "PERSID":
            self.persistent(argument)
        elif name == "BINPERSID":
            self.persistent(self.pop(1)[0])
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

    def ask_for(self, parts: list[Any]) -> None:
        if all(isinstance(part, str) for part in parts):
            if sum(map(len, parts)) > _LONGEST_NAME:
                raise ValueError("a name that is too long")
            name = ".".join(parts)
        else:
            name = COMPUTED
        if len(self.globals) > _MOST_NAMES:
            raise ValueError(f"more than {_MOST_NAMES} names")
        self.stack.append(self.globals.setdefault(name, Global(name)))

    def extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Call):
            raise ValueError(f"appending to a {type(target).__name__}")

    def put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        entries = target.items if isinstance(target, Call) else target
        if not isinstance(entries, dict):
            raise ValueError(f"setting an item of a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            self.check_key(key)
            if key in entries:  # nothing that is saved has a key twice; readers may differ
                raise ValueError("a key twice")
            entries[key] = value

    def check_key(self, key: object) -> None:
        if is_plain_key(key):
            return
        self.loose_keys += 1
        flat = isinstance(key, tuple) and len(key) < 20 and all(map(is_plain_key, key))
        if not (flat or isinstance(key, int | float | Global | Call)):
            raise ValueError(f"a {type(key).__name__} as a key")
        if self.loose_keys > _MOST_LOOSE_KEYS:
            raise ValueError(f"more than {_MOST_LOOSE_KEYS} keys that are no names")

    def call(self, arguments: Any) -> None:
        made = Call(self.stack.pop(), arguments)
        self.calls.append(made)
        self.stack.append(made)

    def persistent(self, identity: object) -> None:
        self.stored.append(identity)
        self.stack.append(Persistent(identity))
