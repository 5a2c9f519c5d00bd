"""R-precision by a judge that is strong on real images: n-grams against all stages of FID's network.

It learns from the training classes and from half of the images of the held-out classes, which no generator has seen, so that
it knows their captions; real images are judged on the other half. Two figures: does an image retrieve the caption it was
generated from out of 100 (`caption`), and all captions of that image, averaged, out of 100 images' (`captions`).

    python benches/python/judge.py --data data/oxford102 --features inception.safetensors --model runs/one runs/two

The judge and the features of all images are kept beside the data set. FID's network knows ImageNet: see docs/metrics.md.
"""

import argparse
import json

import numpy as np
import torch
import torch.nn.functional as F
from numpy.random import Generator, Philox
from numpy.typing import NDArray
from torch import Tensor

from t2i import runtime
from t2i.config.options import JointOptions
from t2i.data.cache import cached_tensor
from t2i.data.dataset import PackedDataset
from t2i.metrics.inception import BLOCKS, FeatureNetwork, resize_as_tensorflow
from t2i.metrics.inputs import center_crop
from t2i.metrics.retrieval import captions_of_split, mismatched_rows, r_precision
from t2i.metrics.scoring import ImageSample, sample_images
from t2i.models.encoders import WhitenedEncoder
from t2i.pipeline import Pipeline
from t2i.text.build import text_encoder
from t2i.text.inputs import CaptionInputs
from t2i.training.losses import class_contrastive_loss
from t2i.training.optim import set_learning_rate
from t2i.training.text_objectives import warm_cosine
from t2i.weights import load_weights, save_weights

SIDE = 149  # pixels that FID's network reads here: a quarter of the work of 299
STEPS, BATCH, CAPTIONS, COMPONENTS, SEED = 500, 256, 5, 256, 77
SAMPLE_SEED = 0  # of the images that are judged
OPTIONS = JointOptions(kind="ngrams", dim=128, objective="class-contrastive")
CPU = torch.device("cpu")


@torch.no_grad()
def stages(network: FeatureNetwork, images: NDArray[np.uint8], batch: int = 32) -> Tensor:
    """Take mean and deviation over places of every block's output: images (N, S, S, 3) to (N, 2 sum C)."""
    rows, device = [], next(network.parameters()).device
    precision = runtime.pick_precision("auto", device)
    for part in torch.from_numpy(np.ascontiguousarray(images)).split(batch):
        with runtime.autocast(device, precision):
            x = ((resize_as_tensorflow(part.to(device), SIDE) - 128) / 128).contiguous(
                memory_format=torch.channels_last
            )
            found = []
            for block in BLOCKS:
                x = torch.cat([network._run(x, branch) for branch in block], dim=1)
                found += [x.float().mean(dim=(2, 3)), x.float().std(dim=(2, 3))]
        rows.append(torch.cat(found, dim=1).cpu())
    return torch.cat(rows)


class Judge:
    """Both sides of the joint embedding, and the images of the held-out classes that it has not learned from.

    Args:
        data: Packed data set.
        network: FID's network.
        size: Side of the generated images; real ones are cropped to it.
    """

    def __init__(self, data: PackedDataset, network: FeatureNetwork, size: int) -> None:
        self.data, self.network, self.test = data, network, data.split("test")
        shuffled = Generator(Philox(key=SEED)).permutation(self.test)
        self.known, self.unknown = np.sort(shuffled[::2]), np.sort(shuffled[1::2])
        width = stages(network, center_crop(data.read_images([0]), size)).shape[1]
        facts = {"data": data.fingerprint, "size": size, "side": SIDE}
        self.real = cached_tensor(
            data.path,
            "judge-features",
            facts,
            (len(data), width),
            lambda: torch.cat(
                [
                    stages(network, center_crop(data.read_images(rows), size)).half()
                    for rows in np.array_split(np.arange(len(data)), max(1, len(data) // 512))
                ]
            ),
        ).float()
        self.text, self.image = text_encoder(OPTIONS), WhitenedEncoder(width, OPTIONS.dim, COMPONENTS)
        self.inputs = CaptionInputs(self.text, data, CPU)
        path = data.path / f"judge-{size}.safetensors"
        if path.exists():
            load_weights(path, {"text": self.text, "image": self.image})
        else:
            self.learn()
            save_weights(path, {"text": self.text, "image": self.image})
        self.text.eval()
        self.image.eval()

    def learn(self) -> None:
        """Learn as `class-contrastive` encoders do."""
        rows = np.sort(np.concatenate([self.data.split("train"), self.known]))
        torch.manual_seed(SEED)
        self.fit(self.real[torch.from_numpy(rows)])
        self.inputs.fit(self.text, self.data.caption_rows(rows))
        adam = torch.optim.AdamW([*self.text.parameters(), *self.image.parameters()], weight_decay=1e-2, fused=True)
        groups, counts = torch.from_numpy(self.data.groups()), np.diff(self.data.caption_offsets)
        for step in range(STEPS):
            draw = Generator(Philox(key=[SEED, step]))
            chosen = draw.choice(rows, min(BATCH, len(rows)), replace=False)
            captions = self.data.caption_offsets[chosen, None] + draw.integers(
                0, counts[chosen, None], (len(chosen), CAPTIONS)
            )
            texts = F.normalize(self.text(self.inputs(captions.reshape(-1))), dim=1).unflatten(0, (len(chosen), -1))
            seen = self.image(self.real[torch.from_numpy(chosen)])
            loss = class_contrastive_loss(seen, texts.mean(dim=1), groups[torch.from_numpy(chosen)])
            set_learning_rate(adam, warm_cosine(5e-3, step, STEPS))
            adam.zero_grad(set_to_none=True)
            loss.backward()
            adam.step()

    def fit(self, features: Tensor) -> None:
        """Take the principal components over; found at random, since there are thousands of numbers (Halko et al. 2011)."""
        mean, deviation = features.mean(dim=0), features.std(dim=0) + 1e-6
        _, values, vectors = torch.svd_lowrank((features - mean) / deviation, q=COMPONENTS, niter=3)
        self.image.mean.copy_(mean)
        self.image.components.copy_(vectors / (values / len(features) ** 0.5) / deviation[:, None])

    @torch.no_grad()
    def score(self, features: Tensor, images: NDArray[np.int64], captions: NDArray[np.int64]) -> dict[str, float]:
        """Score features (N, D) made for caption rows (N,) of held-out images (N,)."""
        rows, classes = captions_of_split(self.data, self.test)
        said = torch.cat([F.normalize(self.text(self.inputs(part)), dim=1) for part in np.array_split(rows, 50)])
        owner = torch.from_numpy(
            np.searchsorted(self.test, np.repeat(self.test, np.diff(self.data.caption_offsets)[self.test]))
        )
        means = F.normalize(torch.zeros(len(self.test), said.shape[1]).index_add_(0, owner, said), dim=1)
        seen = F.normalize(self.image(features), dim=1)
        own, of = np.searchsorted(rows, captions), np.searchsorted(self.test, images)
        labels = self.data.classes[self.test].astype(np.int64)
        return {
            "caption": r_precision(seen, said, own, mismatched_rows(classes, own, SEED)),
            "captions": r_precision(seen, means, of, mismatched_rows(labels, of, SEED)),
        }


def judge_images(sample: ImageSample, data: PackedDataset, network: FeatureNetwork) -> dict[str, dict[str, float]]:
    """Score a sample of the held-out classes: {"generated": figures, "real": figures}."""
    judge = Judge(data, network, sample.generated.shape[1])
    images = sample.chosen[sample.own]
    unknown = np.isin(images, judge.unknown)
    real = judge.score(judge.real[torch.from_numpy(images[unknown])], images[unknown], sample.captions[unknown])
    return {"generated": judge.score(stages(network, sample.generated), images, sample.captions), "real": real}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="packed data set with held-out classes")
    parser.add_argument("--features", required=True, help="feature network of FID-768, a .safetensors")
    parser.add_argument("--model", required=True, nargs="+", help="run folders")
    parser.add_argument("--count", type=int, default=1155, help="images generated by each")
    parser.add_argument("--device", default="cpu", help="where FID's network and the generators compute")
    args = parser.parse_args()
    device = runtime.pick_device(args.device)
    data, network = PackedDataset(args.data), FeatureNetwork.load(args.features).to(device)
    for model in args.model:
        pipe = Pipeline.from_pretrained(model, args.device)
        sample = sample_images(pipe, data, "test", args.count, SAMPLE_SEED)
        print(json.dumps({"model": model} | judge_images(sample, data, network)), flush=True)


if __name__ == "__main__":
    main()
