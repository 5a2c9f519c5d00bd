"""Staged training: when matching joins, and that a resumed run agrees."""

import copy
import dataclasses

import pytest
import torch

from t2i.config import options as settings
from t2i.config.presets import preset
from t2i.data.dataset import PackedDataset
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.errors import ConfigError
from t2i.training.stages import Stages
from t2i.training.step import GanStep
from t2i.training.text_source import FrozenText


def scores(real: float, fake: float) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(real), torch.tensor(fake)


def test_with_a_number_of_steps_matching_begins_exactly_there():
    stages = Stages(7, goal=0.5)
    assert [stages.matching(step) for step in (0, 6, 7, 1000)] == [False, False, True, True]


def test_without_one_it_waits_until_the_averaged_gap_is_below_the_goal():
    stages = Stages(None, goal=0.5, every=10)
    for step in range(300):  # a discriminator that tells everything apart
        stages.observe(step, *scores(0.95, 0.05))
        assert not stages.matching(step)
    begun = None
    for step in range(300, 600):  # then fakes pass half the time
        stages.observe(step, *scores(0.6, 0.4))
        if begun is None and stages.matching(step + 1):
            begun = step + 1
    # The average is 0.2 + 0.7 * 0.99^n (0.9 has nearly been reached by then): below 0.5 after n = 85 steps, looked at every 10.
    assert begun == 390
    assert stages.matching(10_000)


def test_one_good_batch_is_not_good_enough():
    stages = Stages(None, goal=0.5, every=1)
    for step in range(50):
        stages.observe(step, *scores(0.9, 0.1))
    stages.observe(50, *scores(0.0, 1.0))
    assert not stages.matching(51)


def test_a_decision_survives_a_checkpoint():
    stages = Stages(None, goal=0.99, every=1)
    for step in range(5):
        stages.observe(step, *scores(0.5, 0.5))
    assert stages.matching(5)
    resumed = Stages(None, goal=0.99, every=50)
    resumed.load_state_dict(copy.deepcopy(stages.state_dict()))
    assert resumed.matching(5)
    assert torch.equal(resumed.gap, stages.gap)


def test_mismatched_pairs_are_scored_in_the_second_stage_only(blossoms: PackedDataset):
    config = dataclasses.replace(
        preset("blossoms"),
        size=16,
        generator_width=4,
        discriminator_width=4,
        batch=8,
        noise_dim=4,
        projection_dim=4,
        alignment_weight=0.0,
        mismatch="text",
        stages=True,
        realism_steps=2,
        text=settings.TextOptions(dim=6),
    )
    device = torch.device("cpu")
    table = torch.randn(blossoms.captions, 6, generator=torch.Generator().manual_seed(0))
    gan = GanStep(config, FrozenText(table, None), device, torch.float32)
    loader = Loader(Sampler(blossoms, batch=8, crop=16), device, batch=8, crop=16)
    seen = ["mismatched" in gan(loader.batch(step), step) for step in range(4)]
    assert seen == [False, False, True, True]
    assert "stages" in gan.modules()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"stages": True, "mismatch_weight": 0.0}, "--mismatch-weight 0"),
        ({"realism_steps": 0}, "--realism-steps"),
        ({"realism_goal": 0.0}, "--realism-goal"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        dataclasses.replace(preset("blossoms"), **changes)
