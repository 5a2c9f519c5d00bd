"""The package as a whole: its layers, its names, and what importing it costs."""

import ast
import importlib.metadata
import inspect
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import t2i

PACKAGE = Path(t2i.__file__).parent
LAYERS = [  # a module imports from its own package and from those above it in this list, the only one there is
    "_native",
    "errors",
    "console",
    "extras",
    "files",
    "images",
    "runtime",
    "noise",
    "weights",
    "locks",
    "distributed",
    "config",
    "ops",
    "data",
    "prepare",
    "blossoms",
    "text",
    "models",
    "pretrained",
    "style",
    "pipeline",
    "metrics",
    "plots",
    "training",
    "export",
    "demo",
    "bench",
    "cli",
]
LEVEL = {name: level for level, name in enumerate(LAYERS)}
MAX_MODULES = 13  # at the top level of the package, __init__ among them


def module_name(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_name(path): path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"}


def imported(path):
    """Modules of the package that a file imports, at its top or inside functions, as names below t2i."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports hide the layer"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    known = {*FILES, "_native"}
    return {name.removeprefix("t2i.") for name in found if name.removeprefix("t2i.") in known and name != "t2i"}


@pytest.mark.parametrize("name", FILES)
def test_a_module_imports_only_from_its_package_and_those_below(name):
    top = name.split(".")[0]
    assert top in LEVEL, f"give {name} a place in LAYERS"
    wrong = {other for other in imported(FILES[name]) if LEVEL[other.split(".")[0]] > LEVEL[top]}
    assert not wrong


def test_the_top_level_has_few_modules_and_every_package_exists():
    assert len(list(PACKAGE.glob("*.py"))) <= MAX_MODULES
    assert {name for name in LAYERS if name != "_native"} == {name.split(".")[0] for name in FILES}


@pytest.mark.parametrize("name", FILES)
def test_files_and_functions_are_short(name):
    source = FILES[name].read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 400
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    assert [f.name for f in functions if f.end_lineno - f.lineno + 1 > 60] == []


def test_no_two_modules_need_each_other():
    needs = {name: imported(path) - {name, "_native"} for name, path in FILES.items()}
    while ready := [name for name, others in needs.items() if not others]:
        needs = {name: others - set(ready) for name, others in needs.items() if name not in ready}
    assert needs == {}


def test_the_test_of_layers_sees_imports():
    assert {"data.dataset", "training.checkpoint"} <= imported(FILES["training.gan"])
    assert "pipeline" in imported(FILES["cli.generate"])  # inside a function


def test_modules_need_no_package_that_is_not_listed_as_a_dependency():
    """A machine with a GPU and a wheel had none of the three packages that read the flags."""
    listed = tomllib.loads((PACKAGE.parents[1] / "pyproject.toml").read_text())["project"]["dependencies"]
    allowed = {re.match(r"[\w-]+", line)[0].replace("pillow", "PIL") for line in listed} | {"t2i", "__future__"}
    more = {"ops.triton": "triton", "demo": "uvicorn"}  # comes with torch; an extra, asked for before it is imported
    for name, path in FILES.items():
        found = set()
        for node in ast.parse(path.read_text(encoding="utf-8")).body:  # not inside functions
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [each.name for each in node.names] if isinstance(node, ast.Import) else [node.module]
                found |= {each.split(".")[0] for each in names}
        found -= {package for layer, package in more.items() if name.startswith(layer)}
        assert found <= allowed | sys.stdlib_module_names, name


@pytest.mark.parametrize("name", t2i.__all__)
def test_every_public_name_is_there(name):
    assert getattr(t2i, name) is not None
    assert name in dir(t2i)


PUBLIC = [getattr(t2i, name) for name in t2i.__all__]
PUBLIC = [each for each in PUBLIC if callable(each) and not (isinstance(each, type) and issubclass(each, Exception))]


@pytest.mark.parametrize("public", PUBLIC, ids=lambda public: public.__name__)
def test_every_public_function_and_class_has_an_example(public):
    assert re.search(r"^Example:\n +>>> ", inspect.getdoc(public), re.MULTILINE)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'Diffusion'"):
        _ = t2i.Diffusion


def defaults(function):
    return {n: p.default for n, p in inspect.signature(function).parameters.items() if p.default is not p.empty}


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (t2i.Generator, {"size": 64, "width": 128, "noise_dim": 100, "text_dim": 1024, "projection_dim": 128}),
        (t2i.Discriminator, {"size": 64, "width": 64, "text_dim": 1024, "projection_dim": 128, "text_norm": True}),
        (t2i.CharCnnRnn, {"variant": "short", "width": 512, "text_dim": 1024, "first_channels": (384, 512)}),
    ],
)
def test_networks_without_arguments_are_the_papers(make, expected):
    assert expected.items() <= defaults(make).items()


def test_the_papers_networks_have_the_shapes_of_the_readme():
    import torch

    with torch.device("meta"):  # shapes without the work
        images = t2i.Generator()(torch.empty(2, 100), torch.empty(2, 1024))
        assert images.shape == (2, 3, 64, 64)
        assert t2i.Discriminator()(images, torch.empty(2, 1024)).shape == (2,)
        one_hot = torch.empty(2, 70, 201)
        assert t2i.CharCnnRnn()(one_hot).shape == (2, 1024)
        assert t2i.CharCnnRnn(variant="long")(one_hot).shape == (2, 1024)


def test_the_commands_are_installed_and_lead_to_functions():
    scripts = {s.name: s for s in importlib.metadata.entry_points(group="console_scripts") if s.name.startswith("t2i-")}
    assert {"t2i-prepare", "t2i-train", "t2i-generate", "t2i-eval", "t2i-export", "t2i-demo"} <= set(scripts)
    for script in scripts.values():
        assert callable(script.load())


def test_the_version_is_the_distributions_and_the_native_modules():
    import t2i._native

    assert t2i.__version__ == importlib.metadata.version("t2i") == t2i._native.__version__


@pytest.mark.parametrize("change", ["t2i.__version__ = '9.9.9'", "del t2i.__version__"])
def test_a_native_module_of_another_version_is_one_clear_error(change):
    done = subprocess.run(
        [sys.executable, "-c", f"import t2i; {change}; import t2i._native"], capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: t2i's native module is version ")
    assert ("9.9.9" in last) == ("9.9.9" in change)
    assert "install both together" in last


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import t2i", {"torch", "triton", "argparse", "numpy", "PIL", "t2i._native"}),
        ("import t2i; t2i.encode(['a'])", {"torch", "triton", "t2i.cli", "PIL"}),
        (
            "import t2i; t2i.Generator, t2i.Pipeline, t2i.PackedDataset",
            {"triton", "t2i.cli", "t2i.training", "torch._dynamo"},
        ),
    ],
)
def test_importing_costs_only_what_is_used(code, absent):
    listing = f"{code}\nimport sys; print(*sorted(set({sorted(absent)!r}) & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", listing], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
