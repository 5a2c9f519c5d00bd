"""The judge of docs/speedrun.md: measures a model folder against the bars, and exits with 1 where one is missed."""

import argparse
import json
import sys
from pathlib import Path

import torch

from t2i.data.dataset import PackedDataset
from t2i.metrics.live import LiveFigures
from t2i.pipeline import Pipeline
from t2i.training.scorer import independent_scorer

IMAGES, SEED = 1000, 1000
MOST_KID, LEAST_TEXT, MOST_COPIES = 15.0, 0.75, 0.01


def missed(values: dict[str, float]) -> list[str]:
    """Name the bars that figures of `metrics.live` miss."""
    bars = {
        f"kid_pixels at most {MOST_KID:.0f}": values["kid_pixels"] <= MOST_KID,
        f"r_precision at least {LEAST_TEXT:.0%} of real": values["r_precision"]
        >= LEAST_TEXT * values["r_precision_real"],
        f"copies at most {MOST_COPIES:.0%} above real": values["copies"] <= values["copies_real"] + MOST_COPIES,
    }
    return [name for name, passed in bars.items() if not passed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="packed data set")
    parser.add_argument("--model", required=True, help="run folder, or folder of save_pretrained")
    parser.add_argument("--scorer", help="where the scorer is kept (default: DATA/speedrun-scorer)")
    args = parser.parse_args()
    data, device = PackedDataset(args.data), torch.device("cpu")
    pipe = Pipeline.from_pretrained(args.model)
    folder = Path(args.scorer) if args.scorer else Path(args.data) / "speedrun-scorer"
    scorer = independent_scorer(data, pipe.config.size, SEED, folder, device, torch.float32)
    values = LiveFigures(data, "test", scorer, IMAGES, SEED)(pipe)
    print(json.dumps({name: round(value, 4) for name, value in sorted(values.items())}, indent=2))
    wrong = missed(values)
    print("all bars passed" if not wrong else f"missed: {'; '.join(wrong)}")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
