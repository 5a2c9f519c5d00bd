"""The ablation of `modern` (benches/python/ablation.py): what each part changes, and how the table is laid out."""

import argparse
import json
from pathlib import Path

import pytest
import torch

from helpers import load_script
from t2i.metrics.images import ImageResult
from t2i.models.modern import ModernGenerator
from t2i.training import modern_step


@pytest.fixture(scope="module")
def ablation():
    return load_script("benches/python/ablation.py")


def arguments():
    return argparse.Namespace(
        text="runs/text", data="pack", steps=600, batch=16, threads=1, device="cpu", compile="off"
    )


def test_a_part_changes_its_own_settings_alone(ablation):
    base = vars(ablation.settings_of("base", 1, Path("out"), arguments()))
    for part, what in ablation.PARTS.items():
        made = vars(ablation.settings_of(part, 1, Path("out"), arguments()))
        assert {name for name in made if made[name] != base[name]} == set(what.changes)


def test_without_fusion_the_text_reaches_the_first_layer_alone(ablation):
    torch.manual_seed(0)
    generator = ModernGenerator(size=32, width=8).eval()
    joined = torch.randn(2, 32 + generator.text.out_features)
    other = joined.clone()
    other[:, 32:] += 1
    assert not torch.equal(generator.condition(joined), generator.condition(other))
    with ablation.PARTS["fusion"].patch():
        assert torch.equal(generator.condition(joined), generator.condition(other))
        assert not torch.equal(
            generator(joined[:, :32], torch.ones(2, 128)), generator(joined[:, :32], -torch.ones(2, 128))
        )
    assert not torch.equal(generator.condition(joined), generator.condition(other))


def test_without_augmentation_nothing_is_drawn_stronger_than_zero(ablation):
    assert modern_step.Augmentation().translation > 0
    with ablation.PARTS["augmentation"].patch():
        assert set(vars(modern_step.Augmentation()).values()) == {0.0}


def test_both_measures_are_of_images_that_were_generated_once(ablation, tiny_run, tiny_blossoms, monkeypatch):
    seen = []

    def measured(pipe, data, *, sample, **how):
        seen.append((sample, how["split"], how["count"]))
        return ImageResult({"kid_pixels": {"value": 0.002, "real": 0.001}})

    def judged(sample, data, network):
        seen.append((sample, "test", len(sample.generated)))
        return {"generated": {"caption": 0.5}, "real": {"caption": 0.75}}

    monkeypatch.setattr(ablation, "images_of_pipeline", measured)
    monkeypatch.setattr(ablation, "judge_images", judged)
    monkeypatch.setattr(ablation.FeatureNetwork, "load", lambda path: torch.nn.Identity())
    args = argparse.Namespace(device="cpu", count=7, features="any.safetensors")
    found = ablation.evaluate(tiny_run, tiny_blossoms, args)
    assert found == {"generated": {"kid_pixels": 2.0, "caption": 0.5}, "real": {"kid_pixels": 1.0, "caption": 0.75}}
    (one, *how), (two, *other) = seen
    assert one is two
    assert how == other == ["test", 7]


def test_the_table_has_mean_and_range_over_seeds(ablation, tmp_path):
    for seed, fid in ((0, 0.9), (1, 1.1)):
        figures = dict.fromkeys(ablation.COLUMNS, 0.5) | {"fid_768": fid}
        folder = tmp_path / f"base-{seed}"
        folder.mkdir()
        (folder / "figures.json").write_text(json.dumps({"generated": figures, "real": figures | {"fid_768": 0.2}}))
    lines = ablation.table(*ablation.collect(tmp_path)).splitlines()
    assert lines[0].startswith("| | n | FID-768 (real 0.200) |")
    assert lines[2].startswith("| `modern` | 2 | 1.000 (0.900 .. 1.100) | 0.50 (0.50 .. 0.50) |")
    assert len(lines) == 3
