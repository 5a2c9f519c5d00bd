"""The image of a dry run: labels are the captions of the first batch, in whatever language they were written."""

import pytest

from helpers import tiny_config
from t2i.blossoms.pack import pack_blossoms
from t2i.data.dataset import PackedDataset
from t2i.data.sampler import sampler_from
from t2i.training import dry_run


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_first_batch_is_labelled_with_its_captions_as_they_were_written(tmp_path, monkeypatch, language):
    pack_blossoms(tmp_path, images=60, size=16, show_progress=False, language=language)
    data, config = PackedDataset(tmp_path), tiny_config(captions_per_image=1)
    labels = []
    monkeypatch.setattr(dry_run.grids, "grid", lambda images, captions, **_: labels.extend(captions))
    dry_run._batch_image(config, data)
    written = [caption for image in range(len(data)) for caption in data.captions_of(image)]
    matching = [label.partition(": ")[2] for label in labels if "MISMATCHED" not in label]
    assert matching == [written[row] for row in sampler_from(config, data).plan(0).caption[: dry_run.SHOWN, 0]]
    assert len(labels) == 2 * dry_run.SHOWN
    assert {label.partition(": ")[2] for label in labels} <= set(written)
