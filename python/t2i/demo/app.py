"""The web demo: sentences in, a grid of images out, in a browser on the same machine.

* `DemoModel` generates and knows nothing of the web; `page` lays out the controls; `Server` runs them behind `RequestFilter`.
* Nothing leaves the machine: no analytics, no fonts or scripts from other hosts; by default it listens on 127.0.0.1.
"""

import hashlib
import io
import os
import socket
import tempfile
import threading
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from t2i import runtime
from t2i.config.presets import EXAMPLE
from t2i.demo.guard import MAX_UPLOAD_BYTES, RequestFilter
from t2i.errors import ConfigError, T2IError
from t2i.extras import require
from t2i.images import to_uint8
from t2i.noise import slerp
from t2i.pipeline import Pipeline
from t2i.plots import grids
from t2i.prepare.style_images import read_pictures

MAX_IMAGES = 16  # per grid
MAX_CAPTION_CHARACTERS = 1000  # of a sentence; the char-CNN-RNN reads 201
MAX_STYLE_PIXELS = 25_000_000  # of a style image
MAX_QUEUE = 32  # requests; more are told to try again
EXAMPLES = (
    EXAMPLE,
    "a flower with six blue petals and a white centre",
    "a purple flower with a yellow disc",
)


class DemoModel:
    """Generate a grid of images from the values of the page's controls.

    Args:
        pipe: The trained model, with its text encoder.
        side: Pixels at which an image is shown.
    """

    def __init__(self, pipe: Pipeline, side: int = 160) -> None:
        self.pipe, self.side = pipe, side
        self.has_style = pipe.has_style and pipe.style is not None  # loaded now, so that errors show at the start

    @torch.no_grad()
    def draw(
        self,
        sentence: Any,
        other: Any = "",
        between: Any = 0.0,
        noise: Any = 0.0,
        style: Any = None,
        count: Any = 8,
        seed: Any = 0,
    ) -> Image.Image:
        """Generate a grid. The arguments come from the network and are validated here.

        Args:
            sentence: What to draw.
            other: A second sentence, or nothing.
            between: 0 is the first sentence, 1 the second.
            noise: 0 is the noise of the seed, or of the style image; 1 is other noise; between, `slerp`.
            style: Path of an image that gives background and place, or None.
            count: Images, 1 to 16.
            seed: Chooses the noise.

        Raises:
            ConfigError: a value of another type or out of its range.
            DataError: the style image cannot be read.
        """
        several, whole = (
            self._number(count, "the number of images", 1, MAX_IMAGES),
            self._number(seed, "the seed", 0, 2**53),
        )
        text_weight = self._number(between, "the position between the sentences", 0, 1)
        noise_weight = self._number(noise, "the noise", 0, 1)
        ends = [self._sentence(sentence)]
        if isinstance(other, str) and other.strip():
            ends.append(self._sentence(other))
        elif text_weight:
            raise ConfigError("write a second sentence, or move the slider back to the first one")
        weights = [[1 - text_weight, text_weight]] if len(ends) == 2 else [[1.0]]
        rows, device = int(several), self.pipe.device
        shape = (rows, self.pipe.config.noise_dim)
        first = runtime.noise(shape, device, int(whole), 0, "generate")
        if style is None:
            second = runtime.noise(shape, device, int(whole), 1, "generate")
        else:
            second = first  # the slider leads from the style's noise to the seed's
            first = self.pipe.style_noise(self._style(style)).expand(shape)
        z = slerp(first, second, torch.tensor([noise_weight], device=device))[:, 0]
        images = to_uint8(self.pipe.draw(z, self.pipe.mix(ends, weights).expand(rows, -1)))
        columns = min(rows, 4)
        full = -(-rows // columns) * columns
        padded = torch.full((full, *images.shape[1:]), 255, dtype=torch.uint8).numpy()
        padded[:rows] = images
        cells = padded.reshape(-1, columns, *images.shape[1:])
        return grids.grid(cells, [""] * len(cells), side=self.side, text_width=0)

    @staticmethod
    def _number(value: Any, name: str, least: float, most: float) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value <= most:
            raise ConfigError(
                f"{name} must lie in {least}..{most}, got {str(value)[:40] if value is not None else 'none'}"
            )
        return float(value)

    @staticmethod
    def _sentence(value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise ConfigError(f"write a sentence that describes an image, such as: {EXAMPLES[0]}")
        return value[:MAX_CAPTION_CHARACTERS]

    def _style(self, path: Any) -> torch.Tensor:
        if not self.has_style:
            raise ConfigError(
                f"this model has no style encoder yet: t2i-train style --model {self.pipe.folder or 'RUN'}"
            )
        if not isinstance(path, str):
            raise ConfigError("the style must be an uploaded image")
        return read_pictures([path], self.pipe.config.size, most_pixels=MAX_STYLE_PIXELS)


def page(model: DemoModel, folder: Path) -> Any:
    """Lay out the controls: a gradio.Blocks. Generated grids stay in `folder` for an hour."""
    gradio = require("gradio", "t2i-demo", "demo")

    def draw(*values: Any) -> tuple[str, str]:
        try:
            sheet = model.draw(*values)
        except T2IError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        data = io.BytesIO()
        sheet.save(data, "PNG")
        path = folder / f"t2i-{hashlib.sha256(data.getvalue()).hexdigest()[:16]}.png"
        path.write_bytes(data.getvalue())
        return str(path), str(path)

    with gradio.Blocks(title="t2i", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gradio.Markdown("## t2i: from a sentence to images")
        with gradio.Row():
            with gradio.Column():
                controls, triggers = _controls(gradio, model)
            with gradio.Column():
                shown = gradio.Image(
                    label="Images",
                    show_label=False,
                    format="png",
                    interactive=False,
                    elem_id="pictures",
                    buttons=["fullscreen"],
                )
                download = gradio.DownloadButton("Download", elem_id="download")
        gradio.on(triggers, draw, controls, [shown, download], api_name="draw", trigger_mode="always_last")
        blocks.load(draw, controls, [shown, download], api_visibility="private", show_progress="hidden")
    blocks.queue(max_size=MAX_QUEUE, default_concurrency_limit=1)
    return blocks


def _controls(gradio: Any, model: DemoModel) -> tuple[list[Any], list[Any]]:
    """Add the controls to the open column: the inputs of `DemoModel.draw`, in order, and the events that call it."""
    sentence = gradio.Textbox(EXAMPLES[0], label="Sentence", max_length=MAX_CAPTION_CHARACTERS, elem_id="sentence")
    other = gradio.Textbox(
        "",
        label="Second sentence",
        max_length=MAX_CAPTION_CHARACTERS,
        elem_id="other",
        placeholder=EXAMPLES[1],
    )
    between = gradio.Slider(0, 1, 0, step=0.05, label="From the first sentence to the second", elem_id="between")
    noise = gradio.Slider(0, 1, 0, step=0.05, label="Noise: from this one to another", elem_id="noise")
    style = gradio.Image(
        label="Style image: background and place",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard"],
        height=220,
        visible=model.has_style,
        elem_id="style",
    )
    if not model.has_style:
        gradio.Markdown(f"Style images need `t2i-train style --model {model.pipe.folder or 'RUN'}`.")
    with gradio.Row():
        count = gradio.Slider(1, MAX_IMAGES, 8, step=1, label="Images", elem_id="count")
        seed = gradio.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53, elem_id="seed")
    button = gradio.Button("Generate", variant="primary", elem_id="draw")
    controls = [sentence, other, between, noise, style, count, seed]
    triggers = [
        button.click,
        sentence.submit,
        other.submit,
        between.release,
        noise.release,
        style.upload,
        style.clear,
        count.release,
        seed.submit,
    ]
    return controls, triggers


class Server:
    """The demo as a web server.

    Args:
        pipe: The trained model.
        host: Address to listen on; 127.0.0.1 is this machine alone.
        port: 0 takes a free one.

    Raises:
        ConfigError: the extra is not installed, the port is taken, or the model has no text encoder.
    """

    def __init__(self, pipe: Pipeline, host: str = "127.0.0.1", port: int = 0) -> None:
        pipe.embed([EXAMPLES[0]])  # refused at once where there is no text encoder
        self._folder = tempfile.TemporaryDirectory(prefix="t2i-demo-")
        # Read when gradio is imported or a page is built: the upload folder, no telemetry, and no history of requests, which
        # would grow to ten thousand entries and be summed at each request.
        os.environ |= {
            "GRADIO_TEMP_DIR": self._folder.name,
            "GRADIO_ANALYTICS_ENABLED": "False",
            "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_MAX_EVENTS": "1",
            "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
        }
        gradio = require("gradio", "t2i-demo", "demo")
        fastapi, uvicorn = require("fastapi", "t2i-demo", "demo"), require("uvicorn", "t2i-demo", "demo")
        try:
            self._socket = socket.create_server((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error}); choose another --port, 0 takes a free one"
            ) from error
        self.url = f"http://{host}:{self._socket.getsockname()[1]}"
        theme = gradio.themes.Soft(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
        app = gradio.mount_gradio_app(
            fastapi.FastAPI(openapi_url=None),
            page(DemoModel(pipe), Path(self._folder.name)),
            path="",
            theme=theme,
            footer_links=[],
            run_history=False,
            max_file_size=MAX_UPLOAD_BYTES,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            show_error=True,
        )
        settings = uvicorn.Config(
            RequestFilter(app),
            log_level="error",
            limit_concurrency=256,
            timeout_graceful_shutdown=2,
            server_header=False,
        )
        self._server = uvicorn.Server(settings)

    def run(self) -> None:
        """Serve until the process is asked to stop."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._folder.cleanup()

    def __enter__(self) -> "Server":
        """Serve from a thread."""
        self._thread = threading.Thread(target=self.run, name="t2i-demo", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Stop serving."""
        self._server.should_exit = True
        self._thread.join(timeout=20)
