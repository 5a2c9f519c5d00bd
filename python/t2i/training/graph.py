"""A whole step as one CUDA graph: recorded once, replayed from then on, so that no kernel waits for Python.

The first steps run as they are, on a stream of their own, while libraries choose algorithms and allocate; then one step is
recorded, with its inputs in fixed places. From then on a step copies its inputs there and replays. The allocator keeps what
the recording used for the graph alone. A step that cannot be recorded is run as it is from then on, with one warning. Figures
of a card: docs/method.md.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
WARM = 3  # steps before the recording


def scalar_input(value: float, captured: "Captured | None") -> Tensor:
    """Make an input () of a number that changes from step to step: on the device, where a recording is to see it change."""
    made = torch.tensor(value)
    return made if captured is None else made.to(captured.device, non_blocking=True)


class Captured:
    """Run a function of named tensors, from its fourth call on by replaying a recording.

    Args:
        function: Reads its inputs and whatever it changes (weights, moments, statistics) in place; the same shapes, names and
            control flow in every call; waits for nothing.
        device: A CUDA device.
    """

    def __init__(self, function: Callable[[Inputs], dict[str, Tensor]], device: torch.device) -> None:
        self.function, self.device = function, device
        self.stream = torch.cuda.Stream(device)
        self.calls, self.failed = 0, False
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Inputs = {}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run it; the outputs are valid until the next call."""
        self.calls += 1
        if self.calls <= WARM or self.failed:
            return self._run(inputs)
        if self.graph is None and not self._record(inputs):
            return self._run(inputs)
        assert self.graph is not None
        names = list(self.inputs)
        torch._foreach_copy_([self.inputs[name] for name in names], [inputs[name] for name in names])
        self.graph.replay()
        return self.outputs

    def _run(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run the function as it is, on the recording's stream."""
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            measured = self.function(inputs)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return measured

    def _record(self, inputs: Inputs) -> bool:
        """Record a call, which computes nothing yet; say whether that worked."""
        self.inputs = {name: value.clone() for name, value in inputs.items()}
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph, stream=self.stream):
                self.outputs = self.function(self.inputs)
        except RuntimeError as error:  # what CUDA refuses in a recording: waits, copies from pageable memory, ...
            self.failed = True
            self.inputs, self.outputs = {}, {}
            reason = str(error).strip().partition("\n")[0][:200]
            print(
                f"warning: a step could not be captured as a CUDA graph ({reason}); it runs without one",
                file=sys.stderr,
            )
            return False
        self.graph = graph
        return True
