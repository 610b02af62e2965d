"""Small pickles that would cost gigabytes or minutes if their word were taken."""

import struct

from invariants.hostile.building import (
    OD,
    PROTO,
    Make,
    ask,
    call,
    entry,
    number,
    numbers,
    only_pickle,
    rezipped,
    saved,
    storage,
    tensor,
    text,
    weights,
)

MANY = 5_000_000_000
PARAMETER = "torch._utils:_rebuild_parameter"
FROM_TYPE = "torch._tensor:_rebuild_from_type_v2"
SPARSE = "torch._utils:_rebuild_sparse_tensor"
COO = call("torch.serialization:_get_layout", text("torch.sparse_coo"))
BIG_TENSOR = call("torch:Tensor", number(MANY))
EXPANDED = tensor((MANY,), (0,))
PER_TENSOR = b"(" + ask("torch:per_tensor_affine") + b"G?\xf0" + bytes(6) + b"K\x00t"
QINT = storage(864, kind="torch:QInt8Storage")
DTYPE = call("numpy:dtype", text("f8") + b"\x89\x88")
ARRAY = call("numpy.core.multiarray:_reconstruct", ask("numpy:ndarray") + b"K\x00\x85" + text("b"))


def of_type(inner: bytes, state: bytes = b"}") -> bytes:
    return call(
        FROM_TYPE, ask("torch._utils:_rebuild_tensor_v2") + ask("torch:Tensor") + inner + state
    )


def arrayed(data: bytes, shape: bytes | None = None) -> bytes:
    return ARRAY + b"(K\x01" + (shape or numbers(4)) + DTYPE + b"\x89" + data + b"tb"


def laughs(opener: bytes, closer: bytes, first: bytes, levels: int = 60) -> bytes:
    """Each holds the one before ten times."""
    code = first + b"q\x00"
    for level in range(1, levels):
        code += opener + b"(" + (b"h" + bytes([level - 1])) * 10 + closer + b"q" + bytes([level])
    return code


def nested(count: int, opener: bytes, closer: bytes) -> bytes:
    return opener * count + closer * count


def many(one: bytes, count: int) -> bytes:
    return b"]q\x00(" + one * count + b"e"


def shared_names(count: int) -> bytes:
    """One expanded tensor of a million numbers under many names."""
    big = tensor((1 << 20,), (0,)) + b"q\x01"
    return (
        PROTO
        + b"}("
        + text("a")
        + big
        + b"".join(text(f"k{i}") + b"h\x01" for i in range(count))
        + b"u."
    )


def strings(count: int) -> bytes:
    """A megabyte of text that is made into bytes again and again."""
    given = (
        text("a" * 1_000_000)
        + b"q\x010"
        + ask("_codecs:encode")
        + b"q\x020"
        + text("latin1")
        + b"q\x030"
    )
    return PROTO + b"N0" + given + b"]q\x05(" + b"h\x02h\x01h\x03\x86R" * count + b"e."


def names(count: int) -> bytes:
    module = b"\x8c\xff" + b"a" * 255
    parts = b"".join(
        b"\x8c\xc8" + bytes(str(i).zfill(200), "ascii") + b"q" + bytes([i]) + b"0"
        for i in range(200)
    )
    pairs = b"".join(
        b"h" + bytes([i % 200]) + b"h" + bytes([i // 200 % 200]) + b"\x93" for i in range(count)
    )
    return b"\x80\x04" + module + b"0" + parts + pairs + b"."


def keys(count: int) -> bytes:
    return PROTO + b"}(" + b"".join(text(f"k{i}") + b"K\x01" for i in range(count)) + b"u."


def colliding(count: int) -> bytes:
    """Numbers with one hash."""
    step = (1 << 61) - 1
    return PROTO + b"}(" + b"".join(number(i * step) + b"K\x01" for i in range(2, count)) + b"u."


def dicts_of_one(count: int) -> bytes:
    """Many names for one dict of many names."""
    inner = b"}q\x01(" + b"".join(text(f"i{i}") + b"K\x01" for i in range(count)) + b"u"
    outer = b"".join(text(f"o{i}") + b"h\x01" for i in range(count))
    return PROTO + b"}(" + text("first") + inner + outer + b"u."


TENSORS: dict[str, bytes] = {
    "torch.Tensor(N)": entry(BIG_TENSOR),
    "torch.Tensor(N) by NEWOBJ": entry(ask("torch:Tensor") + number(MANY) + b"\x85\x81"),
    "torch.FloatTensor(N)": entry(call("torch:FloatTensor", number(MANY))),
    "FloatStorage(N)": entry(call("torch:FloatStorage", number(MANY))),
    "UntypedStorage(N)": entry(call("torch.storage:UntypedStorage", number(MANY))),
    "TypedStorage(N)": entry(call("torch.storage:TypedStorage", number(MANY))),
    "a parameter of torch.Tensor(N)": entry(call(PARAMETER, BIG_TENSOR + b"\x89" + OD)),
    "Parameter(torch.Tensor(N))": entry(call("torch.nn.parameter:Parameter", BIG_TENSOR)),
    "torch.Tensor(N), thrown away": PROTO + BIG_TENSOR + b"0}" + text("w") + b"K\x01s.",
    "stride 0": entry(EXPANDED),
    "stride 0, first version": entry(tensor((MANY,), (0,), function="_rebuild_tensor", rest=b"")),
    "stride 0, third version": entry(
        tensor(
            (MANY,),
            (0,),
            place=storage(864, kind="torch.storage:UntypedStorage"),
            function="_rebuild_tensor_v3",
            rest=b"\x89" + OD + ask("torch:float32"),
        )
    ),
    "stride 0, a parameter": entry(call(PARAMETER, EXPANDED + b"\x89" + OD)),
    "stride 0, by type": entry(
        of_type(b"(" + storage() + b"K\x00" + numbers(MANY) + numbers(0) + b"\x89" + OD + b"t")
    ),
    "by type, of torch.Tensor": entry(
        call(FROM_TYPE, ask("torch:Tensor") + ask("torch:Tensor") + number(MANY) + b"\x85}")
    ),
    "by type, of itself": entry(
        call(
            FROM_TYPE,
            ask(FROM_TYPE)
            + ask("torch:Tensor")
            + b"("
            + ask("torch:Tensor")
            + ask("torch:Tensor")
            + number(MANY)
            + b"\x85}t}",
        )
    ),
    "more numbers than there are": entry(tensor((1 << 30,), (1,))),
    "a storage that is too short": entry(tensor((1 << 30,), (1,), place=storage(1 << 30))),
    "an offset beyond the end": entry(tensor((4,), (1,), offset=1 << 40)),
    "a negative offset": entry(tensor((4,), (1,), offset=-4)),
    "a negative size": entry(tensor((-1,), (1,))),
    "a negative stride": entry(tensor((4,), (-1,))),
    "ten thousand dimensions": entry(tensor((1,) * 10_000, (1,) * 10_000)),
    "a size of 2^100": entry(tensor((1 << 100,), (0,))),
    "quantised": entry(
        tensor(
            (MANY,), (0,), place=QINT, function="_rebuild_qtensor", rest=PER_TENSOR + b"\x89" + OD
        )
    ),
    "sparse, indices expanded": entry(
        call(SPARSE, COO + b"(" + tensor((1, MANY), (0, 0)) + EXPANDED + numbers(10) + b"\x89t")
    ),
    "sparse, of torch.Tensor": entry(
        call(SPARSE, COO + b"(" + BIG_TENSOR * 2 + numbers(10) + b"\x89t")
    ),
    "nested": entry(call("torch._utils:_rebuild_nested_tensor", EXPANDED * 4)),
    "one tensor under many names": shared_names(20_000),
    "many expanded tensors": entry(many(tensor((1 << 19,), (0,)), 100)),
    "a state for a tensor": entry(
        tensor((4,), (1,)) + b"(" + storage() + b"K\x00" + numbers(MANY) + numbers(0) + b"tb"
    ),
    "hooks that are called": entry(
        tensor((4,), (1,), rest=b"\x89" + OD + b"K\x01" + ask("torch:Tensor") + b"s")
    ),
    "attributes over its own": entry(
        of_type(
            b"(" + storage() + b"K\x00" + numbers(4) + numbers(1) + b"\x89" + OD + b"t",
            b"}" + text("data") + EXPANDED + b"s",
        )
    ),
}
PLAIN: dict[str, bytes] = {
    "bytearray(N)": entry(call("builtins:bytearray", number(MANY))),
    "bytes(N)": entry(call("builtins:bytes", number(MANY))),
    "range(N)": entry(call("builtins:list", call("builtins:range", number(MANY)))),
    "list times N": entry(call("_operator:mul", b"](K\x01e" + number(MANY))),
    "text times N": entry(call("_operator:mul", text("a") + number(MANY))),
    "2 to the N": entry(call("_operator:pow", number(10) + number(MANY))),
    "numpy.empty(N)": entry(call("numpy:empty", number(MANY))),
    "numpy.frombuffer": entry(call("numpy:frombuffer", b"U\x08" + bytes(8))),
    "a numpy array of N bytes": entry(arrayed(number(MANY))),
    "a numpy array of a huge shape": entry(arrayed(b"C\x08" + bytes(8), numbers(MANY))),
    "a numpy type of N bytes": entry(call("numpy:dtype", text("S" + "9" * 12) + b"\x89\x88")),
    "a numpy type of many": entry(call("numpy:dtype", text("f8," * 100_000) + b"\x89\x88")),
    "hex of hex": entry(
        call("_codecs:encode", call("_codecs:encode", text("aaaa") + text("hex")) + text("hex"))
    ),
    "text made bytes, again and again": strings(50_000),
    "a billion laughs of lists": PROTO + laughs(b"]", b"e", b"]") + b".",
    "a billion laughs of tuples": PROTO + laughs(b"", b"t", b")") + b".",
    "a billion laughs as a key": PROTO + laughs(b"", b"t", b")") + b"}h\x3bK\x01s.",
    "a billion laughs as an id": PROTO + laughs(b"", b"t", b")") + b"h\x3bQ.",
    "many names for one dict of many": dicts_of_one(3_000),
    "a list in itself": PROTO + b"]q\x00h\x00a.",
    "a dict in itself": PROTO + b"}q\x00" + text("w") + b"h\x00s.",
    "deep lists": PROTO + nested(200_000, b"]", b"")[:-1] + b"a" * 199_998 + b".",
    "deep tuples": PROTO + b")" + b"\x85" * 200_000 + b".",
    "deep calls": PROTO
    + ask("collections:OrderedDict")
    + b"q\x00"
    + b"h\x00(" * 99_999
    + b"tR" * 99_999
    + b".",
    "marks": PROTO + b"(" * 1_000_000 + b".",
    "empty sets": b"\x80\x04](" + b"\x8f" * 1_400_000 + b"e.",
    "ordered dicts": PROTO
    + ask("collections:OrderedDict")
    + b"q\x000]("
    + b"h\x00)R" * 400_000
    + b"e.",
    "push and pop": PROTO + b"N" * 700_000 + b"N0" * 350_000 + b".",
    "names upon names": names(300_000),
    "opcodes": PROTO + b"N0" * 3_000_000 + b".",
    "a hundred thousand keys": keys(100_000),
    "keys of one hash": colliding(100_000),
    "a key twice": PROTO + b"}(" + (text("w") + b"K\x01") * 2 + b"u.",
    "a key that is 1 and True": PROTO + b"}(K\x01K\x01\x88K\x01u.",
    "methods for a dict": PROTO + b"}" + text("w") + OD + b"}" + text("items") + b"K\x01sbs.",
    "a string of 2 GB": b"\x80\x02X\xff\xff\xff\x7fabc.",
    "a string of 16 EB": b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc.",
    "a long of 2 GB": b"\x80\x02\x8b\xff\xff\xff\x7fabc.",
    "a long of 100 kB": b"\x80\x02\x8b" + struct.pack("<i", 100_000) + b"\x7f" * 100_000 + b".",
    "a number of a million digits": b"I" + b"9" * 1_000_000 + b"\n.",
    "a line without end": b"V" + b"a" * 1_000_000,
    "a memo of 2 GB": b"\x80\x02Nr\xff\xff\xff\x7f0.",
    "a frame of 16 EB": b"\x80\x04\x95" + b"\xff" * 8 + b"N.",
    "an extension": b"\x80\x02\x82\x01.",
}


def packed(code: bytes) -> Make:
    return lambda: only_pickle(code)


BOMBS: dict[str, Make] = {
    **{f"tensor: {name}": packed(code) for name, code in TENSORS.items()},
    **{f"pickle: {name}": packed(code) for name, code in PLAIN.items()},
    "old kind: a storage of N": lambda: saved(
        weights(), _use_new_zipfile_serialization=False
    ).replace(b"K\xd8", b"J" + struct.pack("<i", 1 << 30), 1),
    "zip: a hundred thousand entries": lambda: rezipped(
        lambda e: e.update({f"archive/data/{i}": b"" for i in range(100, 100_000)})
    ),
}
