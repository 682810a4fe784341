"""A training run in a folder: what it takes to be killed at any moment and go on.

Several processes started by ``torchrun --nproc-per-node N -m training.…`` train one model together:
each works on its share of every batch. On a CPU, N processes of one thread are nearly twice as fast
as one of two.

Optimisers: Muon (Jordan et al., 2024; scaled as in arXiv 2502.16982) for the matrices of linear
layers that a model names, AdamW for all else, at one learning rate.

The folder holds ``state.safetensors`` (weights, their moving average, optimiser), ``log.csv``
(the curves) and whatever sheets the trainer draws. The state is written aside and renamed, so a
kill leaves the last whole one.
"""

from __future__ import annotations

import atexit
import csv
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, distributed, nn

Model = TypeVar("Model", bound=nn.Module)

STATE = "state.safetensors"
SAVE_S = 60
DECAY = 0.25
"""The share of a run in which the learning rate falls."""


def together() -> tuple[int, int]:
    """The number of this process, and how many train together."""
    if "WORLD_SIZE" not in os.environ:
        return 0, 1
    if not distributed.is_initialized():
        distributed.init_process_group()
        # As PyTorch asks: its threads are not to be met by the interpreter's end.
        atexit.register(distributed.destroy_process_group)
    return distributed.get_rank(), distributed.get_world_size()


def precision(device: str, exact: bool = False) -> torch.autocast:
    """A context to compute in: bfloat16 on a GPU unless it must be ``exact``, else float32.

    A CPU stays with float32: without matrix instructions for bfloat16 (AMX) a step of the decoder
    takes 1.3 times as long in it, 1.1 times if compiled, and one of pixels 1.5 times.
    """
    return torch.autocast(device, torch.bfloat16, enabled=device != "cpu" and not exact)


def steps_made(folder: Path) -> int:
    """How many steps a run has behind it, as it was last saved; 0 if it was not begun."""
    path = folder / STATE
    if not path.exists():
        return 0
    with safe_open(path, framework="pt") as file:
        return int(file.metadata()["step"])


class Run(Generic[Model]):
    """One model being trained: moving average, resumable.

    The learning rate warms up, stays, and falls in the last quarter. So a run can be made longer,
    or be brought to its end early, by another ``steps``.

    Args:
        folder: where everything is kept; created.
        model: the module to train; its weights are replaced by those of an earlier state.
        steps: length of the whole run; the learning rate follows it.
        learning_rate: the peak.
        device: ``cpu`` or ``cuda``.
        muon: names of submodules whose linear layers Muon trains.
    """

    def __init__(
        self,
        folder: Path,
        model: Model,
        steps: int,
        learning_rate: float,
        device: str,
        muon: Sequence[str] = (),
    ) -> None:
        self.folder, self.model, self.steps, self.device = folder, model.to(device), steps, device
        folder.mkdir(parents=True, exist_ok=True)
        self.learning_rate = learning_rate
        hidden = {
            layer.weight: None
            for name in muon
            for layer in model.get_submodule(name).modules()
            if isinstance(layer, nn.Linear)
        }
        rest = [p for p in model.parameters() if p not in hidden]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in rest if p.ndim > 1], "weight_decay": 0.05},
            {"params": [p for p in rest if p.ndim <= 1]},
        ]
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(
                groups, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
            )
        ]
        if hidden:
            self.optimizers.append(
                torch.optim.Muon(
                    list(hidden),
                    lr=learning_rate,
                    weight_decay=0.05,
                    adjust_lr_fn="match_rms_adamw",
                )
            )
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.rank, self.processes = together()
        self.step = steps_made(folder)
        self._resume()

    @property
    def _path(self) -> Path:
        return self.folder / STATE

    def _resume(self) -> None:
        if not self._path.exists():
            return
        names = {p: name for name, p in self.model.named_parameters()}
        with safe_open(self._path, framework="pt", device=self.device) as file:
            kept = set(file.keys())
            for parameter, name in names.items():
                parameter.data.copy_(file.get_tensor(f"model.{name}"))
                self.average[name].copy_(file.get_tensor(f"average.{name}"))
            for optimizer in self.optimizers:
                for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                    optimizer.state[parameter] = {
                        key: file.get_tensor(f"{key}.{names[parameter]}")
                        for key in ("step", "exp_avg", "exp_avg_sq", "momentum_buffer")
                        if f"{key}.{names[parameter]}" in kept
                    }

    def save(self) -> None:
        """Write the state; what was there is replaced in one rename. The first process does it."""
        if self.rank:
            return
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter.detach()
            tensors[f"average.{name}"] = self.average[name]
            for optimizer in self.optimizers:
                for key, value in optimizer.state.get(parameter, {}).items():
                    tensors[f"{key}.{name}"] = value
        aside = self._path.with_suffix(".new")
        save_file(tensors, aside, metadata={"step": str(self.step)})
        aside.replace(self._path)

    def log(self, **values: float) -> None:
        """Append one line to the curves."""
        path = self.folder / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *values])
            writer.writerow([self.step, *(f"{value:.5f}" for value in values.values())])

    def steps_left(
        self, minutes: float, save_every: int = 200, beside: Run[Any] | None = None
    ) -> Iterator[int]:
        """The steps still to do, with a progress bar, until done or out of time; saves as it goes.

        Args:
            minutes: stop after this long.
            save_every: steps between two saves, or fewer: a minute is the most that may be lost.
            beside: a second run that makes the same steps, saved together with this one.

        Yields:
            The number of the step about to be made, from 0.
        """
        stop = time.monotonic() + 60 * minutes
        due = time.monotonic() + SAVE_S
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, disable=self.rank > 0) as progress:
            task = progress.add_task(self.folder.name, total=self.steps, completed=self.step)
            while self.step < self.steps and self._agree(time.monotonic() < stop):
                yield self.step
                progress.update(task, completed=self.step)
                if self.step % save_every == 0 or time.monotonic() > due:
                    self._save_both(beside)
                    due = time.monotonic() + SAVE_S
        self._save_both(beside)

    def _agree(self, go_on: bool) -> bool:
        """What the first process says, in all of them."""
        if self.processes == 1:
            return go_on
        said = torch.tensor([go_on], dtype=torch.uint8, device=self.device)
        distributed.broadcast(said, 0)
        return bool(said)

    def _save_both(self, beside: Run[Any] | None) -> None:
        if beside is not None:
            beside.save()
        self.save()

    def update(self, loss: Tensor) -> None:
        """One optimiser step down the loss, and the moving average behind it."""
        left = 1 - self.step / self.steps
        rate = min(1.0, (self.step + 1) / 200, left / DECAY + 0.01)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self.learning_rate * rate
        loss.backward()
        if self.processes > 1:
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            mean = nn.utils.parameters_to_vector(gradients) / self.processes
            distributed.all_reduce(mean)
            nn.utils.vector_to_parameters(mean, gradients)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()
        self.step += 1
        follow = min(0.999, self.step / (self.step + 20))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1 - follow)

    def averaged(self, into: Model) -> Model:
        """The moving average's weights, copied into another module of the same shape."""
        into.load_state_dict(self.average, strict=False)
        return into.eval()
