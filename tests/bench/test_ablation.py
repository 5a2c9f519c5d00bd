"""The paper in miniature (benches/python/paper.py): what is trained, and how the table is laid out."""

from pathlib import Path

import pytest

from helpers import load_script


@pytest.fixture(scope="module")
def paper():
    return load_script("benches/python/paper.py")


@pytest.mark.parametrize(
    ("variant", "mismatch", "interpolation"),
    [("GAN", 0.0, 0.0), ("GAN-CLS", 0.5, 0.0), ("GAN-INT", 0.0, 1.0), ("GAN-INT-CLS", 0.5, 1.0)],
)
def test_a_variant_differs_in_the_papers_two_weights_alone(paper, variant, mismatch, interpolation):
    made = paper.settings_of(variant, 3, 100, 1, Path("out"))
    assert (made.mismatch_weight, made.interpolation_weight) == (mismatch, interpolation)
    assert (made.alignment_weight, made.recovery_weight) == (0.0, 0.0)  # neither is in the paper
    other = paper.settings_of("GAN", 3, 100, 1, Path("out"))
    changed = {name for name in vars(made) if getattr(made, name) != getattr(other, name)}
    assert changed <= {"mismatch_weight", "interpolation_weight"}


def test_the_table_has_mean_and_sample_standard_deviation_over_seeds(paper):
    rows = [{"petal, seen": value, "variation": 0.1} for value in (0.5, 0.6, 0.7)]
    text = paper.table({"GAN": rows, "GAN-CLS": rows[:1] * 3}, 2000, 32, 432)
    lines = text.splitlines()
    assert lines[0] == "| variant | petal, seen | variation |"
    assert lines[2] == "| GAN | 60.0% ± 10.0% | 0.100 ± 0.000 |"
    assert lines[3] == "| GAN-CLS | 50.0% ± 0.0% | 0.100 ± 0.000 |"
    assert "2000 steps of 32 at 32 px, 3 seeds" in text
