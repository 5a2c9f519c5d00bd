"""Device, precision, and draws that depend on nothing but what they are for."""

import ctypes
import functools
import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

from t2i.errors import ConfigError

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
PROBE = 768  # side of the matrices whose product is timed: a few milliseconds
BFLOAT16_GAIN = 0.85  # of the time of float32: bfloat16 must be below it, since what is between products takes longer
MOST_THREADS = 256  # or one a core: a run of a large machine resumes on a small one, and the system starts so many
LARGEST_HEAP_BLOCK = 32 * 2**20  # bytes; mallopt refuses more

# Of torch.compile's code generator. Independent small kernels are joined; a value that several kernels need is computed again
# by each, from bfloat16 maps, and not written and read in float32 (the gradient behind an activation: 2 GB a step at 512).
INDUCTOR: dict[str, Any] = {
    "combo_kernels": True,
    "realize_opcount_threshold": 200,
    "realize_reads_threshold": 16,
    "realize_acc_reads_threshold": 32,
}

DEVICES = "auto, cpu, cuda, cuda:N or mps"
P = ParamSpec("P")
T = TypeVar("T")


def pick_device(name: str) -> torch.device:
    """Turn a --device flag into a device; "auto" prefers CUDA, then Apple's GPU. ConfigError where there is no such device."""
    if name == "auto":
        found = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        return torch.device(found)
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"--device must be {DEVICES}, got {name!r}") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise ConfigError(f"--device must be {DEVICES}, got {name!r}")
    if device.type == "cuda" and (not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()):
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        raise ConfigError(f"--device {name}: {count} CUDA devices found; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError(f"--device {name}: this machine or this PyTorch has no Apple GPU; use --device cpu")
    if device.type == "cuda":
        _prepare(device)
    return device


def _prepare(device: torch.device) -> None:
    """Settle what a process does on its GPU, before the first product.

    Kernels, streams and graphs that name no device go to the current one, which is therefore made the one that was asked for.
    float32 means IEEE float32, in convolutions too, where torch's default is TF32 (10 bits of mantissa): measures and tests
    rely on it. Training in bfloat16 takes it back (`allow_tf32`).
    """
    if device.index is not None:
        torch.cuda.set_device(device)
    _set_float32("ieee")
    # Shapes are fixed: cuDNN tries its algorithms once. Which is the fastest differs from run to run, and so do its bits: not
    # where `make_deterministic` came before (a command settles its device more than once).
    torch.backends.cudnn.benchmark = not torch.are_deterministic_algorithms_enabled()


def allow_tf32(precision: torch.dtype) -> None:
    """Let what a bfloat16 training leaves in float32 (the frozen features) multiply in TF32, which is more precise still."""
    if precision is torch.bfloat16 and torch.cuda.is_available():
        _set_float32("tf32")


def _set_float32(precision: str) -> None:
    """Set how float32 products and convolutions are computed on a GPU: "ieee" or "tf32"."""
    torch.backends.cudnn.conv.fp32_precision = precision  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = precision


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """Turn a --precision flag into a dtype; "auto" is bfloat16 where it is faster, else float32."""
    if name == "auto":
        if device.type == "cuda":
            fast = torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = device.type == "cpu" and _bfloat16_is_faster()
        return torch.bfloat16 if fast else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32


@functools.cache
def _bfloat16_is_faster() -> bool:
    """Time a matrix product of this CPU in both precisions, once a process.

    Having the instruction says little: with AMX bfloat16 is many times as fast as float32, on AMD's cores with AVX512-BF16
    twice, on Intel's without AMX half.
    """
    if not (torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported()):
        return False  # it is emulated
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        one = torch.ones(PROBE, PROBE, dtype=dtype)
        found = []
        for _ in range(4):
            start = time.perf_counter()
            one @ one
            found.append(time.perf_counter() - start)
        seconds[dtype] = min(found)
    return seconds[torch.bfloat16] < BFLOAT16_GAIN * seconds[torch.float32]


def make_deterministic() -> None:
    """Let torch choose only algorithms that give equal bits in every run; after `pick_device`, before the first product.

    Two runs on an H200 differed all the same, while cuDNN still tried its algorithms; they have not been repeated since.

    Without the filling of every new tensor with NaN that torch does beside (it added 62% to the launches of a step): nothing
    here reads what it has not written.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for to be deterministic
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch._inductor.config.deterministic = True


def use_threads(count: int) -> None:
    """Compute on so many CPU threads; 0 leaves PyTorch's default.

    Raises:
        ConfigError: more than a process can be expected to start.
    """
    cores = os.cpu_count() or 1
    most = max(MOST_THREADS, cores)
    if not 0 <= count <= most:
        raise ConfigError(
            f"--threads {count}: this machine has {cores} cores; choose 1 to {most}, or 0 for PyTorch's default"
        )
    if count:
        torch.set_num_threads(count)


def peak_memory() -> int:
    """Return how many bytes of memory this process has held at most; 0 on a system that does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _after_fork() -> None:
    """Compute on one thread in a forked child: those of torch's pool stay behind, and a child would wait for them for ever."""
    torch.set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next step, instead of giving it back to the system.

    A step frees and allocates the same maps again; glibc gives blocks of more than 128 KiB back each time, and every page of
    them is then faulted in and zeroed anew: 9,039 page faults a step of the modern generator (batch 16, 64 px), a fifth of its
    CPU time. The process keeps its peak. Does nothing where the library is another.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_HEAP_BLOCK)
    mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[None]:
    """Run matrix products and convolutions in `dtype`, and the rest in float32.

    Without a cache of cast weights on a GPU: a CUDA graph must see every cast, and compiled code has its own.
    """
    enabled = dtype is torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled, cache_enabled=device.type == "cpu")


def compiled(function: Callable[P, T], name: str) -> Callable[P, T]:
    """Compile a function whole, for fixed shapes; where that fails, go on with the function as it is and say so once.

    Its backward pass is compiled with it, in the first call, and not when a gradient is first asked for: a failure there would
    be past catching.

    Args:
        function: Without side effects but those of batch normalisation; it is traced when first called.
        name: For the warning.
    """
    fast = torch.compile(function, fullgraph=True, dynamic=False, options=INDUCTOR)
    with_backward = torch._functorch.config.patch(force_non_lazy_backward_lowering=True)
    failed = False

    def run(*arguments: P.args, **options: P.kwargs) -> T:
        nonlocal failed
        if not failed:
            try:
                with with_backward:
                    return fast(*arguments, **options)
            except (torch._dynamo.exc.TorchDynamoException, ImportError, FileNotFoundError) as error:
                failed = True
                reason = " ".join(str(error).split())[:200] or type(error).__name__
                print(f"warning: {name} could not be compiled ({reason}); it runs uncompiled", file=sys.stderr)
        return function(*arguments, **options)

    return run


def generator(device: torch.device, seed: int, step: int, purpose: str) -> torch.Generator:
    """Make the random generator of one draw: a pure function of (seed, step, purpose), so that resuming needs no state."""
    digest = hashlib.sha256(f"{seed}/{step}/{purpose}".encode()).digest()
    return torch.Generator(device).manual_seed(int.from_bytes(digest[:8], "little") >> 1)


@contextmanager
def seeded(device: torch.device, seed: int, step: int, purpose: str) -> Iterator[None]:
    """Seed torch's own generators inside by (seed, step, purpose), for what takes no other (dropout); restored after it."""
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(generator(torch.device("cpu"), seed, step, purpose).initial_seed())
        yield


def noise(shape: tuple[int, ...], device: torch.device, seed: int, step: int, purpose: str) -> Tensor:
    """Draw N(0, I) of `shape` on `device` for (seed, step, purpose)."""
    return torch.randn(shape, generator=generator(device, seed, step, purpose), device=device)
