"""The scripts of examples/ run, and the commands of the pages exist with the flags that they are given."""

import importlib.util
import json
import re
import shlex
from pathlib import Path

import pytest
from PIL import Image

from helpers import ROOT, TINY, call, load_script
from t2i import prepare
from t2i.cli import arguments, parsing
from t2i.cli import main as cli
from t2i.data.dataset import PackedDataset

pytestmark = pytest.mark.usefixtures("one_thread")

PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")


def example(name):
    return load_script(f"examples/{name}.py")


def test_emoji_and_their_names_become_an_image_folder_that_can_be_packed(tmp_path, monkeypatch, capsys):
    module = example("emoji")
    if not FONT.exists():  # without the font, discs stand for its pictures
        monkeypatch.setattr(module.ImageFont, "truetype", lambda *_: None)
        monkeypatch.setattr(
            module, "draw", lambda character, font: Image.new("RGB", (128, 128), (ord(character) % 256, 80, 0))
        )
    module.main(str(FONT), str(tmp_path / "emoji"))
    lines = [json.loads(line) for line in (tmp_path / "emoji" / "metadata.jsonl").read_text().splitlines()]
    assert capsys.readouterr().out.startswith(f"{len(lines)} emoji in ")
    assert {"file_name": "1f499.png", "text": "blue heart"} in lines
    assert not [line for line in lines if "sign" in line["text"].split()]
    prepare.pack("folder", tmp_path / "emoji", tmp_path / "pack", size=19, show_progress=False)
    assert len(PackedDataset(tmp_path / "pack")) == len(lines) > 500


def test_the_loop_of_ones_own_draws(tiny_blossoms_folder, tmp_path):
    example("own_loop").main(str(tiny_blossoms_folder), "3", str(tmp_path / "grid.png"))
    with Image.open(tmp_path / "grid.png") as sheet:
        assert sheet.height == 10 + 8 * 100 - 4 + 10


def test_a_model_is_used_from_python(tiny_blossoms_folder, tmp_path):
    run = tmp_path / "run"
    assert call("t2i-train", "--data", tiny_blossoms_folder, "--out", run, "--steps", 1, *TINY)[0] == 0
    example("draw").main(str(run), "a red flower", "a blue flower", str(tmp_path / "out"))
    assert len(list((tmp_path / "out").glob("drawn-*.png"))) == 8
    assert len(list((tmp_path / "out").glob("between-*.png"))) == 5


def test_every_example_is_tried():
    tried = Path(__file__).read_text()
    scripts = [path.stem for path in (ROOT / "examples").glob("*.py")]
    others = "".join(path.read_text() for path in Path(__file__).parent.rglob("test_*.py"))
    assert scripts
    assert [name for name in scripts if f'"{name}"' not in tried and f"{name}.py" not in others] == []


def code_blocks(page):
    """The text of each code block of a page."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


def shown(page):
    """The commands that a page shows, as words."""
    for block in code_blocks(page):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            found = re.search(r"(?:^\s*|--no-python )(t2i-(?:prepare|train|generate|eval)\b.*)", line)
            if found and "--print-completion" not in line:
                yield shlex.split(found[1].partition("  #")[0].partition(" > ")[0])


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "README.zh.md",
        "docs/gallery.md",
        "docs/cookbook.md",
        "docs/index.md",
        "docs/data.md",
        "docs/metrics.md",
    ],
)
def test_the_commands_of_a_page_have_the_flags_that_they_are_given(page):
    kinds = {
        "t2i-prepare": arguments.Prepare,
        "t2i-generate": arguments.Generate,
        "images": arguments.EvaluateImages,
        "text": arguments.EvaluateText,
        "style": arguments.EvaluateStyle,
        "merge": arguments.Merge,
    }
    for command, *words in shown(page):
        if command == "t2i-train":
            files = [word for word in words if word.endswith(".toml")]
            words = [word for word in words if word not in ("--config", "KIND", *files)]
            code, _, err = call(command, *words, *([] if "--print-config" in words else ["--print-config"]))
            assert (code, err) == (0, ""), words
        elif command == "t2i-eval" or words[0] == "merge":
            parsing.parse(kinds[words[0]], words[1:], command)
        else:
            parsing.parse(kinds[command], words, command)


def test_the_chinese_readme_has_the_code_links_and_figures_of_the_english_one():
    """Comments and words are translated, everything else is equal: who changes one of the two has to change both."""

    def facts(page):
        text = (ROOT / page).read_text(encoding="utf-8")
        code = [re.sub(r" +# .*", "", block) for block in code_blocks(page)]
        links = re.findall(r"\]\((?!README|#)([^)]+)\)|^\[\w+\]: (\S+)", text, re.MULTILINE)
        rows = [line for line in text.splitlines() if line.startswith("|")]
        tables = [sorted(re.findall(r"\d+(?:[.,]\d+)*%?|--[a-z-]+|`[^`]+`", row)) for row in rows]
        return code, sorted(links), tables, len(re.findall(r"^## ", text, re.MULTILINE))

    english, chinese = facts("README.md"), facts("README.zh.md")
    assert len(english[0]) > 5
    assert min(len(english[1]), len(english[2])) > 10
    for ours, theirs in zip(english, chinese, strict=True):
        assert theirs == ours


@pytest.mark.parametrize("page", sorted(path.relative_to(ROOT).as_posix() for path in PAGES))
def test_links_between_pages_lead_to_files_and_headings(page):
    text = re.sub(r"^```.*?^```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    links = re.findall(r"""\]\(([^)\s]+)\)|^\[[^\]]+\]: (\S+)|src="([^"]+)\"""", text, re.MULTILINE)
    for link in filter(None, (part for found in links for part in found)):
        if not link.startswith(("http", "../../actions")):
            file, _, anchor = link.partition("#")
            target = (ROOT / page).parent / file if file else ROOT / page
            assert target.exists(), link
            assert not anchor or anchor in headings(target), link


def headings(page):
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    names = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", name.strip().lower())) for name in names}


def test_the_pages_of_the_api_name_modules_that_are_there():
    named = set()
    for path in (ROOT / "docs" / "api").glob("*.md"):
        named |= set(re.findall(r"^::: (\S+)$", path.read_text(), re.MULTILINE))
    assert {"t2i.pipeline", "t2i.models.paper", "t2i.training.gan"} <= named
    for name in named:
        assert importlib.util.find_spec(name), name
    navigation = (ROOT / "mkdocs.yml").read_text()
    pages = re.findall(r": (\S+\.md)$", navigation, re.MULTILINE)
    assert set(pages) <= {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}


def test_the_commands_of_the_release_are_those_of_the_package():
    smoke = (ROOT / "tests" / "smoke.sh").read_text()
    for command in set(re.findall(r"\bt2i-\w+", smoke)):
        assert hasattr(cli, command.removeprefix("t2i-"))
