"""The web demo: sentences in, a grid of pictures out, in the browser of the machine it runs on.

* `DemoModel` draws and knows nothing of the web; `page` lays the controls out; `Server` runs them behind `demo_guard`.
* Nothing leaves the machine: no analytics, no fonts or scripts from elsewhere, and it listens on 127.0.0.1.
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

MAX_IMAGES = 16  # pictures of a grid
MAX_CAPTION_CHARACTERS = 1000  # characters of a sentence; the encoder reads 201
MAX_STYLE_BYTES = 25_000_000  # pixels of a style picture
WAITING = 32  # requests in the queue; more are told to try again
EXAMPLES = (
    EXAMPLE,
    "a flower with six blue petals and a white centre",
    "a purple flower with a yellow disc",
)


class DemoModel:
    """Draw what the page's controls say.

    Args:
        pipe: The trained model, with its text encoder.
        side: Pixels a picture is shown at.
    """

    def __init__(self, pipe: Pipeline, side: int = 160) -> None:
        self.pipe, self.side = pipe, side
        self.has_style = (
            pipe.has_style and pipe.style is not None
        )  # loaded now: what is wrong with it is said at the start

    @torch.no_grad()
    def draw(
        self, sentence: Any, other: Any = "", between: Any = 0.0, noise: Any = 0.0, style: Any = None, count: Any = 8,
        seed: Any = 0,
    ) -> Image.Image:  # fmt: skip
        """Draw a grid. Every argument is what a browser, or somebody else, sent: it is checked here.

        Args:
            sentence: What to draw.
            other: A second sentence, or nothing.
            between: 0 is the first sentence, 1 the second.
            noise: 0 is the noise of the seed, or of the style picture; 1 is other noise, on an arc between.
            style: Path of a picture that background and place come from, or None.
            count: Pictures, 1 to 16.
            seed: Chooses the noise.

        Raises:
            ConfigError: a value of another type or out of its range.
            DataError: the style picture cannot be read.
        """
        several, whole = (
            self._number(count, "the number of pictures", 1, MAX_IMAGES),
            self._number(seed, "the seed", 0, 2**53),
        )
        text_weight = self._number(between, "the way between the sentences", 0, 1)
        noise_weight = self._number(noise, "the noise", 0, 1)
        ends = [self._sentence(sentence)]
        if isinstance(other, str) and other.strip():
            ends.append(self._sentence(other))
        elif text_weight:
            raise ConfigError("write a second sentence to go to, or move the slider back to the first one")
        weights = [[1 - text_weight, text_weight]] if len(ends) == 2 else [[1.0]]
        rows, device = int(several), self.pipe.device
        shape = (rows, self.pipe.config.noise_dim)
        first = runtime.noise(shape, device, int(whole), 0, "generate")
        if style is None:
            second = runtime.noise(shape, device, int(whole), 1, "generate")
        else:
            second = first  # the seed's noise is what the slider goes to
            first = self.pipe.style_noise(self._style(style)).expand(shape)
        z = slerp(first, second, torch.tensor([noise_weight], device=device))[:, 0]
        drawn = to_uint8(self.pipe.draw(z, self.pipe.mix(ends, weights).expand(rows, -1)))
        columns = min(rows, 4)
        full = -(-rows // columns) * columns
        padded = torch.full((full, *drawn.shape[1:]), 255, dtype=torch.uint8).numpy()
        padded[:rows] = drawn
        cells = padded.reshape(-1, columns, *drawn.shape[1:])
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
            raise ConfigError(f"write a sentence: what shall be drawn? As in: {EXAMPLES[0]}")
        return value[:MAX_CAPTION_CHARACTERS]

    def _style(self, path: Any) -> torch.Tensor:
        if not self.has_style:
            raise ConfigError(f"this model reads no style yet: t2i-train style --model {self.pipe.folder or 'RUN'}")
        if not isinstance(path, str):
            raise ConfigError("the style must be an uploaded picture")
        return read_pictures([path], self.pipe.config.size, most_pixels=MAX_STYLE_BYTES)


def page(studio: DemoModel, folder: Path) -> Any:
    """Lay the controls out: a gradio.Blocks. Pictures drawn for it are kept in `folder` for an hour."""
    gradio = require("gradio", "t2i-demo", "demo")

    def draw(*values: Any) -> tuple[str, str]:
        try:
            sheet = studio.draw(*values)
        except T2IError as error:
            raise gradio.Error(str(error), print_exception=False) from error
        data = io.BytesIO()
        sheet.save(data, "PNG")
        path = folder / f"t2i-{hashlib.sha256(data.getvalue()).hexdigest()[:16]}.png"
        path.write_bytes(data.getvalue())
        return str(path), str(path)

    with gradio.Blocks(title="t2i", analytics_enabled=False, delete_cache=(600, 3600)) as blocks:
        gradio.Markdown("## t2i: from a sentence to pictures")
        with gradio.Row():
            with gradio.Column():
                sentence = gradio.Textbox(
                    EXAMPLES[0], label="Sentence", max_length=MAX_CAPTION_CHARACTERS, elem_id="sentence"
                )
                other = gradio.Textbox("", label="Second sentence", max_length=MAX_CAPTION_CHARACTERS, elem_id="other",
                                       placeholder=EXAMPLES[1])  # fmt: skip
                between = gradio.Slider(0, 1, 0, step=0.05, label="From the first sentence to the second",
                                        elem_id="between")  # fmt: skip
                noise = gradio.Slider(0, 1, 0, step=0.05, label="Noise: from this one to another", elem_id="noise")
                style = gradio.Image(label="Style picture: its background, its place", type="filepath",
                                     image_mode=None, sources=["upload", "clipboard"], height=220,
                                     visible=studio.has_style, elem_id="style")  # fmt: skip
                if not studio.has_style:
                    gradio.Markdown(f"Style pictures need `t2i-train style --model {studio.pipe.folder or 'RUN'}`.")
                with gradio.Row():
                    count = gradio.Slider(1, MAX_IMAGES, 8, step=1, label="Pictures", elem_id="count")
                    seed = gradio.Number(0, label="Seed", precision=0, minimum=0, maximum=2**53, elem_id="seed")
                button = gradio.Button("Draw", variant="primary", elem_id="draw")
            with gradio.Column():
                shown = gradio.Image(label="Pictures", show_label=False, format="png", interactive=False, elem_id="pictures",
                                     buttons=["fullscreen"])  # fmt: skip
                download = gradio.DownloadButton("Download", elem_id="download")
        controls = [sentence, other, between, noise, style, count, seed]
        triggers = [button.click, sentence.submit, other.submit, between.release, noise.release, style.upload, style.clear,
                    count.release, seed.submit]  # fmt: skip
        gradio.on(triggers, draw, controls, [shown, download], api_name="draw", trigger_mode="always_last")
        blocks.load(draw, controls, [shown, download], api_visibility="private", show_progress="hidden")
    blocks.queue(max_size=WAITING, default_concurrency_limit=1)
    return blocks


class Server:
    """The demo on a port of its own.

    Args:
        pipe: The trained model.
        host: Address to listen on; 127.0.0.1 is this machine alone.
        port: 0 takes a free one.

    Raises:
        ConfigError: the extra is not installed, the port is taken, or the model has no text encoder.
    """

    def __init__(self, pipe: Pipeline, host: str = "127.0.0.1", port: int = 0) -> None:
        pipe.embed([EXAMPLES[0]])  # says at once where there is no text encoder
        self._folder = tempfile.TemporaryDirectory(prefix="t2i-demo-")
        # Read while gradio is imported or a page is made: where uploads go, that nothing is reported anywhere, and that no
        # record of requests is kept, which would grow to ten thousand and be added up at each.
        os.environ |= {
            "GRADIO_TEMP_DIR": self._folder.name, "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1",
            "GRADIO_ANALYTICS_MAX_EVENTS": "1", "GRADIO_ANALYTICS_CACHE_FREQUENCY": "1000000000",
        }  # fmt: skip
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
            fastapi.FastAPI(openapi_url=None), page(DemoModel(pipe), Path(self._folder.name)), path="", theme=theme,
            footer_links=[], run_history=False, max_file_size=MAX_UPLOAD_BYTES, ssr_mode=False, pwa=False, mcp_server=False,
            enable_monitoring=False, show_error=True,
        )  # fmt: skip
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
