"""Weights and training state on disk: safetensors and JSON, written whole or not at all.

A run folder:

    config.json                  the settings
    model.safetensors            the model: EMA generator and text encoder
    metrics.jsonl  samples/      what happened
    checkpoints/step-00001000/   what resuming needs: state.safetensors, state.json (step, metadata, checksums of both)

Every file is written beside its place, flushed to the disk and renamed; the two newest checkpoints are kept, so that a
power cut at any moment leaves one that is whole. Weight files carry a checksum of their tensors in their own header. Nothing
is pickled.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from t2i.config.records import differences
from t2i.errors import CheckpointError, ConfigError
from t2i.files import make_folder, sync_folder, write_atomically
from t2i.weights import plain_tensors

MAX_CHECKPOINTS = 2


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Flatten an optimizer's state: one tensor per parameter number and name."""
    state = optimizer.state_dict()["state"]
    return {
        f"{index}.{name}": torch.as_tensor(value) for index, slots in state.items() for name, value in slots.items()
    }


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # Files hold tensors in plain order. A fused optimizer walks weight and moments through memory side by side, so the
    # moments of a channels-last weight must lie as the weight does: in plain order they would move other elements.
    for weight, slots in optimizer.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == weight.shape:
                slots[name] = torch.empty_like(weight, dtype=value.dtype).copy_(value)


def _record(metadata: Mapping[str, Any]) -> bytes:
    """Write state.json: metadata, and a checksum of them as the last line."""
    body = json.dumps(metadata, indent=2)
    checksum = hashlib.sha256(body.encode()).hexdigest()
    return (json.dumps({**metadata, "checksum": checksum}, indent=2) + "\n").encode()


def _read_record(path: Path) -> dict[str, Any]:
    """Read state.json; CheckpointError where it is not what `_record` writes, to the byte."""
    data = path.read_bytes()
    metadata: dict[str, Any] = json.loads(data)
    if not isinstance(metadata, dict) or metadata.pop("checksum", None) is None or _record(metadata) != data:
        raise CheckpointError("the checksum of state.json differs")
    return metadata


def _compare(folder: Path, record: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    """Raise ConfigError where a checkpoint was made from other metadata, and show which."""
    changed = differences(record, json.loads(json.dumps(metadata)))  # tuples become lists, as they did when written
    if changed:
        raise ConfigError(
            f"{folder} was made from something else ({'; '.join(changed)}); choose another --out or add --force"
        )


def check_newest(run: Path, metadata: Mapping[str, Any]) -> None:
    """Compare the metadata of a run folder's newest checkpoint, as far as it can be read; ConfigError where they differ."""
    for folder in sorted((run / "checkpoints").glob("step-*"), reverse=True):
        with contextlib.suppress(OSError, ValueError, CheckpointError):  # damaged: restoring says so
            _compare(folder, _read_record(folder / "state.json"), metadata)
            return


def _folder_name(step: int) -> str:
    return f"step-{step:08d}"


class Checkpoints:
    """The training state of one run folder.

    Args:
        folder: The run folder.
        modules: Networks, by name.
        optimizers: Optimizers, by name.
    """

    def __init__(
        self, folder: Path, modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> None:
        self.folder, self.modules, self.optimizers = folder / "checkpoints", modules, optimizers

    def save(self, step: int, metadata: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps, with `metadata` that resuming must agree with; keep it and the one before."""
        tensors = {f"{p}/{k}": t for p, module in self.modules.items() for k, t in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"{name}/{key}": tensor for key, tensor in _optimizer_tensors(optimizer).items()}
        data = save(plain_tensors(tensors))
        final = self.folder / _folder_name(step)
        partial = self.folder / f".partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            make_folder(partial)
            write_atomically(partial / "state.safetensors", data)
            record = _record({"step": step, "sha256": hashlib.sha256(data).hexdigest(), **metadata})
            write_atomically(partial / "state.json", record)
            if final.exists():  # damaged, or resuming would not have come to this step again
                shutil.rmtree(final)
            partial.rename(final)
            sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(f"cannot write {final}: {error.strerror}; free some space") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        present = self._present()
        newest = [folder for folder in present if folder.name <= final.name][-MAX_CHECKPOINTS:]
        for other in present:
            if other not in newest:  # older ones, and later ones, which are damaged, as above
                shutil.rmtree(other, ignore_errors=True)
        return final

    def _present(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def newest(self) -> str:
        """Name the newest checkpoint, for messages."""
        present = self._present()
        return f"the last good checkpoint is {present[-1]}" if present else "there is no checkpoint yet"

    def restore(self, metadata: Mapping[str, Any] | None = None) -> tuple[int, list[str]]:
        """Load the newest whole checkpoint into networks and optimizers.

        Args:
            metadata: What it must have been made from; None takes any.

        Returns:
            The number of steps it was made after (0: none), and a line for each newer one that was damaged.

        Raises:
            ConfigError: it was made from something else; the message shows the difference.
        """
        damaged: list[str] = []
        for left in self.folder.glob(".partial-*"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        for folder in reversed(self._present()):
            try:
                record = _read_record(folder / "state.json")
                data = (folder / "state.safetensors").read_bytes()
                if hashlib.sha256(data).hexdigest() != record["sha256"]:
                    raise CheckpointError("the checksum of state.safetensors differs")
                step = int(record["step"])
                if folder.name != _folder_name(step):
                    raise CheckpointError(f"it says that it was made after step {step}")
                if metadata is not None:
                    _compare(folder, record, metadata)
                self._load(load(data))
            except (OSError, ValueError, KeyError, TypeError, SafetensorError, CheckpointError) as error:
                damaged.append(f"skipped a damaged checkpoint, {folder}: {error}")
                continue
            return step, damaged
        return 0, damaged

    def _load(self, tensors: Mapping[str, Tensor]) -> None:
        groups: dict[str, dict[str, Tensor]] = {}
        for key, tensor in tensors.items():
            prefix, name = key.split("/", 1)
            groups.setdefault(prefix, {})[name] = tensor
        for name, module in self.modules.items():
            expected = {key: tuple(t.shape) for key, t in module.state_dict().items()}
            found = {key: tuple(t.shape) for key, t in groups.get(name, {}).items()}
            if expected != found:
                wrong = next(key for key in [*expected, *found] if expected.get(key) != found.get(key))
                raise CheckpointError(
                    f"{name}.{wrong} must be {expected.get(wrong)}, got {found.get(wrong)}: made with other sizes"
                )
        for name, module in self.modules.items():
            module.load_state_dict(groups.get(name, {}))  # a frozen image side has no tensors
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, groups.get(name, {}))
