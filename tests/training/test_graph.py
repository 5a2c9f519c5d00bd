"""A step that cannot be recorded as a CUDA graph, with CUDA's part played by this file; tests/card has it refused for real."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from t2i.training.graph import WARM, Captured

CPU = torch.device("cpu")


@pytest.fixture
def recording(monkeypatch):
    """Streams that do nothing, and a recording that fails as CUDA lets it fail where `error` says so."""
    played = SimpleNamespace(error=None, replays=0)
    stream = SimpleNamespace(wait_stream=lambda other: None)

    def replay():
        played.replays += 1

    @contextlib.contextmanager
    def graph(graph, stream):
        yield
        if played.error is not None:
            raise played.error

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: SimpleNamespace(replay=replay))
    monkeypatch.setattr(torch.cuda, "graph", graph)
    return played


def test_the_first_steps_run_one_is_recorded_and_the_rest_replayed(recording):
    calls = []
    captured = Captured(lambda inputs: calls.append(1) or {"y": inputs["x"] * 2}, CPU)
    for _ in range(WARM + 3):
        captured({"x": torch.ones(1)})
    assert (len(calls), recording.replays) == (WARM + 1, 3)


def test_a_step_that_cannot_be_recorded_runs_as_it_is_with_one_warning(recording, capsys):
    recording.error = RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
    captured = Captured(lambda inputs: {"y": inputs["x"] * 2}, CPU)
    for number in range(WARM + 4):
        assert float(captured({"x": torch.tensor(float(number))})["y"]) == 2.0 * number
    assert recording.replays == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 1
    assert "operation not permitted when stream is capturing" in warnings[0]
    assert warnings[0].endswith("it runs without one")


def test_an_error_of_the_step_itself_is_no_refusal_of_the_recording(recording):
    def broken(inputs):
        raise ValueError("a bug")

    captured = Captured(broken, CPU)
    with pytest.raises(ValueError, match="a bug"):
        captured({"x": torch.ones(1)})
