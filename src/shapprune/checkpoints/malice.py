"""What no model needs: names that a pickle asks for only to do harm.

What may be loaded is decided by a list of what is allowed, elsewhere. Here it is decided whether
something else is merely unknown, such as a stranger's class, or *malicious*. Lists of known
gadgets have been bypassed again and again (some hundred advisories on pickle scanners up to 2026),
mostly by one more module of the standard library. So it is the other way round: of the standard
library, all is malicious but types of plain data.
"""

import sys
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING

from shapprune.checkpoints.pickle_scan import COMPUTED

# Modules of the standard library that compute or hold values, and nothing else.
_DATA_MODULES = {
    *("cmath", "datetime", "decimal", "enum", "fractions", "ipaddress", "itertools", "math"),
    *("numbers", "statistics", "zoneinfo", "__future__", "_datetime", "_decimal"),
}
_DATA = {
    "_codecs": {"encode"},
    "_collections": {"OrderedDict", "defaultdict", "deque"},
    "argparse": {"Namespace"},
    "array": {"array", "_array_reconstructor"},
    "builtins": {
        *("bool", "bytearray", "bytes", "complex", "dict", "Ellipsis", "float", "frozenset", "int"),
        *("list", "NotImplemented", "object", "range", "set", "slice", "str", "tuple", "type"),
        *("Exception", "ValueError", "KeyError", "RuntimeError", "TypeError", "max", "min", "sum"),
        *("abs", "len", "sorted", "round", "print", "super", "property"),
    },
    "collections": {"ChainMap", "Counter", "OrderedDict", "UserDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor", "__newobj__", "__newobj_ex__"},
    "functools": {"partial"},  # of layers, in whole modules; a call of its result is malicious
    "inspect": {"Parameter", "Signature", "_ParameterKind", "_empty"},
    "logging": {"Logger", "getLogger", "RootLogger"},
    "pathlib": {"Path", "PosixPath", "PurePath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "pathlib._local": {"Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "random": {"Random"},
    "re": {"_compile"},
    "time": {"struct_time"},
    "types": {"SimpleNamespace", "MappingProxyType", "NoneType"},
    "typing": {"Any", "Union", "Optional", "List", "Dict", "Tuple"},
    "uuid": {"UUID", "SafeUUID"},
}
# Arithmetic stands in graphs of torch.fx.
_OPERATORS = {
    *("add", "sub", "mul", "truediv", "floordiv", "mod", "neg", "matmul", "getitem", "eq", "ne"),
    *("lt", "le", "gt", "ge", "and_", "or_", "not_", "pow", "iadd", "imul", "isub", "invert"),
}
# Of the standard library once, or of its other platforms.
_FORMER_MODULES = {
    *("__builtin__", "_aix_support", "_bootsubprocess", "_osx_support", "_posixsubprocess"),
    *("_pyrepl", "_winapi", "asynchat", "asyncore", "cgi", "commands", "crypt", "distutils"),
    *("imp", "lib2to3", "msilib", "nntplib", "nt", "pipes", "popen2", "posix", "smtpd", "spwd"),
    *("telnetlib", "test", "uu", "xdrlib"),
}
# Packages that run, fetch or install things, or load other pickles.
_RUNNERS = {
    *("IPython", "_pytest", "aiohttp", "boto3", "cffi", "cloudpickle", "dill", "docker", "fabric"),
    *("fsspec", "git", "httplib2", "httpx", "invoke", "ipykernel", "joblib", "jsonpickle", "nose"),
    *("numexpr", "paramiko", "pexpect", "pip", "pkg_resources", "plumbum", "psutil", "pyautogui"),
    *("pycurl", "pytest", "requests", "selenium", "setuptools", "sh", "tornado", "twisted"),
    *("urllib3", "wheel", "win32api", "win32com", "yaml"),
}
_PARTS_OF_PACKAGES = (
    *("numpy.ctypeslib.", "numpy.distutils.", "numpy.f2py.", "numpy.testing.", "numpy.compat."),
    *("numpy.load", "numpy.save", "numpy.fromfile", "numpy.memmap", "numpy.genfromtxt"),
    *("numpy.lib.npyio.", "numpy.lib._npyio_impl.", "numpy.lib._datasource.", "numpy.lib.format."),
    *("numpy.DataSource", "pandas.eval", "pandas.io.", "pandas.read_", "pandas.core.computation."),
    *("scipy.io.", "tensorflow.io.", "tensorflow.load_", "torch._dynamo.guards."),
    *("torch._inductor.", "torch._jit_internal.", "torch._ops.", "torch.classes.", "torch.hub."),
    *("torch.distributed.elastic.", "torch.distributed.launch", "torch.distributed.rpc."),
    *("torch.distributed.run.", "torch.fx.experimental.", "torch.jit.", "torch.load", "torch.save"),
    *("torch.multiprocessing.", "torch.onnx.", "torch.ops.", "torch.package.", "torch.profiler."),
    *("torch.serialization.", "torch.testing.", "torch.utils._config_module."),
    *("torch.utils.benchmark.", "torch.utils.bottleneck.", "torch.utils.collect_env."),
    *("torch.utils.cpp_extension.", "torch.utils.data.datapipes.utils.", "torch.utils.hipify."),
    *("torch.utils.model_dump.", "torch.utils.model_zoo.", "transformers.dynamic_module_utils."),
)
# Of sparse tensors, and of TorchScript, which is told by its kind.
_OF_TENSORS = ("torch.serialization._get_layout", "torch.jit._pickle.")
# Functions that run what they are given, wherever a package has put one.
_RUNS = {
    *("Popen", "_eval", "_exec", "check_call", "check_output", "compile", "eval", "exec"),
    *("exec_module", "execfile", "fork_exec", "getattr", "getoutput", "getstatusoutput"),
    *("import_module", "load_library", "load_module", "loads", "locate", "popen", "read_pickle"),
    *("resolve_name", "run_code", "run_module", "run_path", "runcode", "runsource", "runstring"),
    *("setattr", "spawn", "spawnv", "spawnv_passfds", "system", "unsafe_load", "urlopen"),
}
# A walk from any package to a module that it has imported: numpy.core._internal.sys.modules
_STOPS = {
    *("builtins", "ctypes", "importlib", "os", "pickle", "posix", "nt", "pty", "runpy", "shutil"),
    *("socket", "subprocess", "sys"),
}


def is_malicious(name: str) -> bool:
    """Whether what a pickle asks for, ``module.name``, is something that no model needs.

    >>> [is_malicious(name) for name in ("os.system", "torch.nn.modules.linear.Linear")]
    [True, False]
    """
    if name == COMPUTED:
        return True
    if name.startswith(_OF_TENSORS):
        return False
    module, _, attribute = name.rpartition(".")
    # As pickle does: Python 2's names of modules are read as today's.
    module, attribute = NAME_MAPPING.get((module, attribute), (module, attribute))
    module = IMPORT_MAPPING.get(module, module)
    name = f"{module}.{attribute}"
    root, *walk = name.split(".")
    if attribute in _DATA.get(module, ()) or root in _DATA_MODULES:
        return any(_is_dunder(part) for part in walk[:-1])
    if module in ("operator", "_operator"):
        return attribute not in _OPERATORS
    return (
        root in sys.stdlib_module_names
        or root in _FORMER_MODULES
        or root in _RUNNERS
        or name.startswith(_PARTS_OF_PACKAGES)
        or attribute in _RUNS
        or any(part in _STOPS or _is_dunder(part) for part in walk)
    )


def _is_dunder(part: str) -> bool:
    return part.startswith("__") and part.endswith("__")
