"""The demo: what it draws, and the page driven in a real browser, control by control."""

import base64
import io
import shutil
import urllib.parse
import urllib.request

import numpy as np
import pytest
import torch
from PIL import Image

import t2i
from t2i.demo.app import MAX_IMAGES, DemoModel, Server
from t2i.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
RED, BLUE = "a flower with five red petals", "a flower with six blue petals"
GAP, MARGIN = 4, 10  # of the grid


@pytest.fixture(scope="module")
def pipe(tiny_run_with_style):
    return Pipeline.from_pretrained(tiny_run_with_style)


@pytest.fixture(scope="module")
def studio(pipe):
    return DemoModel(pipe, side=16)  # as large as drawn: no resizing between the model's pixels and the sheet's


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("style") / "style.png"
    Image.linear_gradient("L").resize((40, 30)).convert("RGB").save(path)
    return path


def cells(sheet, count, side=16):
    """Cut a sheet into its pictures, row by row, four a row."""
    pixels, found = np.asarray(sheet), []
    for number in range(count):
        row, column = divmod(number, min(count, 4))
        top, left = MARGIN + row * (side + GAP), MARGIN + column * (side + GAP)
        found.append(pixels[top : top + side, left : left + side])
    return np.stack(found)


def drawn(images):
    return np.stack([np.asarray(image) for image in images])


@pytest.mark.parametrize("count", [1, 3, 4, 8, 16])
def test_a_sheet_is_the_pipelines_pictures_of_that_seed(studio, pipe, count):
    sheet = studio.draw(RED, count=count, seed=5)
    assert np.abs(cells(sheet, count).astype(int) - drawn(pipe(RED, count=count, seed=5).images)).max() <= 1


def test_the_way_between_two_sentences_is_the_pipelines_interpolation(studio, pipe):
    expected = drawn(pipe.interpolate([RED, BLUE], steps=5, count=1, seed=2).images)
    for step, weight in enumerate((0, 0.25, 0.5, 0.75, 1)):
        found = cells(studio.draw(RED, BLUE, weight, count=1, seed=2), 1)[0]
        assert np.abs(found.astype(int) - expected[step]).max() <= 1


def test_the_way_between_two_noises_is_the_pipelines_interpolation(studio, pipe):
    expected = drawn(pipe.interpolate([RED], "noise", steps=3, count=1, seed=2).images)
    for step, weight in enumerate((0.0, 0.5, 1.0)):
        found = cells(studio.draw(RED, noise=weight, count=1, seed=2), 1)[0]
        assert np.abs(found.astype(int) - expected[step]).max() <= 1


def test_a_style_picture_gives_its_noise_and_the_slider_leads_away_from_it(studio, pipe, picture):
    expected = drawn(pipe.transfer_style(picture, RED).images)[0]
    found = cells(studio.draw(RED, style=str(picture), count=1), 1)[0]
    assert np.abs(found.astype(int) - expected).max() <= 1
    away = cells(studio.draw(RED, style=str(picture), noise=1.0, count=1, seed=3), 1)[0]
    assert np.abs(away.astype(int) - drawn(pipe(RED, seed=3).images)[0]).max() <= 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sentence": " \n"}, "write a sentence"),
        ({"sentence": None}, "write a sentence"),
        ({"sentence": ["a"]}, "write a sentence"),
        ({"between": 0.5}, "write a second sentence"),
        ({"other": BLUE, "between": 1.1}, r"the position between the sentences must lie in 0\.\.1, got 1.1"),
        ({"noise": float("nan")}, r"the noise must lie in 0\.\.1, got nan"),
        ({"noise": "0.5"}, "the noise must lie in"),
        ({"noise": True}, "the noise must lie in"),
        ({"count": 0}, r"the number of images must lie in 1\.\.16, got 0"),
        ({"count": 10**9}, "the number of images must lie in"),
        ({"seed": -1}, "the seed must lie in"),
        ({"seed": None}, "the seed must lie in .* got none"),
        ({"seed": float("inf")}, "the seed must lie in"),
        ({"style": {"path": "/etc/passwd"}}, "the style must be an uploaded image"),
        ({"style": "/nowhere.png"}, "no such picture"),
        ({"style": __file__}, "is not a picture"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(studio, change, says):
    with pytest.raises(t2i.T2IError, match=says) as caught:
        studio.draw(**{"sentence": RED, **change})
    assert "\n" not in str(caught.value)


def test_a_run_without_a_style_encoder_says_how_to_get_one(tiny_run, picture):
    bare = DemoModel(Pipeline.from_pretrained(tiny_run))
    with pytest.raises(t2i.ConfigError, match="t2i-train style --model"):
        bare.draw(RED, style=str(picture))


def test_a_model_that_cannot_read_sentences_is_refused_before_the_page_is_there(pipe):
    with pytest.raises(t2i.ConfigError, match="has no text encoder"):
        Server(Pipeline(pipe.generator, None, pipe.config))


def test_torch_is_left_as_it_was(pipe, studio):
    state = torch.get_rng_state()
    studio.draw(RED)
    assert torch.equal(torch.get_rng_state(), state)


# From here on the page itself is needed.


@pytest.fixture
def server(demo):
    return demo


def test_a_port_that_is_taken_is_one_line(server, pipe):
    port = int(server.url.rsplit(":", 1)[1])
    with pytest.raises(t2i.ConfigError, match=r"cannot listen on 127\.0\.0\.1:\d+ .*choose another --port"):
        Server(pipe, port=port)


@pytest.fixture(scope="module")
def browser():
    """Debian's chromium, driven by playwright."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install playwright"
    )
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no chromium on this machine: apt-get install chromium")
    with playwright.sync_playwright() as driver:
        running = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


class Driven:
    """The page as a person uses it; `sheet` is what it shows."""

    def __init__(self, page):
        self.page = page

    def source(self):
        return self.page.locator("#pictures img").get_attribute("src", timeout=60_000)

    def sheet(self):
        with urllib.request.urlopen(self.source()) as answer:
            return np.asarray(Image.open(io.BytesIO(answer.read())))

    def changes(self, act, timeout=60_000):
        """Do something and wait for another picture."""
        before = self.source()
        act()
        self.page.wait_for_function(
            "before => { const i = document.querySelector('#pictures img'); return i && i.src && i.src !== before }",
            arg=before,
            timeout=timeout,
        )
        return self.sheet()

    def click_slider(self, name, part):
        box = self.page.locator(f"#{name} input[type=range]").bounding_box()
        self.page.mouse.click(box["x"] + part * box["width"], box["y"] + box["height"] / 2)

    def value(self, name):
        return float(self.page.locator(f"#{name} input[type=number]").input_value())


DROP = """async ([target, data, name]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: "image/png"}));
    document.querySelector(target).dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
}"""


@pytest.mark.timeout(300)
def test_every_control_of_the_page_does_what_it_says(server, pipe, browser, picture, tmp_path):
    """Each control in turn, by mouse and keyboard; the page must show what `DemoModel` draws of the same values."""
    studio = DemoModel(pipe)
    context = browser.new_context(viewport={"width": 1100, "height": 900}, accept_downloads=True)
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    driven = Driven(page)
    values = {"sentence": "a flower with five red petals and a yellow centre", "count": 8, "seed": 0}

    def expect(sheet, **changes):
        values.update(changes)
        expected = np.asarray(studio.draw(**values))
        assert sheet.shape == expected.shape
        assert np.abs(sheet.astype(int) - expected).max() <= 1, values

    page.wait_for_selector("#pictures img", timeout=60_000)
    expect(driven.sheet())  # drawn when the page opens

    sentence, other, seed = (page.locator(f"#{name} textarea, #{name} input") for name in ("sentence", "other", "seed"))

    def write(box, text, key="Enter"):
        box.fill(text)
        if key:
            box.press(key)

    expect(driven.changes(lambda: write(sentence, RED)), sentence=RED)
    write(other, BLUE, key=None)
    expect(driven.changes(lambda: driven.click_slider("between", 0.99)), other=BLUE, between=driven.value("between"))
    assert values["between"] == 1
    expect(driven.changes(lambda: driven.click_slider("between", 0.5)), between=driven.value("between"))
    assert 0.4 <= values["between"] <= 0.6
    expect(driven.changes(lambda: driven.click_slider("noise", 0.7)), noise=driven.value("noise"))
    assert 0.6 <= values["noise"] <= 0.8
    expect(driven.changes(lambda: write(seed, "7")), seed=7)
    expect(driven.changes(lambda: driven.click_slider("count", 0.99)), count=MAX_IMAGES)
    assert driven.value("count") == MAX_IMAGES

    data = base64.b64encode(picture.read_bytes()).decode()
    drop = ["#style button[aria-dropeffect=copy]", data, "style.png"]
    expect(driven.changes(lambda: page.evaluate(DROP, drop)), style=str(picture))
    expect(driven.changes(lambda: page.locator("#style button[aria-label*=lear], #style button[aria-label*=emove]").click()),
           style=None)  # fmt: skip

    write(sentence, BLUE, key=None)
    expect(driven.changes(lambda: page.locator("#draw").click()), sentence=BLUE)

    with page.expect_download() as coming:
        page.locator("#download").click()
    coming.value.save_as(tmp_path / "got.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "got.png")), driven.sheet())
    assert coming.value.suggested_filename.endswith(".png")

    write(sentence, "", key=None)
    page.locator("#draw").click()
    page.get_by_text("write a sentence").wait_for(timeout=60_000)

    context.close()
    assert {urllib.parse.urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urllib.parse.urlsplit(server.url).netloc
    }
    assert complaints == []
