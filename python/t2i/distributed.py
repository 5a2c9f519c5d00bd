"""Several processes, one run: which rows each holds, what is averaged, and which one writes.

    torchrun --nproc-per-node 4 --no-python t2i-train --data data/birds --preset paper

* `--batch` is the batch of all processes together. Process r of W holds rows r B / W to (r + 1) B / W of it, and everything
  random is sampled for the joined batch and cut, so that the sequence of samples and noise is the same for any W.
* Gradients travel as one flat all-reduce a network; so do the running statistics of batch normalisation, once a step. All
  processes hold the same state, to the bit, and any of them could have written a checkpoint: process 0 does.
* A loss that is a mean over rows is averaged like its gradient. One that compares rows with each other (the alignment with
  the joint embedding) and the mixing of texts (row i with row i + B / 2) see the rows of all processes: `Ranks.gather`.
* A process that ends takes the others with it: its connections close, and their next exchange raises `PeerLost`.
* Alone, every method is the identity and nothing of torch.distributed is started.
"""

import datetime
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from t2i import runtime
from t2i.errors import ConfigError, PeerLost

P = ParamSpec("P")
T = TypeVar("T")
TIMEOUT = datetime.timedelta(minutes=30)  # for a process that neither answers nor closes its connection
POLL_SECONDS = 0.1  # between two checks whether process 0 is done


@contextmanager
def _reaching() -> Iterator[None]:
    """Turn the errors of torch.distributed, which are RuntimeErrors of many texts, into one line."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).strip().partition("\n")[0][:200]
        raise PeerLost(f"another process of this run has ended; its own message says why ({reason})") from error


class Store(Protocol):
    """A key-value store of torch.distributed."""

    def set(self, key: str, value: str, /) -> None:
        """Write a value."""

    def get(self, key: str, /) -> bytes:
        """Read a value, and wait for it."""

    def check(self, keys: list[str], /) -> bool:
        """Return whether all of these keys are there."""


class Ranks:
    """The processes of a run, as one of them sees them.

    Args:
        rank: This process, from 0.
        world: Number of processes.
        local: This process among those of its machine: which GPU it takes.
        store: None only where `world` is 1.
    """

    def __init__(self, rank: int = 0, world: int = 1, local: int = 0, store: Store | None = None) -> None:
        self.rank, self.world, self.local, self.store = rank, world, local, store
        self._notes = 0  # how often the processes have met: all of them count alike

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes the run folder and talks to the user."""
        return self.rank == 0

    def write(self, call: Callable[P, T], *arguments: P.args, **options: P.kwargs) -> T | None:
        """Call where this process is the one that writes; None elsewhere."""
        return call(*arguments, **options) if self.is_main else None

    def device(self, name: str) -> str:
        """Give each process of a machine its own GPU: the --device it should take.

        Raises:
            ConfigError: a single GPU is named for several processes.
        """
        if self.world == 1 or name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
            return name
        if name not in ("auto", "cuda"):
            raise ConfigError(f"--device {name} names one device for {self.world} processes; use --device cuda")
        return f"cuda:{self.local}"

    def rows(self, batch: int) -> int:
        """Divide a batch: rows of each process.

        Raises:
            ConfigError: the batch, or its interpolation pairs, cannot be shared out evenly.
        """
        if batch % (2 * self.world) and self.world > 1:
            raise ConfigError(
                f"--batch must be a multiple of {2 * self.world} for {self.world} processes (rows and pairs of rows are "
                f"shared out evenly), got {batch}"
            )
        return batch // self.world

    def local_rows(self, joined: Tensor) -> Tensor:
        """Cut this process's rows (B / W, ...) out of those of all (B, ...)."""
        return joined.chunk(self.world)[self.rank] if self.world > 1 else joined

    def gather(self, rows: Tensor) -> Tensor:
        """Join the rows (B / W, ...) of all processes: (B, ...), with a gradient to this process's own rows.

        What is computed from the joined rows must be computed by every process alike. Its gradient is W times that of this
        process's share: averaging over processes, as `average` does, then makes it the gradient of the whole.
        Half precision is joined, and returned, as float32.
        """
        if self.world == 1:
            return rows
        if rows.dtype in (torch.bfloat16, torch.float16):
            rows = rows.float()
        joined: Tensor = _Gather.apply(rows, self)
        return joined

    @torch.no_grad()
    def average(self, tensors: Sequence[Tensor]) -> None:
        """Average tensors over processes, in place, by one all-reduce of all of them laid end to end."""
        if self.world == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _reaching():
            dist.all_reduce(flat)
        parts = flat.div_(self.world).split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(
            list(tensors), [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]
        )

    def mean(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Average named scalars over processes."""
        if self.world == 1 or not values:
            return dict(values)
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self.average([stacked])
        return dict(zip(values, stacked, strict=True))

    def any(self, flag: bool) -> bool:
        """Return whether any process says so; waits for all of them, but never for a GPU."""
        if self.world == 1:
            return flag
        any_flag = torch.tensor(int(flag))
        with _reaching():
            dist.all_reduce(any_flag, op=dist.ReduceOp.MAX)
        return bool(any_flag)

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Let process 0 through a block alone, and the others once it is done: what it made, they find.

        The others wait as long as it takes. Where process 0 fails, they raise `PeerLost`.
        """
        if self.world == 1:
            yield
            return
        assert self.store is not None
        self._notes += 1
        note = f"first/{self._notes}"
        if self.is_main:
            try:
                yield
            except BaseException:
                self.store.set(note, "failed")
                raise
            self.store.set(note, "done")
            return
        with _reaching():
            while not self.store.check([note]):
                time.sleep(POLL_SECONDS)
            answer = self.store.get(note)
        if answer != b"done":
            raise PeerLost("process 0 could not prepare the run; its own message says why")
        yield

    def assert_same(self, values: Mapping[str, str]) -> None:
        """Make sure that all processes have the same settings, data and starting point.

        Args:
            values: What must be equal, by name; short texts.

        Raises:
            ConfigError: something differs; the message says what, and between which processes.
        """
        if self.world == 1:
            return
        assert self.store is not None
        self._notes += 1
        for name, value in values.items():
            with _reaching():
                self.store.set(f"agree/{self._notes}/{name}/{self.rank}", value)
                received = [self.store.get(f"agree/{self._notes}/{name}/{rank}").decode() for rank in range(self.world)]
            for rank, other in enumerate(received):
                if other != received[0]:
                    raise ConfigError(
                        f"processes 0 and {rank} differ in {name} ({received[0][:60]} and {other[:60]}): all machines need the "
                        "same t2i, the same data, and one run folder on a shared disk"
                    )


class _Gather(torch.autograd.Function):
    """`Ranks.gather`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, ranks: Ranks) -> Tensor:
        """Join the rows of all processes."""
        ctx.ranks = ranks
        rows = rows.contiguous()
        joined = rows.new_empty(ranks.world * len(rows), *rows.shape[1:])
        with _reaching():
            dist.all_gather(list(joined.chunk(ranks.world)), rows)
        return joined

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Every process has the same gradient of the joined rows, so that their sum is W times any one of them."""
        ranks: Ranks = ctx.ranks
        return ranks.local_rows(gradients[0]) * ranks.world, None


ALONE = Ranks()


@contextmanager
def join(device: str) -> Iterator[Ranks]:
    """Join the processes that torchrun started, or be alone where it did not.

    Args:
        device: The --device flag. GPUs talk through NCCL, and about what is on the host through Gloo, as CPUs do.

    Raises:
        ConfigError: no such device, or the environment of a launcher is incomplete.
        PeerLost: the others did not come.
    """
    world = _number("WORLD_SIZE", 1)
    if world == 1:
        yield ALONE
        return
    rank = _number("RANK")
    ranks = Ranks(rank, world, _number("LOCAL_RANK", rank))
    place = runtime.pick_device(ranks.device(device))
    if place.type == "cuda":
        torch.cuda.set_device(place)
    with _reaching():
        common, _, _ = next(dist.rendezvous("env://", rank, world, timeout=TIMEOUT))  # type: ignore[attr-defined]
        store = dist.PrefixStore(_generation(common, rank, world), common)  # type: ignore[attr-defined]
        ranks.store = dist.PrefixStore("t2i", store)  # type: ignore[attr-defined]
        backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=TIMEOUT)
    try:
        yield ranks
        ranks.any(False)  # process 0 may keep the store: it must not leave before the others have read their notes
    finally:
        dist.destroy_process_group()


def leave(ranks: Ranks) -> None:
    """End a process whose training is done; alone it returns.

    Gloo's threads sometimes abort a process on its way out ("terminate called without an active exception", twice in five
    runs of the suite, torch 2.15), which torchrun takes for a failure. Everything is on the disk by then.
    """
    if ranks.world > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _generation(store: Store, rank: int, world: int) -> str:
    """Agree on a name for this start of the run, under which all notes are kept.

    torchrun may keep its store when it starts processes again: what those before them noted would be read as if it were
    new. So each process says hello under a name of its own, process 0 answers every hello, also those of the dead, with the
    name of this start, and goes on as soon as all have confirmed that one.
    """
    own, deadline = secrets.token_hex(8), time.monotonic() + TIMEOUT.total_seconds()
    name, missing = own, set(range(1, world))
    if rank:
        store.set(f"hello/{rank}", own)
    while missing:
        if time.monotonic() > deadline:
            raise PeerLost(f"process {rank} of {world} timed out: the other processes did not start")
        if rank and store.check([f"welcome/{own}"]):
            name = store.get(f"welcome/{own}").decode()
            store.set(f"ready/{name}/{rank}", "")
            break
        for other in () if rank else sorted(missing):
            if store.check([f"hello/{other}"]):
                store.set(f"welcome/{store.get(f'hello/{other}').decode()}", own)
            if store.check([f"ready/{own}/{other}"]):
                missing.remove(other)
        time.sleep(POLL_SECONDS / 10)
    return name


def _number(name: str, default: int | None = None) -> int:
    text = os.environ.get(name, "" if default is None else str(default))
    if not text.isdecimal():
        raise ConfigError(
            f"{name} must be a number, got {text!r}: start several processes with torchrun, which sets it"
        )
    return int(text)
