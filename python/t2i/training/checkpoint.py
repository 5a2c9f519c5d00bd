"""Weights and training state on disk: safetensors and JSON, written atomically.

A run folder:

    config.json                  the settings
    model.safetensors            the model: EMA generator and text encoder
    metrics.jsonl  samples/      what happened
    checkpoints/step-00001000/   what resuming needs: state.safetensors, state.json (step, metadata, checksums of both)

* Every file is written beside its place, flushed to the disk and renamed; the two newest checkpoints are kept, and the last
  one from before a step was skipped, so that a power cut at any moment leaves one that is whole.
* Numbers that are not finite are never saved.
* A file that cannot be read just now (EIO, ESTALE, EACCES, too many open files) is no damaged file: the run stops. Where no
  checkpoint loads, it stops too; `--force` starts over, and sets the old ones aside.
* Only checkpoints that t2i wrote, and that newer ones replace, are deleted.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from t2i.config.records import differences, listed
from t2i.errors import CheckpointError, ConfigError, Diverged
from t2i.files import make_folder, read_file, sync_folder, write_atomically
from t2i.locks import check_held
from t2i.weights import non_finite, plain_tensors

MAX_CHECKPOINTS = 2
NAME = re.compile(r"step-\d{8}")
PARTIAL = re.compile(r"\.partial-\d+")
FILES = re.compile(r"state\.(json|safetensors)|\.state\.(json|safetensors)\.[0-9a-f]{12}\.partial")
MISSING = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR}  # damage; any other failure to read may be gone tomorrow


class OtherSizes(CheckpointError):
    """A checkpoint of networks of other sizes."""


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
            f"{folder} was made from something else ({listed(changed)}); choose another --out or add --force"
        )


def check_newest(run: Path, metadata: Mapping[str, Any]) -> None:
    """Compare the metadata of a run folder's newest checkpoint, as far as it can be read; ConfigError where they differ."""
    for folder in reversed(_present(run / "checkpoints")):
        with contextlib.suppress(OSError, ValueError, CheckpointError):  # damaged: restoring says so
            _compare(folder, _read_record(folder / "state.json"), metadata)
            return


def has_checkpoint(run: Path) -> bool:
    """Return whether a run folder has a checkpoint, sound or not."""
    return bool(_present(run / "checkpoints"))


def newest_tensors(run: Path) -> dict[str, Tensor]:
    """Read the tensors of a run folder's newest sound checkpoint, as "module/name"; nothing where there is none."""
    for folder in reversed(_present(run / "checkpoints")):
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError, SafetensorError, CheckpointError):
            record = _read_record(folder / "state.json")
            data = read_file(folder / "state.safetensors")
            if hashlib.sha256(data).hexdigest() == record["sha256"]:
                return load(data)
    return {}


def _present(folder: Path) -> list[Path]:
    """List the checkpoints of a folder, whole or not, from the oldest on; CheckpointError where it cannot be read."""
    try:
        return sorted(folder / name for name in os.listdir(folder) if NAME.fullmatch(name))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _unreadable(folder, error) from error


def _unreadable(path: Path, error: OSError) -> CheckpointError:
    reason = error.strerror or error
    return CheckpointError(
        f"cannot read {path}: {reason}; nothing was changed; once it can be read, the same command resumes"
    )


def _ours(folder: Path) -> bool:
    """Return whether t2i wrote a checkpoint: its record is there and sound."""
    try:
        return not folder.is_symlink() and _folder_name(int(_read_record(folder / "state.json")["step"])) == folder.name
    except (OSError, ValueError, KeyError, TypeError, RecursionError, CheckpointError):
        return False


def _remove(folder: Path) -> None:
    """Delete what t2i wrote into a folder, and the folder where nothing else is in it; a link is left as it is."""
    with contextlib.suppress(OSError):
        if folder.is_symlink():
            return
        for name in os.listdir(folder):
            if FILES.fullmatch(name):
                (folder / name).unlink()
        folder.rmdir()


def remove_checkpoints(run: Path) -> None:
    """Delete the checkpoints of a run folder, and the folders that are empty then; one with other files in it is set aside."""
    for folder in _present(run / "checkpoints"):
        _remove(folder)
        if os.path.lexists(folder):
            _set_aside(folder, "old")
    with contextlib.suppress(OSError):
        (run / "checkpoints").rmdir()
        run.rmdir()


def _set_aside(folder: Path, why: str) -> Path:
    """Rename a checkpoint so that it is neither resumed from nor deleted: why-step-00001000."""
    for number in range(1, 1000):
        target = folder.with_name(f"{why}-{folder.name}" + (f"-{number}" if number > 1 else ""))
        if not os.path.lexists(target):
            folder.rename(target)
            sync_folder(folder.parent)
            return target
    raise CheckpointError(f"{folder.parent} holds a thousand checkpoints named {why}-{folder.name}; move them away")


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
        self._skipped: set[str] = set()  # newer than the one that was restored, and damaged

    def save(self, step: int, metadata: Mapping[str, Any], good_until: int | None = None) -> Path:
        """Write the state after `step` steps, with `metadata` that resuming must agree with; keep it and the one before.

        Args:
            step: Steps done.
            metadata: What resuming is compared with.
            good_until: Where steps have been skipped of late, the last step before them; the newest checkpoint from before
                is kept as well.

        Raises:
            CheckpointError: it cannot be written, or the folder is no longer the one that the run was started in.
            Diverged: a number is not finite; nothing was written.
        """
        tensors = {f"{p}/{k}": t for p, module in self.modules.items() for k, t in module.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            tensors |= {f"{name}/{key}": tensor for key, tensor in _optimizer_tensors(optimizer).items()}
        plain = plain_tensors(tensors)
        wrong = non_finite(plain)
        if wrong is not None:
            raise Diverged(
                f"{wrong} is not finite after step {step}, which was not saved; {self.newest(good_until)}; lower the "
                "learning rate, or use --precision float32"
            )
        data = save(plain)
        check_held(self.folder)
        final = self.folder / _folder_name(step)
        partial = self.folder / f".partial-{os.getpid()}"
        _remove(partial)
        try:
            make_folder(partial)
            write_atomically(partial / "state.safetensors", data)
            record = _record({"step": step, "sha256": hashlib.sha256(data).hexdigest(), **metadata})
            write_atomically(partial / "state.json", record)
            if os.path.lexists(final):  # damaged, or resuming would not have come to this step again
                _set_aside(final, "damaged")
            partial.rename(final)
            sync_folder(self.folder)
        except (OSError, CheckpointError) as error:
            check_held(self.folder)  # the folder may be gone
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(f"cannot write {final}: {error.strerror}; free some space") from error
        finally:
            _remove(partial)
        self._rotate(final, good_until)
        return final

    def _rotate(self, final: Path, good_until: int | None) -> None:
        """Delete what the checkpoint `final` replaces; set aside those that could not be loaded."""
        bad = {name for name in self._skipped if name != final.name}
        with contextlib.suppress(OSError):
            for folder in _present(self.folder):
                if folder.name in bad or folder.name > final.name:
                    _set_aside(folder, "damaged")
        self._skipped -= bad | {final.name}
        present = _present(self.folder)
        ours = [folder for folder in present if folder.name <= final.name and _ours(folder)]
        keep = {*ours[-MAX_CHECKPOINTS:], *self._good(ours, good_until)[-1:]}
        for other in ours:
            if other not in keep:
                _remove(other)

    @staticmethod
    def _good(folders: list[Path], good_until: int | None) -> list[Path]:
        return [each for each in folders if good_until is None or each.name <= _folder_name(good_until)]

    def newest(self, good_until: int | None = None) -> str:
        """Name the newest checkpoint, or the newest one up to a step, for messages."""
        good = self._good([folder for folder in _present(self.folder) if _ours(folder)], good_until)
        if good:
            return f"the last good checkpoint is {good[-1]}"
        return "there is no checkpoint from before" if good_until is not None else "there is no checkpoint yet"

    def drop_after(self, step: int) -> None:
        """Set aside the checkpoints after a step, so that resuming goes back to it."""
        with contextlib.suppress(OSError):
            for folder in _present(self.folder):
                if folder.name > _folder_name(step):
                    _set_aside(folder, "diverged")

    def restore(self, metadata: Mapping[str, Any] | None = None, force: bool = False) -> tuple[int, list[str]]:
        """Load the newest whole checkpoint into networks and optimizers.

        Args:
            metadata: What it must have been made from; None takes any.
            force: Take one that was made from something else; where none can be loaded, set them aside and start over.

        Returns:
            The number of steps it was made after (0: none), and a line for each newer one that was damaged.

        Raises:
            ConfigError: it was made from something else; the message shows the difference.
            CheckpointError: one cannot be read just now, or there are some and none is sound. Nothing was changed.
        """
        damaged: list[str] = []
        with contextlib.suppress(OSError):
            for name in os.listdir(self.folder):
                if PARTIAL.fullmatch(name):  # of a process that was killed while it wrote
                    _remove(self.folder / name)
        present, sizes = _present(self.folder), False
        for folder in reversed(present):
            try:
                step, tensors = self._read(folder, None if force else metadata)
                self._load(tensors)
                self._skipped = {each.name for each in present if each.name > folder.name}
                return step, damaged
            except OSError as error:
                if error.errno not in MISSING:
                    raise _unreadable(Path(error.filename or folder), error) from error
                damaged.append(f"skipped a damaged checkpoint, {folder}: {error}")
            except OtherSizes as error:
                sizes = True
                damaged.append(f"skipped a checkpoint of other sizes, {folder}: {error}")
            except (ValueError, LookupError, TypeError, SafetensorError, RecursionError, CheckpointError) as error:
                damaged.append(f"skipped a damaged checkpoint, {folder}: {error}")
        if not present:
            return 0, []
        if not force:
            raise CheckpointError(
                f"no checkpoint of {self.folder} can be loaded ({damaged[0]}); nothing was changed: choose another --out, or "
                "add --force to set them aside and start over"
            )
        try:
            aside = [_set_aside(folder, "old" if sizes else "damaged") for folder in present]
        except OSError as error:
            raise CheckpointError(f"cannot set the checkpoints of {self.folder} aside: {error.strerror}") from error
        return 0, [*damaged, f"training starts over; the old checkpoints are {', '.join(map(str, aside))}"]

    def _read(self, folder: Path, metadata: Mapping[str, Any] | None) -> tuple[int, dict[str, Tensor]]:
        """Read a checkpoint and compare it with its checksums and with `metadata`."""
        record = _read_record(folder / "state.json")
        data = (folder / "state.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != record["sha256"]:
            raise CheckpointError("the checksum of state.safetensors differs")
        step = int(record["step"])
        if folder.name != _folder_name(step):
            raise CheckpointError(f"it says that it was made after step {step}")
        if metadata is not None:
            _compare(folder, record, metadata)
        return step, load(data)

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
                raise OtherSizes(f"{name}.{wrong} must be {expected.get(wrong)}, got {found.get(wrong)}")
        for name, optimizer in self.optimizers.items():  # all is compared before anything is changed
            weights = [weight for group in optimizer.param_groups for weight in group["params"]]
            for key, tensor in groups.get(name, {}).items():
                number = int(key.split(".", 1)[0])
                if tensor.dim() and tensor.shape != weights[number].shape:
                    raise OtherSizes(f"{name}.{key} must be {tuple(weights[number].shape)}, got {tuple(tensor.shape)}")
        for name, module in self.modules.items():
            module.load_state_dict(groups.get(name, {}))  # a frozen image side has no tensors
        for name, optimizer in self.optimizers.items():
            _restore_optimizer(optimizer, groups.get(name, {}))
