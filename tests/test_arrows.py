"""The floors of the house, enforced: who may import whom, and which library may be seen where.

models ◀── {cpu_ops, gpu_ops} ◀── profiles ◀── placement ◀── server        tests and benchmarks see all, nobody sees them
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = {"models": 0, "cpu_ops": 1, "gpu_ops": 1, "profiles": 2, "placement": 3, "server": 4}
OUTSIDE = ("tests", "benchmarks")
HOMES = {  # the only places a library may be imported in
    "fastapi": ("server/api/",),
    "numba": ("cpu_ops/",),
    "llvmlite": ("cpu_ops/",),
    "triton": ("gpu_ops/kernels/",),
}
ENVIRONMENT_READERS = ("server/config.py", "models/paths.py")
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv", "unsetenv"}
OPTIONAL = {"triton", "huggingface_hub"}  # libraries that may be missing, and so may be imported inside a function
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)

SOURCES = sorted(path.relative_to(ROOT) for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))


def modules_of(node: ast.AST) -> Iterator[str]:
    """What one node imports, by full name: 'import a.b', 'from a.b import c', import_module('a.b')."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        yield "." * node.level + (node.module or "")
    elif isinstance(node, ast.Call) and getattr(node.func, "attr", getattr(node.func, "id", "")) in ("import_module", "__import__"):
        yield from (str(argument.value) for argument in node.args[:1] if isinstance(argument, ast.Constant))


def imports(tree: ast.AST) -> set[str]:
    return {module for node in ast.walk(tree) for module in modules_of(node)}


def wrong_arrows(path: Path, tree: ast.AST) -> Iterator[str]:
    """Imports of a floor above, of the neighbour on the same floor, or of what stands outside the house."""
    own = path.parts[0]
    for module in sorted(imports(tree)):
        target = module.partition(".")[0]
        if target in OUTSIDE or (target in FLOORS and target != own and FLOORS[target] >= FLOORS[own]):
            yield f"{path} imports {module}: {own} may not see {target}"


def lost_libraries(path: Path, tree: ast.AST) -> Iterator[str]:
    for module in sorted(imports(tree)):
        homes = HOMES.get(module.partition(".")[0])
        if homes is not None and not path.as_posix().startswith(homes):
            yield f"{path} imports {module}: only under {' or '.join(homes)}"


def environment_reads(path: Path, tree: ast.AST) -> Iterator[str]:
    if path.as_posix() in ENVIRONMENT_READERS:
        return
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.ImportFrom) and node.module == "os" else []
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os":
            names = [node.attr]
        if found := ENVIRONMENT & set(names):
            yield f"{path} uses os.{found.pop()}: only {' and '.join(ENVIRONMENT_READERS)} read the environment"


def hidden_imports(path: Path, tree: ast.AST) -> Iterator[str]:
    """Imports inside a function, optional libraries excepted."""
    inside = {node for function in ast.walk(tree) if isinstance(function, FUNCTIONS) for node in ast.walk(function)}
    modules = {module for node in inside for module in modules_of(node)}
    yield from (f"{path} imports {module} inside a function" for module in sorted(modules) if module.partition(".")[0] not in OPTIONAL)


RULES = {rule.__name__: rule for rule in (wrong_arrows, lost_libraries, environment_reads, hidden_imports)}


@pytest.mark.parametrize("name", RULES)
def test_the_house_keeps_its_rules(name: str) -> None:
    complaints = [line for path in SOURCES for line in RULES[name](path, ast.parse((ROOT / path).read_text()))]
    assert complaints == []


@pytest.mark.parametrize(
    ("name", "path", "source"),
    [
        ("wrong_arrows", "models/spec.py", "import server.cli"),
        ("wrong_arrows", "models/spec.py", "from profiles.firing import FiringProfile"),
        ("wrong_arrows", "cpu_ops/ffn.py", "from gpu_ops import linear"),
        ("wrong_arrows", "profiles/cli.py", "import importlib\nimportlib.import_module('placement.plan')"),
        ("wrong_arrows", "server/cli.py", "from tests.reference import forward"),
        ("lost_libraries", "server/engine.py", "from fastapi import FastAPI"),
        ("lost_libraries", "gpu_ops/ffn.py", "import triton.language as tl"),
        ("lost_libraries", "profiles/probe.py", "import numba"),
        ("environment_reads", "cpu_ops/topology.py", "import os\nos.environ['X']"),
        ("environment_reads", "cpu_ops/topology.py", "from os import getenv"),
        ("hidden_imports", "models/pack.py", "def f():\n    import json"),
        ("hidden_imports", "models/pack.py", "async def f():\n    from a import b"),
        ("hidden_imports", "models/pack.py", "class C:\n    def f(self):\n        return __import__('json')"),
    ],
)
def test_a_broken_rule_is_noticed(name: str, path: str, source: str) -> None:
    assert len(list(RULES[name](Path(path), ast.parse(source)))) == 1


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("placement/plan.py", "from profiles.firing import FiringProfile\nimport models.spec"),
        ("cpu_ops/ffn.py", "import numba\nfrom cpu_ops.kernels import int4"),
        ("gpu_ops/kernels/int4.py", "def f():\n    import triton"),
        ("server/api/app.py", "from fastapi import FastAPI"),
        ("models/paths.py", "import os\nos.environ.get('X')"),
        ("models/pack.py", "try:\n    import json\nexcept ImportError:\n    json = None\n\ndef f(): ...\nimport os\nos.replace"),
    ],
)
def test_what_the_rules_allow_is_let_through(path: str, source: str) -> None:
    assert [line for rule in RULES.values() for line in rule(Path(path), ast.parse(source))] == []


def test_what_says_it_is_torch_free_is_and_so_is_placement() -> None:
    """Every module of `placement`, and every other whose docstring says 'Torch-free', imported together in a fresh process."""
    docstrings = {path: ast.get_docstring(ast.parse((ROOT / path).read_text())) or "" for path in SOURCES}
    free = [path for path, docstring in docstrings.items() if path.parts[0] == "placement" or "Torch-free" in docstring]
    assert {Path("profiles/firing.py"), Path("models/manifest.py"), Path("placement/cli.py")} <= set(free)
    modules = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in free]
    program = f"import {', '.join(modules)}\nimport sys\nassert 'torch' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
