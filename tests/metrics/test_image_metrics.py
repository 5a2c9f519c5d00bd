"""The feature network, diversity, and `t2i-eval images` as a whole."""

import json
import shutil
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load, load_file, save, save_file

import t2i
from helpers import SHARED, call
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.data.dataset import PackedDataset
from t2i.errors import CheckpointError, ConfigError, ScorerError
from t2i.metrics import captions, diversity, fidelity, figures, images, retrieval, scoring
from t2i.metrics.fid import Gaussian, frechet_distance
from t2i.metrics.inception import FeatureNetwork, features_of, resize_as_tensorflow
from t2i.metrics.inputs import center_crop
from t2i.metrics.scoring import sample_images
from t2i.models.encoders import ImageEncoder
from t2i.weights import save_weights

FILE = SHARED / "inception-2015-12-05-to-mixed7.safetensors"
needs_file = pytest.mark.skipif(not FILE.exists(), reason="../shared/data has no feature network on this machine")


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def slow_resize(image, side):
    """TensorFlow 1's rule, a pixel at a time: no half-pixel centres, the last row and column repeated."""
    height, width, _ = image.shape
    out = np.empty((side, side, 3))
    for y in range(side):
        for x in range(side):
            up, left = y * height / side, x * width / side
            top, near = int(up), int(left)
            bottom, far = min(top + 1, height - 1), min(near + 1, width - 1)
            above = image[top, near] * (1 - left + near) + image[top, far] * (left - near)
            below = image[bottom, near] * (1 - left + near) + image[bottom, far] * (left - near)
            out[y, x] = above * (1 - up + top) + below * (up - top)
    return out


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(4, 4, 10), (7, 5, 31), (20, 30, 9), (1, 1, 3), (6, 6, 6)],  # enlarged, uneven, reduced, one pixel, the same
)
def test_pictures_are_resized_as_tensorflow_1_does(height, width, side):
    pictures = noise(2, height, width, 3)
    found = resize_as_tensorflow(torch.from_numpy(pictures), side)
    assert found.shape == (2, 3, side, side)
    for picture, resized in zip(pictures, found, strict=True):
        np.testing.assert_allclose(resized.permute(1, 2, 0), slow_resize(picture.astype(float), side), atol=1e-3)


def test_the_resize_keeps_the_first_pixel_in_place():
    ramp = torch.tensor([0, 100], dtype=torch.uint8).view(1, 1, 2, 1).expand(1, 2, 2, 3)
    assert resize_as_tensorflow(ramp, 4)[0, 0, 0].tolist() == [0, 50, 100, 100]  # half-pixel centres: 0, 25, 75, 100


def test_the_network_has_the_layers_of_the_data_notes():
    layers = FeatureNetwork().layers
    assert len(layers) == 70
    assert sum(weight.numel() for weight in layers.parameters()) == 8_956_448
    odd = {
        "conv": ((32, 3, 3, 3), (2, 2), (0, 0)),
        "conv_2": ((64, 32, 3, 3), (1, 1), (1, 1)),
        "mixed_1_tower_conv_1": ((64, 48, 5, 5), (1, 1), (2, 2)),
        "mixed_3_tower_conv_2": ((96, 96, 3, 3), (2, 2), (0, 0)),
        "mixed_5_tower_1_conv_3": ((160, 160, 7, 1), (1, 1), (3, 0)),
        "mixed_7_tower_2_conv": ((192, 768, 1, 1), (1, 1), (0, 0)),
    }
    for name, expected in odd.items():
        layer = layers[name]
        assert (tuple(layer.weight.shape), layer.stride, layer.padding) == expected, name


def test_the_network_equals_torch_fidelitys_where_that_is_installed(monkeypatch, tmp_path):
    """With random weights in torch-fidelity's network, the feature file that is written from it gives its features."""
    rival = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    monkeypatch.setattr(rival, "load_state_dict_from_url", lambda *args, **named: {})
    monkeypatch.setattr(rival.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
    torch.manual_seed(0)
    theirs = rival.FeatureExtractorInceptionV3("rival", ["768"]).eval()
    for block in theirs.modules():
        if isinstance(block, rival.BasicConv2d):
            torch.nn.init.kaiming_normal_(block.conv.weight, nonlinearity="relu")
            for values in (block.bn.bias, block.bn.running_mean):
                torch.nn.init.uniform_(values, -0.1, 0.1)
            torch.nn.init.uniform_(block.bn.running_var, 0.8, 1.2)
    monkeypatch.setattr(rival, "FeatureExtractorInceptionV3", lambda name, layers: theirs)
    fidelity.write_feature_file(tmp_path / "features.safetensors")
    pictures = torch.from_numpy(noise(1, 40, 30, 3))
    with torch.no_grad():
        expected = theirs(pictures.permute(0, 3, 1, 2))[0]
        found = FeatureNetwork.load(tmp_path / "features.safetensors")(pictures)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


BROKEN = {
    "a layer is missing": (
        lambda tensors: {k: t for k, t in tensors.items() if not k.startswith("mixed_5_tower_conv_1.")},
        r"layer 'mixed_5_tower_conv_1' has no weight \(2 of 140 tensors are missing\)",
    ),
    "a bias is missing": (
        lambda tensors: {k: t for k, t in tensors.items() if k != "conv.bias"},
        r"layer 'conv' has no bias \(1 of 140",
    ),
    "another shape": (
        lambda tensors: {**tensors, "conv_3.weight": torch.zeros(80, 64, 3, 3)},
        r"conv_3.weight must be \(80, 64, 1, 1\), got \(80, 64, 3, 3\)",
    ),
    "another network": (
        lambda tensors: {"generator.weight": torch.zeros(1)},
        r"layer 'conv' has no weight \(140 of 140",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_feature_file_that_does_not_fit_names_the_layer(tmp_path, name):
    spoil, message = BROKEN[name]
    tensors = {key: t.expand_as(t).clone() for key, t in FeatureNetwork().layers.state_dict().items()}
    save_file(spoil(tensors), tmp_path / "features.safetensors")
    with pytest.raises(CheckpointError, match=message) as error:
        FeatureNetwork.load(tmp_path / "features.safetensors")
    assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def network():
    return FeatureNetwork.load(FILE)


@pytest.fixture(scope="module")
def flowers(oxford102):
    """Four photographs each of six classes, 96 px: (24, 96, 96, 3), and their classes."""
    folders = sorted((oxford102 / "text_c10").iterdir())[:6]
    names = [path.stem for folder in folders for path in sorted(folder.glob("*.txt"))[:4]]
    read = [np.asarray(Image.open(oxford102 / "jpg" / f"{name}.jpg").convert("RGB")) for name in names]
    return np.stack(read), torch.arange(24) // 4


@pytest.fixture(scope="module")
def flower_features(network, flowers):
    return features_of(network, flowers[0], 8)


@needs_file
def test_the_nearest_neighbour_of_a_flower_is_mostly_of_its_class(flower_features, flowers):
    directions = F.normalize(flower_features - flower_features.mean(0), dim=1)
    nearest = (directions @ directions.T).fill_diagonal_(-2).argmax(1)
    assert (flowers[1][nearest] == flowers[1]).float().mean() > 0.5  # chance 3 of 23


@needs_file
@pytest.mark.timeout(400)  # a network over hundreds of images, on whatever the machine leaves it
def test_noise_and_blur_are_farther_the_stronger_they_are(network, flowers, flower_features):
    clean = flowers[0][::4]  # (6, 96, 96, 3)
    grain = np.random.default_rng(0).standard_normal(clean.shape)

    def distance(changed):
        return frechet_distance(Gaussian.of(flower_features[::4]), Gaussian.of(features_of(network, changed, 6)))

    def blurred(side):
        small = [Image.fromarray(p).resize((side, side), Image.Resampling.BOX).resize((96, 96)) for p in clean]
        return np.stack([np.asarray(picture) for picture in small])

    noisy = [distance((clean + grain * strength).clip(0, 255).astype(np.uint8)) for strength in (10, 40)]
    blurry = [distance(blurred(side)) for side in (48, 16)]
    assert 0.01 < noisy[0] < 0.5 * noisy[1]
    assert 0.01 < blurry[0] < 0.5 * blurry[1]


def test_pixel_distance_is_the_root_mean_square_over_pairs():
    groups = np.zeros((2, 3, 2, 2, 3), np.uint8)
    groups[0, 1] = 51  # 0.2 of 255: pairs at 0.2, 0, 0.2
    groups[1, 2] = 255  # pairs at 0, 1, 1
    assert diversity.pixel_distances(groups) == pytest.approx((0.4 / 3 + 2 / 3) / 2)


def test_feature_distance_is_one_minus_the_cosine_round_the_centre():
    centre = torch.tensor([5.0, 5.0])
    group = centre + torch.tensor([[1.0, 0], [0, 3], [-2, 0]])  # cosines 0, -1, 0
    assert diversity.feature_distances(group[None], centre) == pytest.approx((1 + 2 + 1) / 3)


def test_a_group_of_one_has_no_diversity():
    with pytest.raises(ConfigError, match=r"at least 2 images, got \(3, 1\)"):
        diversity.pixel_distances(np.zeros((3, 1, 2, 2, 3), np.uint8))


def test_groups_are_distinct_pictures_of_one_class():
    classes = np.array([0] * 6 + [1] * 3 + [2] * 9)
    groups = diversity.groups_of_one_class(classes, 40, 4, seed=0)
    assert groups.shape == (40, 4)
    assert all(len(set(row)) == 4 for row in groups)
    assert {tuple(set(classes[row])) for row in groups} == {(0,), (2,)}  # class 1 has too few
    assert diversity.groups_of_one_class(classes, 40, 10, seed=0).shape == (0, 10)


CONFIG = TrainConfig(
    size=16,
    generator_width=8,
    noise_dim=4,
    projection_dim=8,
    text=TextOptions(width=8, channels=(8, 8), dim=16, objective="contrastive"),
)


@pytest.fixture
def run(tmp_path, tiny_blossoms):
    """A run folder of random networks, with a copy of its data set beside it."""
    shutil.copytree(tiny_blossoms.path, tmp_path / "pack")
    folder = tmp_path / "run"
    folder.mkdir()
    torch.manual_seed(0)
    text = t2i.CharCnnRnn("short", 8, 16, (8, 8))
    save_weights(folder / "model.safetensors", {"generator": t2i.Generator(16, 8, 4, 16, 8), "text": text})
    save_weights(folder / "text.safetensors", {"text": text, "image": ImageEncoder(16, 4, 16)})
    (folder / "config.json").write_text(to_json(CONFIG))
    facts = {"fingerprint": tiny_blossoms.fingerprint, "path": str(tmp_path / "pack"), "images": 150}
    (folder / "data.json").write_text(json.dumps(facts))
    return folder


class Probe:
    """Caption accuracy without a probe to train."""

    figures = {"measure": "caption accuracy", "accuracy": {"generated": {"petal_colour": 0.5}}}  # noqa: RUF012

    def table(self):
        return "petals 50%"


FEW = 12  # features: distances of 768 take seconds


@pytest.fixture
def cheap(monkeypatch, tmp_path):
    """Features of the mean colours in place of the network's, with a count of the pictures read, and no probe."""
    read = []

    def features(network, pictures, batch=32, title=""):
        read.append(len(pictures))
        return torch.from_numpy(pictures).float().view(len(pictures), -1)[:, :FEW] / 255

    asked = []
    for module in (images, scoring):
        monkeypatch.setattr(module, "features_of", features)
        monkeypatch.setattr(module, "FEATURES", FEW)
    monkeypatch.setattr(images.FeatureNetwork, "load", classmethod(lambda cls, path: torch.nn.Identity()))
    monkeypatch.setattr(retrieval, "check_scorer", lambda real, images: None)  # the networks are random
    monkeypatch.setattr(captions, "caption_accuracy_of_run", lambda run, **named: asked.append(named) or Probe())
    swap = {"petals": 0.5, "centres": 0.5, "both": 0.25, "protocol": {"pairs": 4}}
    monkeypatch.setattr(images, "swap_test", lambda pipe, **named: swap)
    (tmp_path / "features.safetensors").write_bytes(b"network")
    return types.SimpleNamespace(read=read, asked=asked, file=tmp_path / "features.safetensors")


def command(run, *flags):
    return call("t2i-eval", "images", "--model", run, "--device", "cpu", *flags)


def figures_of(result):
    code, out, err = result
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


def test_every_figure_stands_beside_its_protocol(run, cheap):
    code, out, err = command(run, "--count", 20, "--features", cheap.file, "--split", "all", "--captions", 30, "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    names = [
        "fid_768",
        "kid_768",
        "precision",
        "recall",
        "density",
        "coverage",
        "kid_pixels",
        "copies",
        "r_precision",
        "diversity_pixels",
        "diversity_features",
    ]
    for name in names:
        protocol = found[name]["protocol"]
        assert np.isfinite(found[name]["value"]), name
        assert "diversity" in name or np.isfinite(found[name]["real"]), name  # of 20 images no class has 4
        expected = {
            "generated": 20,
            "real": 20,
            "split": "all",
            "size": 16,
            "seed": 0,
            "real_images": "middle 16 of 19 px",
        }
        assert expected.items() <= protocol.items(), name
    assert "768 features" in found["fid_768"]["protocol"]["features"]
    assert found["r_precision"]["protocol"]["mismatched"] == 99
    assert found["r_precision"]["protocol"]["compared_by"] == "cosine"
    assert not found["r_precision"]["protocol"]["independent"]
    assert found["protocol"]["further_real"] == 20
    assert found["not_measured"] == {}
    assert found["caption_accuracy"] == Probe.figures
    assert cheap.asked == [{"captions": 30, "seed": 0, "device": "cpu", "language": "en"}]
    for title in (
        "FID-768",
        "KID-768",
        "R-precision",
        "diversity, pixels",
        "petals 50%",
        "20 generated and 20 real",
        "seed 0",
    ):
        assert title in out


def spoilt(data):
    return data[:-1] + bytes([data[-1] ^ 1])


def without_checksum(data):
    return save({"evaluation-features": load(data)["evaluation-features"] * 0})


def test_the_features_of_real_pictures_are_kept_beside_the_pack(run, cheap):
    flags = ("--count", 20, "--split", "all", "--features", cheap.file, "--json")
    first = figures_of(command(run, *flags))
    kept = list((run.parent / "pack").glob("evaluation-features-*.safetensors"))
    assert [load_file(each)["evaluation-features"].shape for each in kept] == [(20, FEW)] * 2  # and further ones
    cheap.read.clear()
    assert figures_of(command(run, *flags)) == first
    assert cheap.read == [20, 80]  # generated, and 20 x 4 for diversity: no real ones
    for other in (("--seed", 1), ("--count", 19)):
        cheap.read.clear()
        command(run, *flags, *other)
        assert len(cheap.read) == 4, other
    cheap.file.write_bytes(b"another network")
    cheap.read.clear()
    command(run, *flags)
    assert len(cheap.read) == 4
    cheap.file.write_bytes(b"network")
    for spoil in (spoilt, without_checksum):  # a file of a broken run is not used, however well it reads
        for file in (run.parent / "pack").glob("evaluation-features-*"):
            file.write_bytes(spoil(file.read_bytes()))
        cheap.read.clear()
        assert figures_of(command(run, *flags)) == first
        assert len(cheap.read) == 4
    assert PackedDataset(run.parent / "pack", verify=True).images == 150


def test_a_seed_draws_the_same_pictures_and_another_seed_others(run):
    pipe, pack = t2i.Pipeline.from_pretrained(run), PackedDataset(run.parent / "pack")
    one, same, other = (sample_images(pipe, pack, "train", 12, seed) for seed in (0, 0, 1))
    assert (one.generated == same.generated).all()
    assert (one.chosen == same.chosen).all()
    assert (one.chosen != other.chosen).any()
    assert set(one.chosen) <= set(pack.split("train"))
    owner = np.searchsorted(pack.caption_offsets, one.captions, side="right") - 1
    assert (one.chosen[one.own] == owner).all()  # each caption's own picture
    assert one.several.shape == (12, 4, 16, 16, 3)


def test_five_captions_in_turn_share_their_noise(run, monkeypatch):
    drawn = []
    monkeypatch.setattr(scoring, "generate", lambda pipe, noise, text: drawn.append(noise) or np.zeros((len(noise), 2)))
    sample_images(t2i.Pipeline.from_pretrained(run), PackedDataset(run.parent / "pack"), "train", 12, 0)
    noise = max(drawn, key=len).unflatten(0, (12, 4))
    for first, last in ((0, 5), (5, 10), (10, 12)):
        assert (noise[first:last] == noise[first]).all()
    assert len(noise.flatten(0, 1).unique(dim=0)) == 3 * 4


def test_images_are_regrouped_by_their_noise():
    captions, noises = np.arange(12)[:, None], np.arange(4)[None]
    several = np.stack(
        [captions + 0 * noises, captions // diversity.SHARED * 4 + noises], axis=2
    )  # (12, 4, 2): caption, noise
    found = diversity.by_noise(several)
    assert found.shape == (8, diversity.SHARED, 2)  # the captions behind the last whole block are left out
    assert (found[..., 1] == np.arange(8)[:, None]).all()
    assert sorted(found[..., 0].ravel()) == sorted(list(range(10)) * 4)
    assert diversity.by_noise(torch.from_numpy(several)).tolist() == found.tolist()
    assert diversity.by_noise(several[:3]).shape == (4, 3, 2)


def test_more_pictures_than_the_split_has_begin_anew(run):
    pipe, pack = t2i.Pipeline.from_pretrained(run), PackedDataset(run.parent / "pack")
    split = pack.split("test")
    found = sample_images(pipe, pack, "test", 2 * len(split) + 1, 0)
    assert (found.chosen == split).all()
    assert sorted(np.bincount(found.own)) == [2] * (len(split) - 1) + [3]


def test_what_cannot_be_measured_is_said(run, cheap):
    (run / "text.safetensors").unlink()
    code, out, err = command(run, "--count", 20, "--split", "all", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert "fid_768" not in found
    assert "r_precision" not in found
    assert "not measured: FID-768 and KID-768: give the feature network: --features FILE (docs/metrics.md)" in out
    assert "not measured: R-precision:" in out
    assert "has no joint embedding (no text.safetensors)" in found["not_measured"]["R-precision"]


def test_caption_accuracy_is_for_blossoms_only(run, cheap):
    manifest = json.loads((run.parent / "pack" / "pack.json").read_text())
    manifest["provenance"]["kind"] = "folder"
    (run.parent / "pack" / "pack.json").write_text(json.dumps(manifest))
    found = figures_of(command(run, "--count", 20, "--split", "all", "--data", run.parent / "pack", "--json"))
    assert "caption_accuracy" not in found
    assert cheap.asked == []


def test_a_figure_whose_scorer_fails_on_real_images_is_not_printed(run, cheap, monkeypatch):
    """Random networks: their R-precision of real images is chance, and the probe is said to fail."""
    monkeypatch.undo()

    def fails(run, **named):
        raise ScorerError("the probe fails on real blossoms: petal colour 13% (at least 95%)")

    monkeypatch.setattr(captions, "caption_accuracy_of_run", fails)
    code, out, err = command(run, "--count", 40, "--split", "all", "--json")
    assert code == 0, err
    found = json.loads(out.splitlines()[-1])
    assert "r_precision" not in found
    assert "caption_accuracy" not in found
    assert "not measured: R-precision: the scorer fails on real images:" in out
    assert "not measured: caption accuracy: the probe fails on real blossoms: petal colour 13%" in out


def test_another_run_scores_r_precision_independently(run, cheap, tmp_path):
    scorer = tmp_path / "scorer"
    scorer.mkdir()
    torch.manual_seed(5)
    text = t2i.CharCnnRnn("short", 8, 16, (8, 8))
    save_weights(scorer / "text.safetensors", {"text": text, "image": ImageEncoder(16, 4, 16)})
    shutil.copy(run / "config.json", scorer)
    flags = ("--count", 20, "--split", "all", "--json")
    own, other = figures_of(command(run, *flags)), figures_of(command(run, *flags, "--scorer", scorer))
    assert not own["r_precision"]["protocol"]["independent"]
    assert other["r_precision"]["protocol"]["independent"]
    assert other["r_precision"]["protocol"]["scorer"] == "joint embedding of another run"


def test_copies_of_training_images_are_found_mirrored_or_not(run):
    pipe, pack = t2i.Pipeline.from_pretrained(run), PackedDataset(run.parent / "pack")
    sample = sample_images(pipe, pack, "test", 20, 0)
    train = center_crop(pack.read_images(pack.split("train")[:20]), 16)
    half = np.concatenate([train[:10], train[10:, :, ::-1]])
    found = figures.copy_figure(half, sample.real, sample.chosen, pack, {})
    assert found["value"] == 1
    assert found["ratio"] < 0.01
    held_out = figures.copy_figure(sample.real, sample.real, sample.chosen, pack, {})
    assert held_out["value"] == held_out["real"] <= 0.05
    own = figures.copy_figure(train, train, pack.split("train")[:20], pack, {})
    assert own["real"] <= 0.05  # a training image is not compared with itself
    assert own["value"] == 1


@pytest.mark.parametrize(("split", "further", "source"), [("all", 50, "all split"), ("test", None, "all splits")])
def test_further_real_images_are_others_of_the_split_where_it_has_enough(run, split, further, source):
    pipe, pack = t2i.Pipeline.from_pretrained(run), PackedDataset(run.parent / "pack")
    count = 50 if split == "all" else len(pack.split("test"))
    sample = sample_images(pipe, pack, split, count, 0)
    assert len(sample.other) == (further or count)
    assert not set(sample.other) & set(sample.chosen)
    assert source in sample.other_from
    everything = sample_images(pipe, pack, "all", pack.images, 0)
    assert len(everything.other) == 0


def fake_fidelity(monkeypatch, calculate):
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.SimpleNamespace(calculate_metrics=calculate))


def test_the_full_figures_come_from_torch_fidelity(run, cheap, monkeypatch):
    asked = {}

    def calculate(**named):
        asked[named["feature_layer_fid"]] = named
        assert named["feature_layer_kid"] == named["feature_layer_fid"]
        fid = {"frechet_inception_distance": float(named["feature_layer_fid"])}
        kid = {"kernel_inception_distance_mean": 0.5, "kernel_inception_distance_std": 0.125}
        return fid | kid | ({"inception_score_mean": 2.5, "inception_score_std": 0.25} if named["isc"] else {})

    fake_fidelity(monkeypatch, calculate)
    found = figures_of(command(run, "--count", 20, "--split", "all", "--full", "--json"))
    values = {name: found[name]["value"] for name in ("fid", "fid_768", "kid", "kid_768", "inception_score")}
    assert values == {"fid": 2048, "fid_768": 768, "kid": 0.5, "kid_768": 0.5, "inception_score": 2.5}
    assert (found["kid"]["spread"], found["inception_score"]["spread"]) == (0.125, 0.25)
    assert "2,048" in found["fid"]["protocol"]["features"]
    assert "FID-768 and KID-768" not in found["not_measured"]
    assert set(asked) == {"768", "2048"}
    asked = asked["2048"]
    assert len(asked["input1"]) == len(asked["input2"]) == 20
    assert asked["kid_subset_size"] == 10
    pipe, pack = t2i.Pipeline.from_pretrained(run), PackedDataset(run.parent / "pack")
    sample = sample_images(pipe, pack, "all", 20, 0)
    assert asked["input1"][3].dtype == torch.uint8
    assert (asked["input1"][3].permute(1, 2, 0).numpy() == sample.generated[3]).all()
    assert (asked["input2"][4].permute(1, 2, 0).numpy() == sample.real[4]).all()


def offline(**named):
    raise OSError("Name or service not known")


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (None, r"--full needs torch_fidelity: pip install 't2i\[eval\]'"),
        (
            types.SimpleNamespace(calculate_metrics=offline),
            "cannot be downloaded.*docs/metrics.md.*leave --full out",
        ),
    ],
)
def test_full_figures_that_cannot_be_had_are_one_clear_line(monkeypatch, module, message):
    monkeypatch.setitem(sys.modules, "torch_fidelity", module)
    with pytest.raises(ConfigError, match=message):
        fidelity.full_figures(noise(4, 8, 8, 3), noise(4, 8, 8, 3), torch.device("cpu"), 2, 0, {})


WRONG = {
    "too few pictures": (lambda run: ["--count", 3], "--count must be at least 6"),
    "no batch": (lambda run: ["--batch", 0], "--batch at least 1"),
    "no such feature file": (lambda run: ["--features", run / "none.safetensors"], "no such weight file"),
    "a feature file of something else": (
        lambda run: ["--features", run / "text.safetensors"],
        "is not the feature network",
    ),
    "no such data": (lambda run: ["--data", run / "none"], "no such folder"),
    "not a data set": (lambda run: ["--data", run], "not a packed data set"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_line_and_code_2(run, name):
    flags, message = WRONG[name]
    code, _, err = command(run, *flags(run))
    assert code == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1
