"""What a run shows elsewhere: trackers beside metrics.jsonl, and its curves as a picture."""

import io
import json
import signal
import subprocess
import sys
import time
import types

import numpy as np
import pytest
from PIL import Image

import t2i
from t2i.cli import main
from t2i.config.options import TextOptions, TrainConfig
from t2i.config.records import differences, from_json, model_settings, to_json
from t2i.plots.curves import curves_figure, curves_of, curves_picture, read_metrics, smoothed
from t2i.plots.roc import roc_figure
from t2i.training import gan, report
from t2i.training.progress import Progress
from t2i.training.report import Reports, evaluated, named
from t2i.weights import read_tensors

pytestmark = pytest.mark.usefixtures("one_thread")
TEXT = TextOptions(encoder="end-to-end", width=8, channels=(8, 8), dim=16)


def config(**options):
    small = {
        "size": 16,
        "generator_width": 8,
        "discriminator_width": 8,
        "noise_dim": 8,
        "projection_dim": 8,
        "batch": 8,
        "precision": "float32",
        "device": "cpu",
        "captions_per_image": 1,
        "log_every": 2,
        "sample_every": 4,
        "checkpoint_every": 4,
        "steps": 8,
        "alignment_weight": 0.0,
        "text": TEXT,
    }
    return TrainConfig(**(small | options))


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def write_lines(folder, *records):
    with open(folder / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (
            {"phase": "gan", "step": 1, "d_loss": 1.0, "g_loss": 2.0, "alignment": 3.0, "recovery": 4.0, "skipped": 5},
            {"losses/d_loss": 1, "losses/g_loss": 2, "losses/alignment": 3, "losses/recovery": 4, "gan/skipped": 5},
        ),
        (
            {"phase": "gan", "step": 1, "matching": 0.9, "mismatched": 0.1, "fake": 0.2, "images_per_second": 99.0},
            {"scores/matching": 0.9, "scores/mismatched": 0.1, "scores/fake": 0.2, "speed/images_per_second": 99},
        ),
        ({"phase": "text", "step": 1, "loss": 1.5}, {"text/loss": 1.5}),
        ({"phase": "eval", "step": 1, "fid_768": 1.25, "note": "words"}, {"eval/fid_768": 1.25}),
        ({"phase": "gan", "step": 1, "d_loss": float("nan")}, {}),
    ],
)
def test_numbers_are_named_so_that_a_tracker_groups_them(record, expected):
    assert named(record) == expected


def test_tensorboard_shows_every_line_and_every_grid_once_also_after_a_resume(tiny_blossoms, tmp_path):
    pytest.importorskip("tensorboard", reason="the extra is not installed: pip install 't2i[tensorboard]'")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    plain, shown = tmp_path / "plain", tmp_path / "shown"
    gan.train(config(), tiny_blossoms, plain)
    gan.train(config(steps=4, report_to="tensorboard"), tiny_blossoms, shown)
    gan.train(config(report_to="tensorboard"), tiny_blossoms, shown)
    events = EventAccumulator(str(shown / "tensorboard" / "gan"), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    lines = lines_of(shown)
    assert [line["step"] for line in lines] == [2, 4, 6, 8]
    for tag in (
        "losses/d_loss",
        "losses/g_loss",
        "scores/matching",
        "scores/mismatched",
        "scores/fake",
        "speed/images_per_second",
    ):
        seen = [(event.step, event.value) for event in events.Scalars(tag)]
        assert seen == [(line["step"], pytest.approx(line[tag.split("/")[1]], rel=1e-5)) for line in lines], tag
    grids = events.Images("samples")
    assert [grid.step for grid in grids] == [4, 8]
    for grid in grids:
        with Image.open(shown / "samples" / f"step-{grid.step:07d}.png") as drawn:
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(grid.encoded_image_string))), np.asarray(drawn))
    one, two = read_tensors(plain / "model.safetensors"), read_tensors(shown / "model.safetensors")
    assert all((one[name] == two[name]).all() for name in one)  # being watched changes nothing


def test_the_first_report_of_a_run_brings_the_text_encoders_lines_too(tmp_path, monkeypatch):
    seen = []

    class Recorder:
        def __init__(self, folder, start):
            pass

        def metrics(self, phase, step, values):
            seen.append((phase, step, dict(values)))

        def close(self):
            seen.append("closed")

    monkeypatch.setattr(report, "TensorBoard", Recorder)
    write_lines(tmp_path, {"phase": "text", "step": 50, "loss": 2.0})
    with Reports(config(report_to="tensorboard"), tmp_path) as reports:
        reports.update()
        write_lines(tmp_path, {"phase": "gan", "step": 2, "d_loss": 1.0})
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"phase": "gan", "st')  # as a kill leaves it
        reports.update()
    assert seen == [("text", 50, {"text/loss": 2.0}), ("gan", 2, {"losses/d_loss": 1.0}), "closed"]


def test_a_process_that_does_not_write_the_run_does_not_report_it(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "TensorBoard", lambda *arguments: pytest.fail("a second process reports"))
    with Reports(config(report_to="tensorboard"), tmp_path, writes=False) as reports:
        reports.update()


@pytest.fixture
def stub(monkeypatch):
    """A wandb that writes down what it is told."""
    told = []
    run = types.SimpleNamespace(
        define_metric=lambda *a, **k: None,
        log=lambda values: told.append(values),
        finish=lambda: told.append("finished"),
    )
    module = types.ModuleType("wandb")
    module.login = lambda **options: False
    module.init = lambda **options: told.append(options) or run
    module.Settings = lambda **options: options
    module.Image = lambda path: ("image", path)
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    return told


def test_wandb_is_told_the_settings_the_lines_and_the_grids(stub, tmp_path, capsys):
    (tmp_path / "samples").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "samples" / "step-0000002.png")
    write_lines(tmp_path, {"phase": "gan", "step": 2, "d_loss": 1.0, "fake": 0.25})
    with Reports(config(report_to="wandb"), tmp_path):
        pass
    options, numbers, picture, end = stub
    assert options["mode"] == "offline"  # nobody is logged in
    assert "wandb sync" in capsys.readouterr().err
    assert options["config"]["generator_width"] == 8
    assert numbers == {"step": 2, "losses/d_loss": 1.0, "scores/fake": 0.25}
    assert picture == {"step": 2, "samples": ("image", str(tmp_path / "samples" / "step-0000002.png"))}
    assert end == "finished"


def test_a_resumed_run_is_the_same_run_of_wandb(stub, tmp_path):
    for start in (0, 4):
        with Reports(config(report_to="wandb"), tmp_path, start):
            pass
    first, second = (told for told in stub if isinstance(told, dict))
    assert first["id"] == second["id"]
    assert second["resume"] == "allow"


def test_wandb_itself_records_offline_and_leaves_signals_alone(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra is not installed: pip install 't2i[wandb]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Reports(config(report_to="wandb"), tmp_path) as reports:
        assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
        write_lines(tmp_path, {"phase": "gan", "step": 2, "d_loss": 1.0})
        reports.update()
    (record,) = tmp_path.glob("wandb/offline-run-*/*.wandb")
    until = time.monotonic() + 60
    while b"losses/d_loss" not in record.read_bytes():  # wandb's own process writes it, when it has the time
        assert time.monotonic() < until
        time.sleep(0.1)


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_trained(tiny_blossoms, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(t2i.ConfigError, match=r"--report-to wandb needs wandb: pip install 't2i\[wandb\]'"):
        gan.train(config(report_to="wandb"), tiny_blossoms, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_an_unknown_tracker_is_refused_and_another_one_is_no_other_run():
    with pytest.raises(t2i.ConfigError, match=r"--report-to takes tensorboard and wandb, .* got 'mlflow'"):
        config(report_to="tensorboard,mlflow")
    assert config(report_to=" wandb, tensorboard,wandb").trackers == ("wandb", "tensorboard")
    assert differences(model_settings(config()), model_settings(config(report_to="wandb"))) == []


def test_what_was_evaluated_becomes_a_line_at_the_models_step(tmp_path, capsys):
    write_lines(tmp_path, {"phase": "gan", "step": 8, "d_loss": 1.0})
    figures = {"measure": "images", "fid_768": {"value": 1.25, "protocol": {}}, "protocol": {"seed": 0}}
    evaluated(tmp_path, config(), figures)
    assert lines_of(tmp_path)[-1] == {"phase": "eval", "step": 8, "fid_768": 1.25}
    (tmp_path / "saved").mkdir()
    evaluated(tmp_path / "saved", config(), figures)
    assert list((tmp_path / "saved").iterdir()) == []  # a model that was saved for others
    (tmp_path / "odd" / "metrics.jsonl").mkdir(parents=True)
    evaluated(tmp_path / "odd", config(), figures)
    assert "the figures were not written to" in capsys.readouterr().err


def test_nothing_is_written_through_a_link_that_leads_out_of_a_folder(tmp_path, capsys):
    """A model of a stranger is evaluated, or given a style encoder: its metrics.jsonl is a link to a file of the user's."""
    run, precious = tmp_path / "run", tmp_path / "precious"
    run.mkdir()
    precious.write_text("mine\n")
    (run / "metrics.jsonl").symlink_to(precious)
    evaluated(run, config(), {"fid_768": {"value": 1.25}})
    assert "a link that leads out of the folder" in capsys.readouterr().err
    with pytest.raises(t2i.CheckpointError, match="a link that leads out of the folder"):
        Progress(run / "metrics.jsonl", "style", 0, 1, 1)
    assert precious.read_text() == "mine\n"


def test_what_was_evaluated_is_reported_where_the_run_reports(stub, tmp_path):
    write_lines(tmp_path, {"phase": "gan", "step": 8, "d_loss": 1.0})
    evaluated(tmp_path, config(report_to="wandb"), {"fid": {"value": 40.0}})
    assert [told for told in stub if isinstance(told, dict) and "step" in told] == [{"step": 8, "eval/fid": 40.0}]


# Curves.


def test_a_resumed_step_counts_once_and_half_a_line_not_at_all(tmp_path):
    records = [{"phase": "gan", "step": step, "d_loss": float(step)} for step in (2, 4, 4, 6)]
    records[2]["d_loss"] = 40.0  # made again
    write_lines(
        tmp_path, *records, {"phase": "gan", "step": 8, "d_loss": None}, {"phase": "text", "step": 1, "d_loss": 9.0}
    )
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"phase": "gan", "st')
    assert curves_of(read_metrics(tmp_path), "gan", "d_loss") == [(2, 2), (4, 40), (6, 6)]


def test_smoothing_keeps_a_straight_line_and_evens_a_zigzag_out():
    line = [(float(step), 3.0 * step) for step in range(100)]
    assert [value for _, value in smoothed(line)] == pytest.approx([value for _, value in line])
    zigzag = [(float(step), float(step % 2)) for step in range(100)]
    assert all(abs(value - 0.5) < 0.1 for _, value in smoothed(zigzag)[10:-10])


def test_a_curve_goes_where_its_numbers_are():
    pytest.importorskip("matplotlib")
    records = [{"phase": "gan", "step": step, "matching": step / 100, "fake": 1.0} for step in range(0, 100, 10)]
    records.append({"phase": "eval", "step": 90, "copies": 0.03})
    scores, copies = curves_figure(records, "a run").axes
    assert (scores.get_title(), copies.get_title()) == ("scores of the discriminator", "copies")
    raw, smooth, fake, _ = scores.lines
    expected = [[step, step / 100] for step in range(0, 100, 10)]
    assert raw.get_xydata().tolist() == expected
    np.testing.assert_allclose(smooth.get_xydata(), expected)  # a straight line stays one
    assert set(fake.get_ydata()) == {1.0}
    assert scores.get_ylim()[0] == 0
    assert copies.lines[0].get_xydata().tolist() == [[90, 0.03]]
    assert [text.get_text() for text in scores.get_legend().get_texts()] == ["matching", "fake"]
    assert curves_picture(records, "a run").size == (1080, 320)


def test_plots_leave_no_global_state_of_pyplot():
    pytest.importorskip("matplotlib")
    code = (
        "import sys; from t2i.plots.curves import curves_picture; curves_picture([], 'a'); "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("plot", [lambda: curves_figure([], "a"), lambda: roc_figure({})])
def test_without_matplotlib_one_line_names_the_extra(monkeypatch, plot):
    for name in ("matplotlib", "matplotlib.figure", "matplotlib.backends.backend_agg"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        t2i.ConfigError, match=r"the plot of .* needs matplotlib\S*: pip install 't2i\[plot\]'"
    ) as caught:
        plot()
    assert "\n" not in str(caught.value)


def call(monkeypatch, capsys, *arguments):
    monkeypatch.setattr(sys, "argv", ["t2i-train", *map(str, arguments)])
    code = 0
    try:
        main.train()
    except SystemExit as stop:
        code = stop.code
    seen = capsys.readouterr()
    return code, seen.out, seen.err


def test_the_command_draws_every_phase_to_one_picture(tmp_path, monkeypatch, capsys):
    write_lines(tmp_path, *[{"phase": "text", "step": step, "loss": 1.0, "images_per_second": 9.0} for step in (1, 2)])
    write_lines(tmp_path, {"phase": "gan", "step": 8, "d_loss": 1.0, "fake": 0.5, "images_per_second": 9.0})
    code, out, _ = call(monkeypatch, capsys, "--plot", tmp_path)
    assert (code, out) == (0, f"{tmp_path / 'curves.png'}\n")
    with Image.open(tmp_path / "curves.png") as opened:
        four = opened.height
    write_lines(tmp_path, {"phase": "eval", "step": 8, "fid_768": 1.0})
    code, out, _ = call(monkeypatch, capsys, f"--plot={tmp_path}", "--out", tmp_path / "five.webp")
    with Image.open(tmp_path / "five.webp") as opened:
        assert opened.height > four  # FID has a panel of its own


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--plot", "{folder}/none"], "has no metrics.jsonl to plot; t2i-train writes one"),
        (["--plot", "{folder}"], "holds no metrics yet"),
        (["--plot", "{folder}", "--out", "curves.pdf"], "--out must end in .png, .jpg or .webp, got curves.pdf"),
    ],
)
def test_what_cannot_be_drawn_is_one_line(tmp_path, monkeypatch, capsys, arguments, says):
    (tmp_path / "metrics.jsonl").write_text("")
    code, _, err = call(monkeypatch, capsys, *[argument.format(folder=tmp_path) for argument in arguments])
    assert code == 2
    assert says in err
    assert err.count("\n") == 1


def test_settings_of_an_older_run_are_read_without_the_new_field(tmp_path):
    fields = json.loads(to_json(config()))
    del fields["report_to"]
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert from_json(tmp_path / "config.json").trackers == ()
