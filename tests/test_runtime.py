"""What a process settles before its first product, and what compiling falls back to."""

import functools
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from torch._dynamo.backends.common import aot_autograd

from t2i import runtime
from t2i.errors import ConfigError


@pytest.fixture
def two_cards(monkeypatch):
    """A machine with two CUDA devices, as far as choosing one goes; holds which was made the current one."""
    chosen = SimpleNamespace(current=0)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: setattr(chosen, "current", torch.device(device).index))
    flags = [torch.backends.cudnn.conv, torch.backends.cuda.matmul]
    before = [flag.fp32_precision for flag in flags]
    benchmark = torch.backends.cudnn.benchmark
    yield chosen
    for flag, value in zip(flags, before, strict=True):
        flag.fp32_precision = value
    torch.backends.cudnn.benchmark = benchmark


def test_the_device_that_is_asked_for_is_the_one_that_kernels_go_to(two_cards):
    """Triton, streams and graphs use the current device: --device cuda:1 launched on cuda:0."""
    assert runtime.pick_device("cuda:1") == torch.device("cuda:1")
    assert two_cards.current == 1


@pytest.mark.parametrize(("precision", "expected"), [(torch.float32, "ieee"), (torch.bfloat16, "tf32")])
def test_float32_is_ieee_float32_unless_a_training_is_in_bfloat16(two_cards, precision, expected):
    torch.backends.cudnn.conv.fp32_precision = "tf32"  # as torch starts
    runtime.pick_device("cuda")
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == "ieee"
    runtime.allow_tf32(precision)
    assert torch.backends.cudnn.conv.fp32_precision == torch.backends.cuda.matmul.fp32_precision == expected


def test_cudnn_tries_its_algorithms_once_because_shapes_are_fixed(two_cards):
    torch.backends.cudnn.benchmark = False
    runtime.pick_device("cuda")
    assert torch.backends.cudnn.benchmark


def test_settling_the_device_again_leaves_a_deterministic_run_deterministic(two_cards, monkeypatch):
    """Two runs of one seed differed on an H200: the device is settled again after the algorithms were."""
    torch.backends.cudnn.benchmark = False
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    runtime.pick_device("cuda")
    assert not torch.backends.cudnn.benchmark


def test_deterministic_algorithms_do_not_fill_new_memory():
    """In a process of its own: the fill was 62% more launches a step."""
    program = (
        "import json, torch; from t2i import runtime; runtime.make_deterministic();"
        "print(json.dumps([torch.are_deterministic_algorithms_enabled(), torch._inductor.config.deterministic,"
        "torch.backends.cudnn.benchmark, torch.utils.deterministic.fill_uninitialized_memory]))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [True, True, False, False]


def test_a_backward_pass_that_cannot_be_compiled_falls_back_with_one_warning(monkeypatch, capsys):
    """It used to be compiled when a gradient was first asked for, where nothing could catch its failure."""

    def fail(graph, inputs):
        raise RuntimeError("this backward pass cannot be compiled")

    backend = aot_autograd(fw_compiler=lambda graph, inputs: graph, bw_compiler=fail)
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))

    def square(x):
        return (x * x).sum()

    run, x = runtime.compiled(square, "this function"), torch.tensor([3.0], requires_grad=True)
    for _ in range(2):
        x.grad = None
        run(x).backward()
        assert float(x.grad) == 6.0
    warnings = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")]
    assert len(warnings) == 1
    assert "this backward pass cannot be compiled" in warnings[0]
    assert warnings[0].endswith("it runs uncompiled")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_fastest_device_there_is(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert runtime.pick_device("auto").type == expected


def test_apples_gpu_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ConfigError, match=r"--device mps: .* has no Apple GPU; use --device cpu"):
        runtime.pick_device("mps")
    with pytest.raises(ConfigError, match="must be auto, cpu, cuda, cuda:N or mps"):
        runtime.pick_device("xpu")


def test_apples_gpu_computes_in_float32(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    device = runtime.pick_device("mps")
    assert runtime.pick_precision("auto", device) is torch.float32
    with runtime.autocast(device, torch.float32):
        assert not torch.is_autocast_enabled("mps")
