"""What kernels share: how one is started, so that torch.compile sees it and Triton's interpreter can run it."""

from typing import Any

from torch.library import wrap_triton
from triton.runtime.jit import JITFunction


def launch(kernel: Any) -> Any:
    """Prepare a kernel for `[grid](...)`: visible to torch.compile on a GPU, as it is in the interpreter.

    A launch goes to the current device, which must be the arguments' (`torch.cuda.device_of`).
    """
    return wrap_triton(kernel) if isinstance(kernel, JITFunction) else kernel
