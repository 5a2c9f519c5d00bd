"""Weights and training state on disk: safetensors and JSON, written whole or not at all.

A run folder:

    config.json                  the settings
    model.safetensors            what draws: averaged generator and text encoder
    metrics.jsonl  samples/      what happened
    checkpoints/step-00001000/   what resuming needs: state.safetensors, state.json (step and checksum)

Every file is written beside its place, flushed to the disk and renamed; the two newest checkpoints are kept, so that a
power cut at any moment leaves one that is whole. There is no pickle on any path.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from t2i.errors import CheckpointError
from t2i.locking import lock

KEPT = 2  # checkpoints


def write_atomically(path: Path, data: bytes) -> None:
    """Replace `path` by `data`: a reader sees the old file or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(
            f"cannot write {path}: {error.strerror}; free some space or choose another --out"
        ) from error


def _sync_folder(path: Path) -> None:
    if sys.platform == "win32":
        return  # has no flush of a folder
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _serialise(tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> bytes:
    return save({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, metadata)


def save_weights(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Write modules into one safetensors file; tensor names are prefixed with the module's."""
    tensors = {f"{prefix}.{name}": t for prefix, module in modules.items() for name, t in module.state_dict().items()}
    write_atomically(path, _serialise(tensors, {"format": "pt"}))


def load_weights(path: Path, modules: Mapping[str, nn.Module]) -> None:
    """Fill modules from a file of `save_weights`, in place.

    Raises:
        CheckpointError: missing, damaged, or of another shape; the message names the first tensor that does not fit.
    """
    tensors = read_tensors(path)
    for prefix, module in modules.items():
        expected = module.state_dict()
        for name, tensor in expected.items():
            key = f"{prefix}.{name}"
            if key not in tensors:
                raise CheckpointError(f"{path} has no tensor {key!r}: it was not made by these settings")
            if tensors[key].shape != tensor.shape:
                raise CheckpointError(
                    f"{path}: {key} must be {tuple(tensor.shape)}, got {tuple(tensors[key].shape)}: "
                    "it was made with other sizes"
                )
        module.load_state_dict({name: tensors[f"{prefix}.{name}"] for name in expected})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; CheckpointError where it is missing or damaged."""
    if not path.is_file():
        raise CheckpointError(f"no such weight file: {path}")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error


def fingerprint(modules: Mapping[str, nn.Module], step: int) -> str:
    """Name the weights and statistics of modules after `step` steps: equal for equal bits, in hexadecimal digits."""
    digest = hashlib.sha256(str(step).encode())
    for prefix, module in modules.items():
        for name, tensor in module.state_dict().items():
            digest.update(f"{prefix}.{name}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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

    def save(self, step: int, facts: Mapping[str, Any]) -> Path:
        """Write the state after `step` steps, with `facts` that resuming must agree with, and drop the oldest."""
        tensors = {f"{p}/{k}": t for p, module in self.modules.items() for k, t in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"{name}/{key}": tensor for key, tensor in _optimizer_tensors(optimizer).items()}
        data = _serialise(tensors)
        final = self.folder / _folder_name(step)
        partial = self.folder / f".partial-{os.getpid()}"
        shutil.rmtree(partial, ignore_errors=True)
        try:
            partial.mkdir(parents=True)
            write_atomically(partial / "state.safetensors", data)
            record = {"step": step, "sha256": hashlib.sha256(data).hexdigest(), **facts}
            write_atomically(partial / "state.json", (json.dumps(record, indent=2) + "\n").encode())
            if final.exists():  # the same step of a run that was stopped after writing it
                shutil.rmtree(final)
            partial.rename(final)
            _sync_folder(self.folder)
        except OSError as error:
            raise CheckpointError(f"cannot write {final}: {error.strerror}; free some space") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        for old in self._present()[:-KEPT]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def _present(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def newest(self) -> str:
        """Name the newest checkpoint, for messages."""
        present = self._present()
        return f"the last good checkpoint is {present[-1]}" if present else "there is no checkpoint yet"

    def restore(self) -> tuple[int, list[str]]:
        """Load the newest whole checkpoint into networks and optimizers.

        Returns:
            The number of steps it was made after (0: none), and a line for each newer one that was damaged.
        """
        damaged: list[str] = []
        for left in self.folder.glob(".partial-*"):  # of a process that was killed while it wrote
            shutil.rmtree(left, ignore_errors=True)
        for folder in reversed(self._present()):
            try:
                record = json.loads((folder / "state.json").read_text())
                if hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest() != record["sha256"]:
                    raise CheckpointError(f"{folder} is damaged: the checksum differs")
                step = int(record["step"])
                if folder.name != _folder_name(step):  # state.json itself has no checksum
                    raise CheckpointError(f"{folder} is damaged: it says that it was made after step {step}")
                self._load(read_tensors(folder / "state.safetensors"))
            except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
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
            module.load_state_dict(groups[name])
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, groups.get(name, {}))


class RunLock:
    """One run folder, one process: the second is refused; the lock of a dead process is gone with it.

    Raises:
        CheckpointError: another process holds the folder.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = open(folder / ".lock", "a+")  # noqa: SIM115 (held as long as the run)
        except OSError as error:
            raise CheckpointError(
                f"cannot use {folder} as a run folder: {error.strerror}; choose another --out"
            ) from error
        try:
            lock(self._file)
        except OSError as error:
            self._file.close()
            raise CheckpointError(f"{folder} is in use by another run; wait for it or choose another --out") from error
        for left in folder.glob(".*.partial"):  # of a process that was killed while it wrote
            left.unlink(missing_ok=True)

    def __enter__(self) -> "RunLock":
        return self

    def __exit__(self, *exception: object) -> None:
        self._file.close()
