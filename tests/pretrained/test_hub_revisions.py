"""A branch of the Hub that moves on, with the real huggingface_hub over a transport that answers in this process."""

import hashlib
import json
import urllib.parse

import pytest
import torch

import t2i
from t2i.pipeline import Pipeline

pytestmark = pytest.mark.usefixtures("one_thread")
library = pytest.importorskip("huggingface_hub", reason="the extra is not installed: pip install 't2i[hub]'")
httpx = pytest.importorskip("httpx2")
constants = pytest.importorskip("huggingface_hub.constants")
http = pytest.importorskip("huggingface_hub.utils._http")
RED = "a flower with red petals"


class FakeHub:
    """A Hub with one model, me/flowers, whose main branch is one of several commits.

    Attributes:
        commits: Files by name, by commit.
        main: The commit that main is at.
        broken: Names of files whose download breaks off.
        reachable: Whether anything answers.
    """

    def __init__(self):
        self.commits, self.main, self.broken, self.reachable = {}, "", set(), True

    def publish(self, folder):
        """Move main on to a commit of a folder's files."""
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        self.main = f"{len(self.commits) + 1:040x}"
        self.commits[self.main] = files

    def answer(self, request):
        if not self.reachable:
            raise httpx.ConnectError("no route to host")
        path = urllib.parse.unquote(request.url.path)
        if path.startswith("/api/models/me/flowers/tree/"):
            files = self.commits[path.rsplit("/", 1)[1]]
            listed = [
                {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for name, data in files.items()
            ]
            return httpx.Response(200, json=listed)
        if path.startswith("/api/models/me/flowers"):
            return httpx.Response(200, json={"id": "me/flowers", "sha": self.main, "siblings": []})
        *_, commit, name = path.split("/")
        if name in self.broken:
            raise httpx.ConnectError("the connection was reset")
        data = self.commits[commit][name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(data).hexdigest()}"'}
        return httpx.Response(200, content=data, headers=headers)


@pytest.fixture
def fake_hub(tmp_path, monkeypatch):
    found = FakeHub()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    library.set_client_factory(lambda: httpx.Client(transport=httpx.MockTransport(found.answer)))
    yield found
    library.set_client_factory(http.default_client_factory)


@pytest.fixture
def versions(tiny_run_with_style, tmp_path):
    """Two models of the same sizes: the later one has other settings and other weights, and no style encoder."""
    first = Pipeline.from_pretrained(tiny_run_with_style)
    one = first.save_pretrained(tmp_path / "one")
    first.folder = None
    with torch.no_grad():
        first.generator.to_rgb.weight *= -1
    two = first.save_pretrained(tmp_path / "two")
    settings = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps(settings | {"seed": 77}))
    return one, two


def generated(where):
    return Pipeline.from_pretrained(where)(RED).tensor


def test_a_branch_that_has_moved_on_gives_all_of_the_new_model_and_nothing_of_the_old(fake_hub, versions):
    one, two = versions
    fake_hub.publish(one)
    assert torch.equal(generated("me/flowers"), generated(one))
    assert Pipeline.from_pretrained("me/flowers").has_style
    fake_hub.publish(two)
    pipe = Pipeline.from_pretrained("me/flowers")
    assert torch.equal(pipe(RED).tensor, generated(two))
    assert not pipe.has_style  # of the model before
    assert torch.equal(Pipeline.from_pretrained("me/flowers", revision=f"{1:040x}")(RED).tensor, generated(one))


@pytest.mark.parametrize("broken", ["model.safetensors", "config.json"])
def test_a_download_that_broke_off_leaves_no_model_of_two_halves(fake_hub, versions, broken):
    one, two = versions
    fake_hub.publish(one)
    generated("me/flowers")
    fake_hub.publish(two)
    fake_hub.broken = {broken}
    with pytest.raises(t2i.CheckpointError, match="cannot be downloaded"):
        Pipeline.from_pretrained("me/flowers")
    fake_hub.reachable = False  # on a train: what is in the cache has to do
    with pytest.raises(t2i.CheckpointError, match=f"cannot be downloaded.*{broken.replace('.', '[.]')}"):
        Pipeline.from_pretrained("me/flowers")
    fake_hub.reachable, fake_hub.broken = True, set()
    assert torch.equal(generated("me/flowers"), generated(two))


def test_a_model_that_was_downloaded_whole_needs_no_hub_any_more(fake_hub, versions):
    fake_hub.publish(versions[0])
    before = generated("me/flowers")
    fake_hub.reachable = False
    assert torch.equal(generated("me/flowers"), before)
