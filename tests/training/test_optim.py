"""Schedules and averages."""

import pytest
import torch
from torch import nn

from t2i.training import optim


@pytest.mark.parametrize(
    ("step", "every", "factor"),
    [
        (0, 100, 1.0),
        (98 * 10 + 9, 100, 1.0),  # last step of epoch 99
        (99 * 10, 100, 0.5),  # first step of epoch 100: epochs count from 1
        (199 * 10, 100, 0.25),
        (39 * 10, 40, 0.5),
        (10**6, 0, 1.0),
    ],
)
def test_learning_rate_halves_at_the_start_of_every_hundredth_epoch(step, every, factor):
    assert optim.halving_schedule(2e-4, step, 10, every) == pytest.approx(2e-4 * factor)


def test_average_follows_weights_and_running_statistics():
    model, average = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
    with torch.no_grad():
        model.weight.fill_(3.0)
        model.running_mean.fill_(5.0)
        model.num_batches_tracked.fill_(7)
    optim.update_ema(average, model, optim.ema_rate(0.9, step=10**6))
    assert average.weight[0].item() == pytest.approx(1 + 0.1 * 2)
    assert average.running_mean[0].item() == pytest.approx(0.5)
    assert average.num_batches_tracked.item() == 7


def test_average_forgets_the_random_start_at_once():
    model, average = nn.Linear(1, 1), nn.Linear(1, 1)
    optim.update_ema(average, model, optim.ema_rate(0.999, step=0))
    assert average.weight.item() == pytest.approx(0.9 * model.weight.item() + 0.1 * average.weight.item(), abs=1)
    for step in range(200):
        optim.update_ema(average, model, torch.tensor(optim.ema_rate(0.999, step)))  # as a GPU has it
    assert average.weight.item() == pytest.approx(model.weight.item(), rel=1e-3)
