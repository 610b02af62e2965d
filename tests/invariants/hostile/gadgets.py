"""Pickles that would run code: what strangers' files have called, and how they have hidden it.

The names are facts from public advisories on pickle scanners (picklescan, fickling, modelscan) up
to 2026. Nothing here is executed; where a call is real, it would leave a canary.
"""

import io
import pickle
import struct
import subprocess
import zipfile

import numpy as np
import torch

from invariants.hostile.bombs import laughs
from invariants.hostile.building import (
    CANARY,
    PROTO,
    Calls,
    Make,
    ask,
    call,
    entries_of,
    entry,
    only_pickle,
    outside,
    rezipped,
    saved,
    saved_before,
    text,
    touch,
    weights,
    with_pickle,
    zipped,
)

# What a pickle asked for, ``module:name``.
NAMES = (
    *("os:system", "posix:system", "nt:system", "os:popen", "os:execv", "subprocess:Popen"),
    *("subprocess:getoutput", "commands:getoutput", "builtins:eval", "builtins:exec"),
    *("__builtin__:eval", "__builtin__:execfile", "builtins:compile", "builtins:__import__"),
    *("builtins:getattr", "builtins:open", "builtins:breakpoint", "builtins:globals"),
    *("builtins:dict.get", "builtins:__dict__", "collections:__builtins__", "sys:exit"),
    *("collections:_itemgetter", "sys:modules", "runpy:_run_code", "runpy:run_path", "pty:spawn"),
    *("importlib:import_module", "importlib.util:find_spec", "importlib:invalidate_caches"),
    *("marshal:loads", "types:FunctionType", "types:CodeType", "pickle:loads", "_pickle:loads"),
    *("cPickle:loads", "shelve:open", "webbrowser:open", "antigravity:webbrowser.open"),
    *("socket:create_connection", "ssl:get_server_certificate", "http.client:HTTPSConnection"),
    *("httplib:HTTPSConnection", "urllib.request:urlopen", "smtplib:SMTP", "ftplib:FTP"),
    *("imaplib:IMAP4_stream", "telnetlib:Telnet", "asyncio:run", "shutil:rmtree", "shutil:copy"),
    *("asyncio.unix_events:_UnixSubprocessTransport", "tempfile:mktemp", "ctypes:CDLL"),
    *("operator:attrgetter", "operator:methodcaller", "_operator:itemgetter", "operator:call"),
    *("functools:reduce", "inspect:getattr_static", "pydoc:locate", "pydoc:pipepager"),
    *("pkgutil:resolve_name", "bdb:Bdb.run", "pdb:run", "timeit:timeit", "cProfile:run"),
    *("profile:Profile.run", "trace:Trace.run", "doctest:debug_script", "code:interact"),
    *("code:InteractiveInterpreter.runcode", "codeop:compile_command", "atexit:register"),
    *("idlelib.autocomplete:AutoComplete.get_entity", "idlelib.calltip:Calltip.fetch_tip"),
    *("idlelib.debugobj:ObjectTreeItem.SetText", "idlelib.run:Executive.runcode"),
    *("idlelib.pyshell:ModifiedInterpreter.runcommand", "lib2to3.pgen2.grammar:Grammar.loads"),
    *("lib2to3.pgen2.pgen:ParserGenerator.make_label", "ensurepip:_run_pip", "pip:main"),
    *("pip._internal:main", "venv:create", "distutils.file_util:write_file", "_io:FileIO"),
    *("distutils.spawn:spawn", "multiprocessing.util:spawnv_passfds", "threading:Thread"),
    *("_posixsubprocess:fork_exec", "site:execsitecustomize", "uuid:_get_command_stdout"),
    *("_osx_support:_read_output", "_aix_support:_read_cmd_output", "_pyrepl.pager:pipe_pager"),
    *("zipimport:zipimporter", "sqlite3:connect", "logging.config:listen", "signal:raise_signal"),
    *("gc:get_objects", "codecs:decode", "linecache:getlines", "cgitb:handler", "this:d"),
    *("numpy.f2py.crackfortran:getlincoef", "numpy.f2py.crackfortran:_eval_length"),
    *("numpy.testing._private.utils:runstring", "numpy:load", "numpy.ctypeslib:load_library"),
    *("numpy:prod.os.system", "numpy:core._internal.sys.modules", "numpy:__builtins__"),
    *("torch:load", "torch.serialization:load", "torch.hub:load", "torch.jit:load"),
    *("torch.jit.unsupported_tensor_ops:execWrapper", "torch._dynamo.guards:GuardBuilder.get"),
    *("torch._inductor.codecache:compile_file", "torch.utils.collect_env:run"),
    *("torch.fx.experimental.symbolic_shapes:ShapeEnv.evaluate_guards_expression",),
    *("torch.utils.bottleneck.__main__:run_cprofile", "torch.package:PackageImporter"),
    *("torch.utils._config_module:ConfigModule.load_config", "torch:ops.load_library"),
    *("torch.utils.data.datapipes.utils.decoder:basichandlers", "torch.utils.cpp_extension:load"),
    *("torch.distributed.rpc:rpc_sync", "pandas:read_pickle", "pandas:eval", "joblib:load"),
    *(
        "dill._dill:loads",
        "dill:loads",
        "cloudpickle:loads",
        "requests.api:get",
        "yaml:unsafe_load",
    ),
    *("aiohttp.client:ClientSession", "numexpr:evaluate", "some.package.tools:os.system"),
    *("some.package:Thing.__init__.__globals__", "a.package:tools.eval", "IPython:start_ipython"),
)
# Of modules that strangers' networks do have: refused, but nobody is accused.
UNKNOWN = (
    *("__main__:Net", "models.resnet:ResNet", "torch.nn.modules.linear:Linear", "mmcv:ConfigDict"),
    *("torchvision.models.resnet:ResNet", "ultralytics.nn.tasks:DetectionModel"),
    *("collections:defaultdict", "datetime:datetime", "pathlib:PosixPath", "functools:partial"),
    *("torch.optim.lr_scheduler:StepLR", "numpy.random._pickle:__generator_ctor"),
    *("builtins:bytearray", "builtins:range", "torch._utils:_rebuild_nested_tensor"),
    *("torch._utils:_rebuild_wrapper_subclass", "torch._utils:_rebuild_device_tensor_from_numpy"),
    *("torch.storage:_load_from_bytes", "omegaconf.dictconfig:DictConfig", "_operator:add"),
)

COMMAND = text(f"touch {CANARY}")
SYSTEM = PROTO + call("os:system", COMMAND) + b"."
STACK_SYSTEM = b"\x80\x04\x8c\x02os\x8c\x06system\x93" + COMMAND + b"\x85R."
GOOD = entries_of(saved(weights()))["archive/data.pkl"]


def short(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def tabled(evil: bytes) -> bytes:
    """Two tables of contents: the end record points at the one that its size does not."""
    bad = with_pickle(evil)
    good = with_pickle(GOOD)
    at = bad.rindex(b"PK\x05\x06")
    size, start = struct.unpack("<II", good[-10:-2])
    return bad[:at] + good[: start + size] + good[-22:-10] + struct.pack("<IIH", size, start, 0)


def with_name(name: str) -> bytes:
    return rezipped(lambda e: e.update({name: e.pop("archive/data.pkl") and SYSTEM}))


def twice() -> bytes:
    buffer = io.BytesIO(saved(weights()))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data.pkl", SYSTEM)
    return buffer.getvalue()


def flagged() -> bytes:
    data = bytearray(with_pickle(SYSTEM))
    data[data.rindex(b"PK\x01\x02", 0, data.rindex(b"archive/data.pkl")) + 8] |= 1  # encrypted
    return bytes(data)


def bad_checksum() -> bytes:
    data = bytearray(with_pickle(SYSTEM))
    place = data.rindex(b"archive/data.pkl") - 30  # the checksum in the table
    data[place] ^= 0xFF
    return bytes(data)


def memo_desync() -> bytes:
    """MEMOIZE after BINGET keeps the string, not the index that stands before it."""
    names = short("os") + b"\x94" + short("system") + b"\x94" + b"0" + b"0"
    return b"\x80\x04" + names + b"h\x00\x94h\x01\x94\x93" + COMMAND + b"\x85R."


def memo_mixed() -> bytes:
    names = short("os") + b"q\x000" + short("system") + b"q\x010"
    safe = short("torch._utils") + b"\x940" + short("_rebuild_tensor_v2") + b"\x940"
    return b"\x80\x04" + names + safe + b"h\x00h\x01\x93" + COMMAND + b"\x85R."


def chain() -> Calls:
    return Calls(getattr, Calls(__import__, "os"), "system")


def partials() -> bytes:
    inner = call("functools:partial", ask("collections:OrderedDict"))
    return PROTO + call("functools:partial", inner) + b")R."


HIDDEN: dict[str, Make] = {
    "beside weights": lambda: saved({"state_dict": weights(), "x": touch()}),
    "plain": lambda: pickle.dumps(touch()),
    "protocol 0": lambda: pickle.dumps(touch(), protocol=0),
    "protocol 5": lambda: pickle.dumps({"w": touch()}, protocol=5),
    "old kind": lambda: saved_before(touch()),
    "old kind, in the first pickle": lambda: SYSTEM + saved_before(weights()),
    "old kind, in the last pickle": lambda: saved_before(weights()) + SYSTEM,
    "named .safetensors": lambda: SYSTEM,
    "eval": lambda: saved(Calls(eval, f"open({CANARY!r}, 'w')")),
    "exec": lambda: saved([Calls(exec, f"open({CANARY!r}, 'w')")]),
    "open": lambda: saved({"w": Calls(open, CANARY, "w")}),
    "a chain": lambda: saved(chain()),
    "subprocess": lambda: saved(Calls(subprocess.Popen, ["touch", CANARY])),
    "in tuples": lambda: saved({"w": (1, (2, (3, [touch()])))}),
    "in a numpy array": lambda: saved({"w": np.array([touch()], dtype=object)}),
    "behind a persistent id": lambda: with_pickle(outside()),
    "by INST": lambda: with_pickle(PROTO + b"(" + COMMAND + b"ios\nsystem\n."),
    "by OBJ": lambda: with_pickle(PROTO + b"(" + ask("os:system") + COMMAND + b"o."),
    "by STACK_GLOBAL": lambda: with_pickle(STACK_SYSTEM),
    "by STACK_GLOBAL, first of all": lambda: with_pickle(STACK_SYSTEM[2:]),
    "by NEWOBJ": lambda: with_pickle(PROTO + ask("subprocess:Popen") + COMMAND + b"\x85\x81."),
    "by NEWOBJ_EX": lambda: with_pickle(
        b"\x80\x04" + ask("subprocess:Popen") + COMMAND + b"\x85}\x92."
    ),
    "only asked for": lambda: with_pickle(entry(ask("os:system"))),
    "thrown away": lambda: with_pickle(PROTO + call("os:system", COMMAND) + b"0" + GOOD[2:]),
    "memo after memo": lambda: with_pickle(memo_desync()),
    "two ways of memo": lambda: with_pickle(memo_mixed()),
    "a number in base 16": lambda: with_pickle(b"I0x10\n0" + SYSTEM[2:]),
    "a number in base 8": lambda: with_pickle(b"I010\n0" + SYSTEM[2:]),
    "a name that is not ASCII": lambda: with_pickle(
        PROTO + "cmod\u00e9le\nNet\n0".encode() + SYSTEM[2:]
    ),
    "after a million opcodes": lambda: with_pickle(PROTO + b"N0" * 500_000 + SYSTEM[2:]),
    "then nonsense": lambda: with_pickle(SYSTEM[:-1] + b"\xff\xff"),
    "then no end": lambda: with_pickle(SYSTEM[:-1]),
    "then an empty stack": lambda: with_pickle(SYSTEM[:-1] + b"00000."),
    "a computed name": lambda: with_pickle(
        b"\x80\x04"
        + short("os")
        + call("builtins:str", text("system"))
        + b"\x93"
        + COMMAND
        + b"\x85R."
    ),
    "a computed call": lambda: with_pickle(PROTO + ask("collections:OrderedDict") + b")R)R."),
    "partials of partials": lambda: with_pickle(partials()),
    "state for a function": lambda: with_pickle(
        PROTO + ask("numpy:prod") + b"N" + ask("numpy:core._internal.sys.modules") + b"\x86b."
    ),
    "after the end of a good pickle": lambda: with_pickle(GOOD + SYSTEM),
    "a pickle in a pickle": lambda: with_pickle(
        PROTO
        + call("torch.storage:_load_from_bytes", b"B" + struct.pack("<I", len(SYSTEM)) + SYSTEM)
        + b"."
    ),
    "a pickle in a pickle's latin1": lambda: pickle.dumps(
        Calls(torch.storage._load_from_bytes, pickle.dumps(touch(), 2)), 2
    ),
    "a second pickle": lambda: rezipped(lambda e: e.update({"archive/more.pkl": SYSTEM})),
    "a second data.pkl": lambda: rezipped(lambda e: e.update({"other/data.pkl": SYSTEM})),
    "the same name twice": twice,
    "in upper case": lambda: with_name("archive/DATA.PKL"),
    "in numbers of no tensor": lambda: rezipped(lambda e: e.update({"archive/data/77": SYSTEM})),
    "compressed": lambda: rezipped(
        lambda e: e.update({"archive/data.pkl": SYSTEM}), zipfile.ZIP_DEFLATED
    ),
    "flags": flagged,
    "a wrong checksum": bad_checksum,
    "two tables of contents": lambda: tabled(SYSTEM),
    "a zip cut short": lambda: with_pickle(SYSTEM)[:-30],
    "a zip with a tail": lambda: with_pickle(SYSTEM) + bytes(100),
    "a zip after a pickle": lambda: SYSTEM + saved(weights()),
    "a zip of something else": lambda: zipped({"a/b.pkl": SYSTEM, "c.txt": b"text"}),
    "a 9th byte as safetensors have": lambda: PROTO + b"U\x08aaaa{aaa0" + SYSTEM[2:],
    "a billion laughs as a name": lambda: only_pickle(
        PROTO + laughs(b"]", b"e", b"]") + b"h\x3b" * 2 + b"\x93."
    ),
}


def named(name: str) -> Make:
    return lambda: only_pickle(PROTO + call(name, COMMAND) + b".")


def unknown(name: str) -> Make:
    return lambda: only_pickle(entry(call(name, COMMAND)))


GADGETS: dict[str, Make] = {f"names {name}": named(name) for name in NAMES}
STRANGERS: dict[str, Make] = {f"unknown {name}": unknown(name) for name in UNKNOWN}
