"""Fits that differ in one thing alone, as modules: an X in the text is 1 in one and 2 in the other."""
# ruff: noqa: E501, each is read in one line as well as in two

DIFFER: dict[str, str | dict[str, str]] = {
    "a constant": "def fit(c, s): return X",
    "a default": "def fit(c, s, width=X): return width",
    "a default that is another function": "def a(): return X\ndef fit(c, s, a=a): return a()",
    "a keyword's default": "def fit(c, s, *, width=X): return width",
    "a lambda": "fit = lambda c, s: X",
    "a list's inner function": "def fit(c, s): return [(lambda: X)() for _ in 'a']",
    "an inner function": "def fit(c, s):\n def f(): return X\n return f()",
    "a global of an inner function": "N = X\ndef fit(c, s):\n def f(): return N\n return f()",
    "a global of a comprehension": "N = X\ndef fit(c, s): return [N for _ in range(2)]",
    "a global of an inner class": "N = X\ndef fit(c, s):\n class A:\n  n = N\n return A.n",
    "an inner function's default": "N = X\ndef fit(c, s):\n def f(n=N): return n\n return f()",
    "what it encloses": "def make(x):\n return lambda c, s: x\nfit = make(X)",
    "what it encloses twice": (
        "def make(x):\n def f(): return x\n def g(): return f()\n return lambda c, s: g()\nfit = make(X)"
    ),
    "an attribute of the function": "def fit(c, s): return fit.epochs\nfit.epochs = X",
    "a constant that __call__ reads": "N = X\nclass Fit:\n def __call__(self, c, s): return N\nfit = Fit()",
    "a class attribute": "class Fit:\n n = X\n def __call__(self, c, s): return self.n\nfit = Fit()",
    "a field": (
        "class Fit:\n def __init__(self): self.n = X\n def __call__(self, c, s): return self.n\nfit = Fit()"
    ),
    "a slot": (
        "class Fit:\n __slots__ = ('n',)\n def __call__(self, c, s): return self.n\nfit = Fit()\nfit.n = X"
    ),
    "a base class": "class A:\n def n(self): return X\nclass B(A): pass\ndef fit(c, s): return B().n()",
    "a base class's attribute": "class A:\n n = X\nclass B(A):\n def __call__(self, c, s): return 0\nfit = B()",
    "a metaclass": "class M(type):\n n = X\nclass A(metaclass=M): pass\ndef fit(c, s): return A.n",
    "a property": "class A:\n @property\n def n(self): return X\ndef fit(c, s): return A().n",
    "a class method": "class A:\n @classmethod\n def n(cls): return X\ndef fit(c, s): return A.n()",
    "a static method": "class A:\n @staticmethod\n def n(): return X\ndef fit(c, s): return A.n()",
    "a cached property": (
        "import functools\nclass A:\n @functools.cached_property\n def n(self): return X\n"
        "def fit(c, s): return A().n"
    ),
    "a bound method": "class A:\n def fit(self, c, s): return X\nfit = A().fit",
    "a bound method's object": (
        "class A:\n def __init__(self, n): self.n = n\n def fit(self, c, s): return self.n\nfit = A(X).fit"
    ),
    "a partial of a method": (
        "import functools\nclass A:\n def fit(self, n, c, s): return n\nfit = functools.partial(A().fit, X)"
    ),
    "a partial's object": (
        "import functools\nclass A:\n def __init__(self, n): self.n = n\n def fit(self, c, s): return self.n\n"
        "fit = functools.partial(A(X).fit)"
    ),
    "a partial method": (
        "import functools\nclass A:\n def g(self, n): return n\n h = functools.partialmethod(g, X)\n"
        "def fit(c, s): return A().h()"
    ),
    "a cached function": (
        "import functools\n@functools.lru_cache\ndef n(): return X\ndef fit(c, s): return n()"
    ),
    "a decorated function": (
        "import functools\ndef d(f):\n @functools.wraps(f)\n def g(*a): return f(*a)\n return g\n"
        "@d\ndef fit(c, s): return X"
    ),
    "a decorator": (
        "import functools\ndef d(f):\n @functools.wraps(f)\n def g(*a): return X\n return g\n"
        "@d\ndef fit(c, s): return 0"
    ),
    "an installed decorator": "import torch\n@torch.no_grad()\ndef n(): return X\ndef fit(c, s): return n()",
    "a context manager": (
        "import contextlib\n@contextlib.contextmanager\ndef n(): yield X\ndef fit(c, s): return n()"
    ),
    "two that call each other": (
        "def a(n): return b(n - 1) if n else X\ndef b(n): return a(n - 1) if n else 0\ndef fit(c, s): return a(3)"
    ),
    "the far one of two that call each other": (
        "def a(n): return b(n - 1) if n else 0\ndef b(n): return a(n - 1) if n else X\ndef fit(c, s): return a(3)"
    ),
    "a module's forward": (
        "import torch\nN = X\nclass Net(torch.nn.Module):\n def forward(self, x): return x * N\n"
        "def fit(c, s): return Net()"
    ),
    "a network's weights": (
        "import torch\ntorch.manual_seed(X)\nnet = torch.nn.Linear(2, 2)\ndef fit(c, s): return net"
    ),
    "a network's dropout": "import torch\nnet = torch.nn.Dropout(X / 4)\ndef fit(c, s): return net",
    "a frozen weight": (
        "import torch\nnet = torch.nn.Linear(2, 2)\ntorch.nn.init.ones_(net.weight)\ntorch.nn.init.ones_(net.bias)\n"
        "net.weight.requires_grad_(X == 1)\ndef fit(c, s): return net"
    ),
    "a helper in a module": {
        "fitting": "import helpers\ndef fit(c, s): return helpers.width()",
        "helpers": "def width(): return X",
    },
    "a name taken from a module": {
        "fitting": "from helpers import width\ndef fit(c, s): return width()",
        "helpers": "N = X\ndef width(): return N",
    },
    "a module imported within": {
        "fitting": "def fit(c, s):\n import helpers\n return helpers.width()",
        "helpers": "def width(): return X",
    },
    "a name imported within": {
        "fitting": "def fit(c, s):\n from helpers import width\n return width()",
        "helpers": "def width(): return X",
    },
    "a package's module imported within": {
        "fitting": "def fit(c, s):\n from house import room\n return room.width()",
        "house/__init__": "",
        "house/room": "def width(): return X",
    },
    "a package imported by its module within": {
        "fitting": "def fit(c, s):\n import house.room\n return house.N",
        "house/__init__": "N = X",
        "house/room": "",
    },
    "a global by its name": "N = X\ndef fit(c, s): return globals()['N']",
    "a global in a text": "N = X\ndef fit(c, s): return eval('N')",
    "a module handed on": {
        "fitting": "import helpers\ndef fit(c, s): return getattr(helpers, 'width')()",
        "helpers": "def width(): return X",
    },
    "a package's module": {
        "fitting": "import house.room\ndef fit(c, s): return house.room.width()",
        "house/__init__": "",
        "house/room": "from . import cellar\ndef width(): return cellar.N",
        "house/cellar": "N = X",
    },
    "a relative import within": {
        "fitting": "from house.room import width\ndef fit(c, s): return width()",
        "house/__init__": "",
        "house/room": "def width():\n from .cellar import N\n return N",
        "house/cellar": "N = X",
    },
    "a list": "a = [0, X]\ndef fit(c, s): return a",
    "a list of objects": "a = [object(), [X]]\ndef fit(c, s): return a",
    "a long list": "a = [*range(1000), X]\ndef fit(c, s): return a",
    "a set": "a = {'a', 'b', X}\ndef fit(c, s): return a",
    "a set of tuples": "a = {('a', 'b'), ('c', X)}\ndef fit(c, s): return a",
    "a frozen set that is compiled": "def fit(c, s): return s in {'a', 'b', 'cX'}",
    "a dictionary's value": "a = {'a': {'b': X}}\ndef fit(c, s): return a['a']",
    "a dictionary's key": "a = {'X': 0}\ndef fit(c, s): return a",
    "a dictionary's order": "a = dict(sorted(dict(a=1, b=0).items(), key=lambda i: i[X - 1]))\ndef fit(c, s): return a",
    "a number's type": "a = [1, True][X - 1]\ndef fit(c, s): return a",
    "a sign of 0": "a = [0.0, -0.0][X - 1]\ndef fit(c, s): return a",
    "a Namespace": "import argparse\nargs = argparse.Namespace(lr=X)\ndef fit(c, s): return args.lr",
    "a SimpleNamespace": "import types\nargs = types.SimpleNamespace(lr=X)\ndef fit(c, s): return args.lr",
    "a dataclass": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n n: int = 0\na = A(X)\ndef fit(c, s): return a.n"
    ),
    "a dataclass's default": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n n: int = X\ndef fit(c, s): return A().n"
    ),
    "a dataclass's factory": (
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n n: list = dataclasses.field(default_factory=lambda: [X])\n"
        "def fit(c, s): return A().n"
    ),
    "a named tuple": (
        "import collections\nA = collections.namedtuple('A', 'n')\na = A(X)\ndef fit(c, s): return a"
    ),
    "a member of an Enum": (
        "import enum\nclass A(enum.Enum):\n a = 1\n b = 2\nn = A(X)\ndef fit(c, s): return n.value"
    ),
    "an Enum's values": "import enum\nclass A(enum.Enum):\n a = X\ndef fit(c, s): return A.a.value",
    "a Path": "import pathlib\np = pathlib.Path('data') / 'X'\ndef fit(c, s): return p.read_bytes()",
    "a date": "import datetime\nd = datetime.date(2024, 1, X)\ndef fit(c, s): return d",
    "a regular expression": "import re\nr = re.compile('X')\ndef fit(c, s): return r",
    "a range": "r = range(X)\ndef fit(c, s): return r",
    "an iterator": "r = iter([1, 2])\nfor _ in range(X): next(r)\ndef fit(c, s): return next(r, 0)",
    "a Counter": "import collections\na = collections.Counter('a' * X)\ndef fit(c, s): return a",
    "a deque": "import collections\na = collections.deque([X])\ndef fit(c, s): return a",
    "a tensor": "import torch\nx = torch.tensor([0.0, X])\ndef fit(c, s): return x",
    "a tensor's type": "import torch\nx = torch.ones(2, dtype=[torch.int8, torch.bool][X - 1])\ndef fit(c, s): return x",
    "a sparse tensor": "import torch\nx = torch.tensor([0.0, X]).to_sparse()\ndef fit(c, s): return x",
    "a quantised tensor": (
        "import torch\nx = torch.quantize_per_tensor(torch.tensor([X / 1]), 0.1, 0, torch.qint8)\ndef fit(c, s): return x"
    ),
    "a nested tensor": (
        "import torch\nx = torch.nested.nested_tensor([torch.ones(2), torch.ones(1) * X])\ndef fit(c, s): return x"
    ),
    "a parametrised network": (
        "import torch\nnet = torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(2, 2, False))\n"
        "torch.nn.init.constant_(net.parametrizations.weight.original0, X)\n"
        "torch.nn.init.ones_(net.parametrizations.weight.original1)\ndef fit(c, s): return net"
    ),
    "an attribute of a kind of set": "class S(set): pass\na = S('ab')\na.n = X\ndef fit(c, s): return a",
    "an array": "import numpy as np\nx = np.array([0.0, X])\ndef fit(c, s): return x",
    "an array of objects": "import numpy as np\nx = np.array(['a', X], object)\ndef fit(c, s): return x",
    "a NumPy number": "import numpy as np\nx = np.float32(X)\ndef fit(c, s): return x",
    "a dtype": "import torch\nx = [torch.float32, torch.float64][X - 1]\ndef fit(c, s): return x",
    "a device": "import torch\nx = torch.device(['cpu', 'meta'][X - 1])\ndef fit(c, s): return x",
    "torch's generator": "import torch\ng = torch.Generator().manual_seed(X)\ndef fit(c, s): return g",
    "NumPy's generator": "import numpy as np\ng = np.random.default_rng(X)\ndef fit(c, s): return g",
    "Python's generator": "import random\ng = random.Random(X)\ndef fit(c, s): return g",
    "a data set": (
        "import torch\nfrom torch.utils.data import TensorDataset\nd = TensorDataset(torch.tensor([X]))\n"
        "def fit(c, s): return d[0]"
    ),
    "part of a data set": (
        "import torch\nfrom torch.utils.data import Subset, TensorDataset\n"
        "d = Subset(TensorDataset(torch.arange(3)), [X])\ndef fit(c, s): return d[0]"
    ),
    "a loader's batch": (
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "d = DataLoader(TensorDataset(torch.arange(3)), batch_size=X)\ndef fit(c, s): return [*d]"
    ),
    "a loader's data": (
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "d = DataLoader(TensorDataset(torch.arange(3) * X), shuffle=True)\ndef fit(c, s): return [*d]"
    ),
    "a loader's order": (
        "import torch\nfrom torch.utils.data import DataLoader, TensorDataset\n"
        "d = DataLoader(TensorDataset(torch.arange(3)), shuffle=X == 1)\ndef fit(c, s): return [*d]"
    ),
    "a data set of one's own": (
        "from torch.utils.data import Dataset\nclass D(Dataset):\n def __getitem__(self, i): return X\n"
        "def fit(c, s): return D()[0]"
    ),
    "an estimator": (
        "from sklearn.linear_model import LogisticRegression\nm = LogisticRegression(C=X)\ndef fit(c, s): return m"
    ),
    "which of two names": "a, b = [(1, 2), (2, 1)][X - 1]\ndef fit(c, s): return a, b",
    "a name that is not there yet": "if X == 1: a = 3\nelse: b = 3\ndef fit(c, s): return a if s else b",
}
SAME: dict[str, str | dict[str, str]] = {
    "a comment": "def fit(c, s):\n # X\n return 1",
    "blank lines": "def fit(c, s):\n{}return 1".format(" \n" * 3 + " "),
    "a module's own file": "NOTE = X\ndef fit(c, s): return 1",
    "what is not read of a module": {
        "fitting": "import helpers\ndef fit(c, s): return helpers.width",
        "helpers": "width, height = 1, X",
    },
    "where it is defined": "'X' * (X - 1)\n" + "\n" * 3 + "def fit(c, s): return 1",
    "a class that refers to itself": (
        "class A:\n def n(self): return A(), B()\nclass B(A): pass\nNOTE = X\ndef fit(c, s): return A, {A, B}"
    ),
}
