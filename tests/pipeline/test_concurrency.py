"""One pipeline and data set for many threads; a pipeline after a fork; a folder that is replaced while it is read."""

import os
import pickle
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
import torch

import t2i
from t2i.config.options import StyleConfig
from t2i.data.loader import Loader
from t2i.data.sampler import Sampler
from t2i.pipeline import Pipeline
from t2i.pretrained import loader
from t2i.training import style as style_training

CAPTIONS = ["a flower with red petals", "five blue petals and a yellow centre", "x"]
THREADS = 6


def in_threads(jobs):
    """Run jobs in threads that begin together, each all of the jobs from another one on; returns their results."""
    results, failed, together = {}, [], threading.Barrier(THREADS)

    def work(number):
        try:
            together.wait()
            for place in range(len(jobs)):
                turn = (place + number) % len(jobs)
                results[number, turn] = jobs[turn]()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    return results


def test_threads_that_share_a_pipeline_a_data_set_and_a_loader_see_what_one_thread_sees(
    tiny_run_with_style, tiny_blossoms
):
    pipe = Pipeline.from_pretrained(tiny_run_with_style)
    rows = np.random.default_rng(0).integers(0, len(tiny_blossoms), (4, 16))
    shared = Loader(Sampler(tiny_blossoms, batch=8, crop=16), torch.device("cpu"), batch=8, crop=16)
    jobs = [lambda seed=seed: pipe(CAPTIONS, count=2, seed=seed).tensor.numpy() for seed in range(4)]
    jobs += [lambda: pipe.read_style(torch.zeros(2, 3, 16, 16)).numpy()]  # loaded by whoever is first
    jobs += [lambda: pipe.encoder.tokenize(CAPTIONS).numpy()]
    jobs += [lambda each=each: tiny_blossoms.read_images(each) for each in rows]
    jobs += [lambda each=each: tiny_blossoms.read_captions(each) for each in rows]
    jobs += [lambda each=each: np.array(tiny_blossoms.caption_texts(each)) for each in rows]
    jobs += [lambda step=step: shared.batch(step).images.numpy() for step in range(4)]
    found = in_threads(jobs)
    for turn, job in enumerate(jobs):
        expected = job()
        assert all(np.array_equal(found[number, turn], expected) for number in range(THREADS)), turn


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows has no fork")
def test_a_pipeline_generates_after_a_fork_what_it_generated_before(tiny_run):
    script = textwrap.dedent(
        """
        import os, sys, warnings
        warnings.simplefilter("ignore")
        import torch
        torch.set_num_threads(2)
        from t2i.pipeline import Pipeline
        pipe = Pipeline.from_pretrained(sys.argv[1])
        before = pipe(["a flower"] * 8, count=8).tensor
        large = torch.ones(512, 512)
        large @ large + large  # the threads of torch's pool exist now, and stay behind at a fork
        child = os.fork()
        if child == 0:
            large @ large + large
            os._exit(0 if torch.equal(pipe(["a flower"] * 8, count=8).tensor, before) else 3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), torch.get_num_threads())
        """
    )
    environment = os.environ | {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2"}
    command = [sys.executable, "-c", script, str(tiny_run)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
    ) as process:
        try:
            out, _ = process.communicate(timeout=90)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            raise
    assert out == "0 2\n"  # the parent keeps its threads


def test_a_pipeline_that_is_sent_to_another_process_generates_the_same_images(tiny_run_with_style):
    pipe = Pipeline.from_pretrained(tiny_run_with_style)
    there = pickle.loads(pickle.dumps(pipe))
    assert torch.equal(there(CAPTIONS, seed=2).tensor, pipe(CAPTIONS, seed=2).tensor)
    assert there.has_style


def test_a_model_that_is_replaced_while_it_is_read_is_refused(tiny_run, tmp_path, monkeypatch):
    """The settings of the old model are read before the new one takes its place, and the weights after."""
    pipe = Pipeline.from_pretrained(tiny_run)
    folder = pipe.save_pretrained(tmp_path / "model")
    settings = (folder / "config.json").read_text()
    other = settings.replace('"seed": 0', '"seed": 7')
    assert other != settings
    read = loader.load_weights

    def replaced(path, modules):
        (folder / "config.json").write_text(other)
        read(path, modules)

    monkeypatch.setattr(loader, "load_weights", replaced)
    with pytest.raises(t2i.CheckpointError, match="model was replaced while it was read: load it again"):
        Pipeline.from_pretrained(folder)


def test_a_style_encoder_is_not_trained_on_a_model_that_is_no_longer_there(
    tiny_run, tiny_blossoms_folder, tmp_path, monkeypatch
):
    """A training writes the run's next model while `t2i-train style --out` has read the one before."""
    pipe = Pipeline.from_pretrained(tiny_run)
    run = pipe.save_pretrained(tmp_path / "run")
    with torch.no_grad():
        pipe.generator.to_rgb.weight *= -1
    pipe.folder = None
    newer = pipe.save_pretrained(tmp_path / "newer")

    class Slow(Pipeline):
        @classmethod
        def from_pretrained(cls, *arguments):
            found = super().from_pretrained(*arguments)
            (run / "model.safetensors").write_bytes((newer / "model.safetensors").read_bytes())
            return found

    monkeypatch.setattr(style_training, "Pipeline", Slow)
    config = StyleConfig(
        model=str(run),
        out=str(tmp_path / "out"),
        data=str(tiny_blossoms_folder),
        steps=1,
        batch=2,
        width=8,
        device="cpu",
    )
    with pytest.raises(t2i.CheckpointError, match="changed while it was read"):
        style_training.train_style(config)
    assert not (tmp_path / "out" / "style.json").exists()
