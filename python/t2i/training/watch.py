"""Watchdogs: a run that goes on but learns nothing says so, in one line a cause, once.

* The discriminator is right about every pair, or tells none apart: neither teaches the generator anything.
* The images do not depend on the noise, or not on the sentence.
* The speed has halved: another program wants the CPU.

The losses look harmless in all of them. Nothing here changes the run.
"""

from collections.abc import Callable, Mapping

from torch import Tensor
from tqdm import tqdm

from t2i import console

LINES = 20  # log lines in a row after which a state counts as lasting
GRIDS = 2  # sample grids in a row
EARLY = 200  # steps before which every image is the same gray
SURE = 0.99  # mean score of real pairs above it, and of the others below 1 - SURE: right about every pair
MIN_DIFFERENCE = 0.01  # difference of mean scores below which pairs are not separated
SLOW, SLOW_LINES = 0.5, 5  # part of the run's best speed, and log lines in a row below it
CHANGE = 0.02  # standard deviation of pixels (-1..1) that noise or sentence must cause: two or three grey levels of 255


def _say(line: str) -> None:
    tqdm.write(line, file=console.errors())


class Watch:
    """Check what a run logs and its sample images.

    Args:
        say: Where a warning goes.
    """

    def __init__(self, say: Callable[[str], None] = _say) -> None:
        self.say = say
        self._lasting: dict[str, int] = {}
        self._said: set[str] = set()
        self._best_speed = 0.0

    def speed(self, step: int, images_per_second: float) -> None:
        """Check a log line's speed."""
        self._best_speed = max(self._best_speed, images_per_second)
        self._warn_if(
            "slow",
            images_per_second < SLOW * self._best_speed,
            SLOW_LINES,
            f"{images_per_second:.0f} images a second at step {step}, after {self._best_speed:.0f} before: other programs use "
            "this machine; if several threads are used, resuming with --threads 1 may be faster (the last bits then differ)",
        )

    def scores(self, step: int, values: Mapping[str, float]) -> None:
        """Check a log line's mean scores (0..1) of matching, fake and, where there are any, mismatched pairs."""
        if "matching" not in values or "fake" not in values:
            return  # not finite in this step
        real, others = values["matching"], [values[name] for name in ("fake", "mismatched") if name in values]
        self._warn_if(
            "sure",
            real > SURE and max(others) < 1 - SURE,
            LINES,
            f"the discriminator was right about every pair in {LINES} log lines up to step {step}: the generator cannot "
            "learn from it; lower --discriminator-width or --learning-rate",
        )
        self._warn_if(
            "lost",
            all(abs(real - other) < MIN_DIFFERENCE for other in others),
            LINES,
            f"the discriminator separated no pairs in {LINES} log lines up to step {step}: the generator cannot learn "
            "from it; lower --learning-rate, or start over with another --seed",
        )

    def images(self, step: int, images: Tensor | None) -> None:
        """Check images (texts, noises, ...) in -1..1, of which a row shares its text and a column its noise.

        Args:
            step: Steps done.
            images: None in a process that generated none.
        """
        if step < EARLY or images is None:
            return
        by_noise = float(images.std(dim=1).mean()) if images.shape[1] > 1 else CHANGE
        by_text = float(images.std(dim=0).mean()) if images.shape[0] > 1 else CHANGE
        self._warn_if(
            "noise",
            by_noise < CHANGE,
            GRIDS,
            f"every noise gives the same image at step {step} (pixels differ by {by_noise:.3f} of 2); "
            "raise --recovery-weight, or lower --alignment-weight",
        )
        self._warn_if(
            "text",
            by_text < CHANGE,
            GRIDS,
            f"every sentence gives the same image at step {step} (pixels differ by {by_text:.3f} of 2); "
            "train the text encoder longer, or raise --alignment-weight",
        )

    def _warn_if(self, cause: str, present: bool, lasting: int, line: str) -> None:
        """Count how long a cause has been there, and say so once when that is long."""
        self._lasting[cause] = self._lasting.get(cause, 0) + 1 if present else 0
        if self._lasting[cause] >= lasting and cause not in self._said:
            self._said.add(cause)
            self.say(f"warning: {line}")
