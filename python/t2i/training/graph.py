"""A whole step as one CUDA graph: recorded once, replayed from then on, so that no kernel waits for Python.

The first steps run as they are, on a stream of their own, while libraries choose algorithms and allocate; then one step is
recorded, with its inputs in fixed places. From then on a step copies its inputs there and replays. The allocator keeps what
the recording used for the graph alone. Has not been run on a card yet: see docs/method.md.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Inputs = dict[str, Tensor]
WARM = 3  # steps before the recording


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
        self.calls = 0
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: Inputs = {}
        self.outputs: dict[str, Tensor] = {}

    def __call__(self, inputs: Inputs) -> dict[str, Tensor]:
        """Run it; the outputs are valid until the next call."""
        self.calls += 1
        if self.calls <= WARM:
            self.stream.wait_stream(torch.cuda.current_stream(self.device))
            with torch.cuda.stream(self.stream):
                measured = self.function(inputs)
            torch.cuda.current_stream(self.device).wait_stream(self.stream)
            return measured
        if self.graph is None:
            self.inputs = {name: value.clone() for name, value in inputs.items()}
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=self.stream):
                self.outputs = self.function(self.inputs)
            self.graph = graph
        names = list(self.inputs)
        torch._foreach_copy_([self.inputs[name] for name in names], [inputs[name] for name in names])
        self.graph.replay()
        return self.outputs
