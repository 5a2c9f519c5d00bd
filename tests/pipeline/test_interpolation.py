"""Strips from one text or noise to another, sums of texts, and the pictures and films of them."""

import errno
import math
import os
import re

import numpy as np
import pytest
import torch
from PIL import Image

import t2i
from helpers import call
from t2i import files, runtime
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import to_json
from t2i.errors import CheckpointError, ConfigError
from t2i.images import save_image
from t2i.noise import slerp
from t2i.pipeline import Pipeline
from t2i.plots import grids
from t2i.weights import save_weights

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = TrainConfig(
    size=16, generator_width=8, noise_dim=8, projection_dim=8, text=TextOptions(width=8, channels=(8, 8), dim=16)
)
RED, BLUE, WHITE = "a flower with red petals", "a flower with blue petals", "a white flower"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    generator, encoder = t2i.Generator(16, 8, 8, 16, 8), t2i.CharCnnRnn("short", 8, 16, (8, 8))
    for _ in range(20):
        generator(torch.randn(64, 8), torch.randn(64, 16))
    with torch.no_grad():  # vivid pictures, and texts that make a difference
        generator.to_rgb.weight.mul_(30)
        encoder.head.weight.mul_(1000)
    save_weights(folder / "model.safetensors", {"generator": generator, "text": encoder})
    (folder / "config.json").write_text(to_json(CONFIG))
    return folder


@pytest.fixture(scope="module")
def pipe(run):
    return Pipeline.from_pretrained(run)


# The arc


def noise(rows, seed, dim=100):
    return torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


WEIGHTS = torch.linspace(0, 1, 9, dtype=torch.float64)


def test_the_arc_starts_and_ends_at_its_ends():
    path = slerp(noise(4, 0), noise(4, 1), WEIGHTS)
    assert path.shape == (4, 9, 100)
    torch.testing.assert_close(path[:, 0], noise(4, 0))
    torch.testing.assert_close(path[:, -1], noise(4, 1))


def test_the_length_goes_evenly_from_one_ends_to_the_others():
    first, second = noise(4, 0), noise(4, 1)
    expected = torch.lerp(first.norm(dim=1)[:, None], second.norm(dim=1)[:, None], WEIGHTS)
    torch.testing.assert_close(slerp(first, second, WEIGHTS).norm(dim=2), expected)
    straight = torch.lerp(first, second, 0.5)
    assert (straight.norm(dim=1) < 0.85 * first.norm(dim=1)).all()  # why the arc is taken


def test_each_step_turns_by_the_same_angle():
    path = torch.nn.functional.normalize(slerp(noise(4, 0), noise(4, 1), WEIGHTS), dim=2)
    angles = (path[:, 1:] * path[:, :-1]).sum(2).acos()
    torch.testing.assert_close(angles, angles[:, :1].expand_as(angles))


def test_a_quarter_turn_has_its_closed_form():
    path = slerp(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 2.0]]), torch.tensor([1 / 3]))
    torch.testing.assert_close(path[0, 0], 2 * torch.tensor([np.cos(np.pi / 6), np.sin(np.pi / 6)]).float())


@pytest.mark.parametrize(
    ("second", "middle"),
    [
        ([3.0, 4.0], [3.0, 4.0]),  # the same vector
        ([6.0, 8.0], [4.5, 6.0]),  # the same direction
        ([0.0, 0.0], [1.5, 2.0]),  # no direction at all
        ([-3.0, -4.0], [0.0, 0.0]),  # opposite: no arc is nearer than another
    ],
)
def test_where_there_is_no_arc_the_way_is_straight(second, middle):
    path = slerp(torch.tensor([[3.0, 4.0]]), torch.tensor([second]), torch.tensor([0.5]))
    torch.testing.assert_close(path[0, 0], torch.tensor(middle))


# The pipeline


def test_text_goes_straight_from_caption_to_caption_with_the_noise_fixed(pipe):
    drawn = pipe.interpolate([RED, BLUE], steps=5, count=2, seed=3)
    assert drawn.tensor.shape == (10, 3, 16, 16)
    assert len(drawn.images) == 10
    strips = drawn.tensor.view(2, 5, 3, 16, 16)
    for caption, end in ((RED, 0), (BLUE, -1)):
        torch.testing.assert_close(strips[:, end], pipe([caption], count=2, seed=3).tensor)
    z = runtime.noise((2, 8), pipe.device, 3, 0, "generate")
    middle = pipe.embed([RED, BLUE]).mean(0, keepdim=True).expand(2, -1)
    torch.testing.assert_close(strips[:, 2], pipe.draw(z, middle))


def test_noise_goes_on_the_arc_with_the_text_fixed(pipe):
    strips = pipe.interpolate([RED], "noise", steps=3, count=2, seed=3).tensor.view(2, 3, 3, 16, 16)
    close = {"rtol": 1e-4, "atol": 1e-4}  # another batch, another order of sums
    torch.testing.assert_close(strips[:, 0], pipe(RED, count=2, seed=3).tensor, **close)
    first, second = (runtime.noise((2, 8), pipe.device, 3, end, "generate") for end in (0, 1))
    path = slerp(first, second, torch.tensor([0.5]))[:, 0]
    torch.testing.assert_close(strips[:, 1], pipe.draw(path, pipe.embed([RED, RED])), **close)
    torch.testing.assert_close(strips[:, 2], pipe.draw(second, pipe.embed([RED, RED])), **close)


def test_arithmetic_draws_sums_of_texts(pipe):
    drawn = pipe.arithmetic([RED, BLUE, WHITE], [(1, -1, 1), (0, 1, 0)], count=2, seed=1).tensor
    a, b, c = pipe.embed([RED, BLUE, WHITE])
    z = runtime.noise((2, 8), pipe.device, 1, 0, "generate")
    torch.testing.assert_close(drawn[:2], pipe.draw(z, (a - b + c).expand(2, -1)))
    torch.testing.assert_close(drawn[2:], pipe(BLUE, count=2, seed=1).tensor)
    same = pipe.arithmetic([RED, RED, BLUE], [(1, -1, 1)], seed=1).tensor
    torch.testing.assert_close(same, pipe(BLUE, seed=1).tensor, atol=1e-5, rtol=1e-5)
    weights = torch.tensor([[1.0, -1, 1], [0, 1, 0]])
    assert torch.equal(pipe.arithmetic([RED, BLUE, WHITE], weights, count=2, seed=1).tensor, drawn)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p: p.interpolate([RED]), "needs two captions, got 1"),
        (lambda p: p.interpolate([RED, BLUE], "noise"), "needs one caption, got 2"),
        (lambda p: p.interpolate([RED, BLUE], steps=1), "steps must be at least 2, got 1"),
        (lambda p: p.interpolate([RED, BLUE], steps=2.5), "steps must be a whole number, got 2.5"),
        (lambda p: p.interpolate([RED, BLUE], count=0), "count must be at least 1, got 0"),
        (lambda p: p.interpolate([RED, BLUE], over="nois"), "over 'text' or 'noise', got 'nois'"),
        (lambda p: p.interpolate(None), "a caption must be a text .str., got NoneType"),
        (lambda p: p.interpolate([b"a", b"b"]), "a caption must be a text .str., got bytes"),
        (lambda p: p.interpolate([RED, " "]), "a caption is empty"),
        (lambda p: p.arithmetic([RED], [(1, 2)]), "a weight for each"),
        (lambda p: p.arithmetic([RED], []), "a weight for each"),
        (lambda p: p.arithmetic([RED, BLUE], [(1, math.nan)]), "a weight for each of them, all finite"),
        (lambda p: p.arithmetic([RED, BLUE], [(1, -math.inf)]), "all finite"),
        (lambda p: p.arithmetic([RED, BLUE], [(1, 2), (1,)]), "a weight for each"),
        (lambda p: p.arithmetic([RED], [("much",)]), "a weight for each"),
        (lambda p: p.arithmetic([RED], 3), "a weight for each"),
        (lambda p: p.mix([RED, BLUE], [[1, 2, 3]]), "a weight for each"),
        (lambda p: p.mix([RED, BLUE], torch.tensor([1.0, 2.0])), "a weight for each"),
        (lambda p: p.arithmetic([RED], [(1,)], count=0), "count must be at least 1"),
    ],
)
def test_what_cannot_be_drawn_is_refused(pipe, draw, message):
    with pytest.raises(ConfigError, match=message):
        draw(pipe)


# Pictures and films

FILM, SHEET = np.zeros((1, 3, 8, 8, 3), np.uint8), Image.new("RGB", (8, 8))


def test_the_table_has_styles_down_and_captions_across():
    down = np.zeros((2, 8, 8, 3), np.uint8)
    down[..., 0] = 255  # red
    drawn = np.zeros((2, 3, 8, 8, 3), np.uint8)
    drawn[..., 2] = np.array([[10, 60, 110], [160, 210, 250]], np.uint8)[..., None, None]
    sheet = np.asarray(grids.table(down, [RED, BLUE, WHITE], drawn, side=40))
    seen = [tuple(pixel) for pixel in sheet.reshape(-1, 3) if tuple(pixel) not in ((255, 255, 255),)]
    for colour in [(255, 0, 0), *((0, 0, blue) for blue in (10, 60, 110, 160, 210, 250))]:
        assert seen.count(colour) == 40 * 40 * (2 if colour[0] else 1)
    place = {blue: np.argwhere((sheet == (0, 0, blue)).all(2)).mean(0) for blue in (10, 60, 160)}
    assert place[10][1] < place[60][1]
    assert place[10][0] < place[160][0]
    assert np.argwhere((sheet == (255, 0, 0)).all(2))[:, 1].max() < place[10][1] - 20
    assert (sheet[: int(place[10][0]) - 21] < 128).any()  # the captions, above


@pytest.mark.parametrize("ending", ["gif", "webp"])
def test_a_film_goes_there_and_back_for_ever(tmp_path, ending):
    strips = np.zeros((2, 4, 8, 8, 3), np.uint8)
    strips += np.array([0, 80, 160, 240], np.uint8)[None, :, None, None, None]
    grids.save_animation(strips, tmp_path / f"film.{ending}", side=16, milliseconds=50)
    with Image.open(tmp_path / f"film.{ending}") as film:
        assert film.n_frames == 6
        assert film.info["loop"] == 0
        assert film.size == (2 * 16 + grids.GAP, 16)
        shades, times = [], []
        for frame in range(6):
            film.seek(frame)
            film.load()
            shades.append(film.convert("RGB").getpixel((5, 5))[0])
            times.append(film.info["duration"])
    assert shades == pytest.approx([0, 80, 160, 240, 160, 80], abs=4)
    if ending == "gif":  # Pillow does not read the times of a webp
        assert times == [150, 50, 50, 150, 50, 50]


@pytest.mark.parametrize("write", [lambda path: grids.save_animation(FILM, path), lambda path: save_image(SHEET, path)])
@pytest.mark.parametrize("fails", [None, errno.ENOSPC])
def test_a_file_that_is_there_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, write, fails):
    path = tmp_path / "keep.webp"
    path.write_bytes(b"what was here before")

    def flush(descriptor):
        assert path.read_bytes() == b"what was here before"
        if fails:
            raise OSError(fails, os.strerror(fails))

    monkeypatch.setattr(os, "fsync", flush)
    monkeypatch.setattr(files, "sync_folder", lambda folder: None)
    if fails:
        with pytest.raises(
            CheckpointError, match=r"cannot write .*keep\.webp: No space left on device; free some space"
        ):
            write(path)
        assert path.read_bytes() == b"what was here before"
    else:
        write(path)
        Image.open(path).close()
    assert [found.name for found in tmp_path.iterdir()] == ["keep.webp"]


@pytest.mark.parametrize(("ending", "most"), [(".webp", 16_383), (".gif", 65_535), (".jpg", 65_500), (".png", 100_000)])
def test_the_largest_side_of_a_format_is_the_largest_that_it_takes(tmp_path, ending, most):
    save_image(Image.new("L", (most, 1)), tmp_path / f"a{ending}")
    with Image.open(tmp_path / f"a{ending}") as picture:
        assert picture.size == (most, 1)
    if ending != ".png":
        with pytest.raises(ConfigError, match=f"at most {most:,} a side"):
            save_image(Image.new("L", (1, most + 1)), tmp_path / f"b{ending}")


# The command


def shape_of(path):
    with Image.open(path) as picture:
        return (*picture.size, getattr(picture, "n_frames", 1))


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--interpolate-text", RED, BLUE], "a.png", (10 + 240 + 5 * 36 - 4 + 10, 20 + 2 * 36 - 4, 1)),
        (["--interpolate-text", RED, BLUE], "a.gif", (2 * 36 - 4, 32, 8)),
        (["--interpolate-noise", RED], "a.jpg", (10 + 240 + 5 * 36 - 4 + 10, 20 + 2 * 36 - 4, 1)),
        (["--interpolate-noise", RED, BLUE], "a.webp", (4 * 36 - 4, 32, 8)),
        (["--arithmetic", RED, BLUE, WHITE], "a.png", (10 + 240 + 2 * 36 - 4 + 10, 20 + 4 * 36 - 4, 1)),
    ],
)
def test_generate_draws_strips_films_and_sums(run, tmp_path, words, name, expected):
    flags = ["--steps", 5, "--count", 2, "--side", 32, "--out", tmp_path / name]
    code, out, err = call("t2i-generate", "--model", run, *words, *flags)
    assert code == 0, err
    assert out.strip() == str(tmp_path / name)
    assert shape_of(tmp_path / name) == expected


def test_a_sentence_of_ten_thousand_characters_is_read_as_far_as_the_encoder_reads(run, tmp_path):
    long = "a flower with red petals " * 400
    for name, sentence in (("long.png", long), ("cut.png", long[:201])):
        flags = ("--interpolate-text", sentence, BLUE, "--count", 1, "--out", tmp_path / name)
        assert call("t2i-generate", "--model", run, *flags)[0] == 0
    pictures_only = [np.asarray(Image.open(tmp_path / name))[:, 250:] for name in ("long.png", "cut.png")]
    assert np.array_equal(*pictures_only)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--interpolate-text", RED, BLUE, "--interpolate-noise"], "exclude each other"),
        (["--interpolate-text", RED, BLUE, "--arithmetic", RED, BLUE, WHITE], "exclude each other"),
        (["--interpolate-text", RED, BLUE, "--", WHITE], "remove 'a white flower'"),
        (["--interpolate-noise"], "a caption is missing"),
        (["--interpolate-noise", RED, "--steps", 1], "steps must be at least 2"),
        (["--interpolate-text", RED, " "], "a caption is empty"),
        (["--interpolate-text", RED, BLUE, "--out", "a.txt"], r"\.webp or \.gif"),
        ([RED, "--out", "a.gif"], r"must end in \.png, \.jpg or \.webp, got"),
        (["--interpolate-text", RED, BLUE, "--out", "/dev/null/a.gif"], "cannot write"),
        ([RED, "--count", 400, "--side", 64, "--out", "b.webp"], r"b\.webp .* 27,456 x 84 .* at most 16,383 .*\.png"),
        ([RED, "--count", 1100, "--side", 64, "--out", "b.JPG"], r"b\.JPG .* at most 65,500 .*--side, --count"),
        (["--interpolate-text", RED, BLUE, "--count", 200, "--out", "b.webp"], "26,396 x 128 .* at most 16,383 a side"),
        (["--interpolate-text", RED, BLUE, "--count", 600, "--out", "b.gif"], "at most 65,535 a side"),
        (["--interpolate-noise", RED, "--steps", 600, "--out", "b.jpeg"], "at most 65,500 a side"),
        (["--arithmetic", RED, BLUE, WHITE, "--side", 5000, "--out", "b.webp"], "at most 16,383 a side"),
        (["--style", "a.png", RED, *[BLUE] * 150, "--out", "b.webp"], "at most 16,383 a side"),
        ([RED, "--side", 100_000], r"pictures\.png .* 800,288 x 100,020 .* 178,956,970 in all .*--side, --count"),
        (["--interpolate-text", RED, BLUE, "--count", 1, "--side", 30_000, "--out", "b.gif"], "178,956,970 in all"),
    ],
)
def test_wrong_words_are_one_clear_line_and_exit_code_2(run, words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = call("t2i-generate", "--model", run, *words)
    assert code == 2
    assert len(err.splitlines()) == 1
    assert re.search(message, err)
