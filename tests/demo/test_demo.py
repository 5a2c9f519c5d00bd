"""The demo: what it draws, and the page driven in a real browser, control by control."""

import base64
import io
import shutil
import urllib.parse

import numpy as np
import pytest
import torch
from PIL import Image

import t2i
from t2i.demo.app import Server
from t2i.demo.model import MAX_IMAGES, DemoModel
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


@pytest.mark.parametrize("most", [0.5, 1.0, 2.5])
def test_truncation_is_the_pipelines(studio, pipe, most):
    found = cells(studio.draw(RED, count=3, seed=4, truncation=most), 3)
    assert np.abs(found.astype(int) - drawn(pipe(RED, count=3, seed=4, truncation=most).images)).max() <= 1


def test_a_style_image_gives_its_noise_and_the_slider_leads_away_from_it(studio, pipe, picture):
    expected = drawn(pipe.transfer_style(picture, RED).images)[0]
    found = cells(studio.draw(RED, style=picture.read_bytes(), count=1), 1)[0]
    assert np.abs(found.astype(int) - expected).max() <= 1
    away = cells(studio.draw(RED, style=picture.read_bytes(), noise=1.0, count=1, seed=3), 1)[0]
    assert np.abs(away.astype(int) - drawn(pipe(RED, seed=3).images)[0]).max() <= 1


@pytest.mark.promise(26)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"sentence": " \n"}, "write a sentence"),
        ({"sentence": None}, "write a sentence"),
        ({"sentence": ["a"]}, "write a sentence"),
        ({"sentence": "\ud83c"}, "half a character"),
        ({"other": "\ud83c"}, "half a character"),
        ({"other": ["a"]}, "write a sentence"),
        ({"between": 0.5}, "write a second sentence"),
        ({"other": " ", "between": 0.5}, "write a second sentence"),
        ({"other": BLUE, "between": 1.1}, r"the position between the sentences must lie in 0\.\.1, got 1.1"),
        ({"noise": float("nan")}, r"the noise must lie in 0\.\.1, got nan"),
        ({"noise": "0.5"}, r"the noise must lie in 0\.\.1, got str"),
        ({"noise": True}, "the noise must lie in"),
        ({"count": 0}, r"the number of images must lie in 1\.\.16, got 0"),
        ({"count": 2.5}, "the number of images must be a whole number, got 2.5"),
        ({"count": 10**9}, "the number of images must lie in"),
        ({"seed": -1}, "the seed must lie in"),
        ({"seed": None}, "the seed must lie in .* got none"),
        ({"seed": float("inf")}, "the seed must lie in"),
        ({"truncation": 0}, r"the truncation must lie in 0\.01\.\.10, got 0"),
        ({"truncation": {}}, r"the truncation must lie in .* got dict"),
        ({"style": {"path": "/etc/passwd"}}, "the style must be the content of an image file"),
        ({"style": __file__}, "the style must be the content of an image file"),  # a path is never opened
        ({"style": b"no image"}, "is not an image"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_line(studio, change, says):
    with pytest.raises(t2i.T2IError, match=says) as caught:
        studio.draw(**{"sentence": RED, **change})
    assert "\n" not in str(caught.value)


def test_a_run_without_a_style_encoder_says_how_to_get_one(tiny_run, picture):
    bare = DemoModel(Pipeline.from_pretrained(tiny_run))
    with pytest.raises(t2i.ConfigError, match="t2i-train style --model"):
        bare.draw(RED, style=picture.read_bytes())


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
        return self.page.locator("#images img").get_attribute("src", timeout=60_000)

    def sheet(self):
        content = self.page.evaluate(FETCH, self.source())
        return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGB"))

    def changes(self, act, timeout=60_000):
        """Do something and wait for another picture."""
        before = self.source()
        act()
        self.page.wait_for_function(
            "before => document.querySelector('#images img').src !== before && !document.body.className",
            arg=before,
            timeout=timeout,
        )
        return self.sheet()

    def click_slider(self, name, part):
        box = self.page.locator(f"#{name}").bounding_box()
        self.page.mouse.click(box["x"] + part * box["width"], box["y"] + box["height"] / 2)

    def value(self, name):
        return float(self.page.locator(f"#{name}").input_value())


FETCH = """async source => {
    const reader = new FileReader(), content = await (await fetch(source)).blob();
    await new Promise(done => { reader.onload = done; reader.readAsDataURL(content) });
    return reader.result.split(",")[1];
}"""
DROP = """async ([target, data, name]) => {
    const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0));
    const transfer = new DataTransfer();
    transfer.items.add(new File([bytes], name, {type: "image/png"}));
    document.querySelector(target).dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
}"""


@pytest.fixture
def opened(server, browser):
    """The page in a browser, what it asked for, and what it complained about."""
    context = browser.new_context(viewport={"width": 1100, "height": 900}, accept_downloads=True, bypass_csp=True)
    page, asked, complaints = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url)
    page.wait_for_selector("#images img", timeout=60_000)
    yield page, asked, complaints
    context.close()


@pytest.mark.timeout(300)
def test_every_control_of_the_page_does_what_it_says(server, pipe, opened, picture, tmp_path):
    """Each control in turn, by mouse and keyboard; the page must show what `DemoModel` draws of the same values."""
    studio, (page, asked, complaints) = DemoModel(pipe), opened
    driven = Driven(page)
    values = {"sentence": "a flower with five red petals and a yellow centre", "count": 8, "seed": 0}

    def expect(sheet, **changes):
        values.update(changes)
        expected = np.asarray(studio.draw(**values))
        assert sheet.shape == expected.shape
        assert np.abs(sheet.astype(int) - expected).max() <= 1, values

    expect(driven.sheet())  # drawn when the page opens

    sentence, other, seed = (page.locator(f"#{name}") for name in ("sentence", "other", "seed"))

    def write(box, text, key="Enter"):
        box.fill(text)
        if key:
            box.press(key)

    expect(driven.changes(lambda: write(sentence, RED)), sentence=RED)
    assert page.locator("#between").is_disabled()
    write(other, BLUE, key=None)
    expect(driven.changes(lambda: driven.click_slider("between", 0.99)), other=BLUE, between=driven.value("between"))
    assert values["between"] == 1
    expect(driven.changes(lambda: driven.click_slider("between", 0.5)), between=driven.value("between"))
    assert 0.4 <= values["between"] <= 0.6
    expect(driven.changes(lambda: driven.click_slider("noise", 0.7)), noise=driven.value("noise"))
    assert 0.6 <= values["noise"] <= 0.8
    expect(driven.changes(lambda: driven.click_slider("truncation", 0.2)), truncation=driven.value("truncation"))
    assert 0.5 <= values["truncation"] <= 1
    assert driven.changes(lambda: driven.click_slider("truncation", 0.99)) is not None
    expect(driven.sheet(), truncation=None)
    assert page.locator("#truncation-value").inner_text() == "off"
    expect(driven.changes(lambda: write(seed, "7")), seed=7)
    expect(driven.changes(lambda: driven.click_slider("count", 0.99)), count=MAX_IMAGES)
    assert driven.value("count") == MAX_IMAGES

    drop = ["#drop", base64.b64encode(picture.read_bytes()).decode(), "style.png"]
    expect(driven.changes(lambda: page.evaluate(DROP, drop)), style=picture.read_bytes())
    expect(driven.changes(lambda: page.locator("#clear").click()), style=None)
    expect(driven.changes(lambda: page.locator("#file").set_input_files(picture)), style=picture.read_bytes())
    expect(driven.changes(lambda: page.locator("#clear").click()), style=None)

    write(sentence, BLUE, key=None)
    expect(driven.changes(lambda: page.locator("#generate").click()), sentence=BLUE)
    example = page.locator("#examples button").nth(2)
    expect(driven.changes(lambda: example.click()), sentence=example.inner_text())

    with page.expect_download() as coming:
        page.locator("#download").click()
    coming.value.save_as(tmp_path / "got.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "got.png")), driven.sheet())
    assert coming.value.suggested_filename.endswith(".png")

    write(sentence, "", key=None)
    page.locator("#generate").click()
    page.get_by_text("write a sentence").wait_for(timeout=60_000)
    assert page.locator("#error").is_visible()
    expect(driven.changes(lambda: write(sentence, RED)), sentence=RED)
    assert page.locator("#error").is_hidden()

    assert {urllib.parse.urlsplit(url).netloc for url in asked if not url.startswith(("data:", "blob:"))} == {
        urllib.parse.urlsplit(server.url).netloc
    }
    assert complaints == []


def test_sentences_of_any_language_reach_the_model_as_they_were_written(opened, pipe):
    studio, (page, _, complaints) = DemoModel(pipe), opened
    driven = Driven(page)
    for sentence in ("一朵红色的花，五片花瓣", "زهرة حمراء", "красный цветок 🌻", '<b>rot</b> & "été"'):
        sheet = driven.changes(
            lambda sentence=sentence: (page.fill("#sentence", sentence), page.press("#sentence", "Enter"))
        )
        expected = np.asarray(studio.draw(sentence))
        assert np.abs(sheet.astype(int) - expected).max() <= 1
        assert page.locator("#images img").get_attribute("alt") == sentence
        page.get_by_text(studio.unread(sentence)).wait_for(timeout=60_000)  # what the model does not know of it
        assert studio.unread(sentence)
    assert complaints == []


def test_enter_that_ends_the_entry_of_a_chinese_word_generates_nothing(opened):
    page, asked, _ = opened
    before = len(asked)
    page.evaluate(
        "() => document.getElementById('sentence').dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'Enter', isComposing: true, bubbles: true}))"
    )
    page.evaluate("() => fetch('api/model')")
    assert len(asked) == before + 1


def test_the_pages_own_policy_lets_it_work(server, browser):
    """Without `bypass_csp`, which the other tests need to read what is shown."""
    context = browser.new_context()
    page, complaints = context.new_page(), []
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(server.url)
    page.wait_for_selector("#images img", timeout=60_000)
    assert (
        page.evaluate("getComputedStyle(document.querySelector('main')).display") == "grid"
    )  # its style sheet was taken
    assert page.evaluate("() => fetch('http://127.0.0.1:1/').catch(error => String(error))").startswith("TypeError")
    assert [text for text in complaints if "127.0.0.1:1/" not in text] == []
    context.close()
