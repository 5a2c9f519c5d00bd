"""Several processes on this machine, joined as torchrun would join them, without waiting for torch to be imported by each."""

import multiprocessing
import os
import socket
import traceback
from typing import NamedTuple

import numpy as np
import torch
from torch.utils._pytree import tree_map

from t2i import distributed

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["t2i.training.gan", "torch._dynamo"])  # the second by the first optimizer of a process
DEADLINE = 280.0  # seconds: what is not done then hangs


class _Tensor(NamedTuple):
    """A tensor's numbers: a tensor itself would travel as a file that its process must stay alive for."""

    numbers: np.ndarray


def _plain(tree):
    return tree_map(lambda x: _Tensor(x.detach().numpy()) if isinstance(x, torch.Tensor) else x, tree)


def _tensors(tree):
    return tree_map(
        lambda x: torch.from_numpy(x.numbers.copy()) if isinstance(x, _Tensor) else x,
        tree,
        is_leaf=lambda x: isinstance(x, _Tensor),
    )


def _work(pipe, rank, world, port, work, arguments):
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(world),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }
    torch.set_num_threads(1)
    try:
        with distributed.join("cpu") as ranks:
            pipe.send((_plain(work(ranks, *_tensors(arguments))), None))
    except BaseException as error:
        traceback.print_exc()
        pipe.send((None, f"{type(error).__name__}: {error}"))


def together(world, work, *arguments):
    """Call work(ranks, *arguments) in `world` processes: a (result, error) of each, rank by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes, processes = [], []
    for rank in range(world):
        here, there = CONTEXT.Pipe(duplex=False)
        processes.append(CONTEXT.Process(target=_work, args=(there, rank, world, port, work, _plain(arguments))))
        processes[-1].start()
        there.close()
        pipes.append(here)
    answers = []
    try:
        for rank, pipe in enumerate(pipes):
            assert pipe.poll(DEADLINE), f"process {rank} of {world} hangs"
            try:
                result, error = pipe.recv()
                answers.append((_tensors(result), error))
            except (EOFError, ConnectionResetError):
                answers.append((None, "killed"))
    finally:
        for process in processes:
            process.join(1.0)
            process.kill()
    return answers


def results(world, work, *arguments):
    """Like `together`, where no process may fail: the results."""
    answers = together(world, work, *arguments)
    assert [error for _, error in answers] == [None] * world
    return [result for result, _ in answers]
