"""A training run in a folder: what it takes to be killed at any moment and go on.

The folder holds ``state.safetensors`` (weights, their moving average, optimiser), ``log.csv``
(the curves) and whatever sheets the trainer draws. The state is written aside and renamed, so a
kill leaves the last whole one.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class Run(Generic[Model]):
    """One model being trained: AdamW, warm-up then cosine, moving average, resumable.

    Args:
        folder: where everything is kept; created.
        model: the module to train; its weights are replaced by those of an earlier state.
        steps: length of the whole run; the learning rate follows it.
        learning_rate: the peak.
        device: ``cpu`` or ``cuda``.
    """

    def __init__(
        self, folder: Path, model: Model, steps: int, learning_rate: float, device: str
    ) -> None:
        self.folder, self.model, self.steps, self.device = folder, model.to(device), steps, device
        folder.mkdir(parents=True, exist_ok=True)
        self.learning_rate = learning_rate
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": 0.05},
            {"params": others},
        ]
        self.optimizer = torch.optim.AdamW(
            groups, lr=learning_rate, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.average = {name: p.detach().clone() for name, p in model.named_parameters()}
        self.step = 0
        self._resume()

    @property
    def _state(self) -> Path:
        return self.folder / "state.safetensors"

    def _resume(self) -> None:
        if not self._state.exists():
            return
        with safe_open(self._state, framework="pt", device=self.device) as file:
            self.step = int(file.metadata()["step"])
            for name, parameter in self.model.named_parameters():
                parameter.data.copy_(file.get_tensor(f"model.{name}"))
                self.average[name].copy_(file.get_tensor(f"average.{name}"))
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step), device=self.device),
                    "exp_avg": file.get_tensor(f"first.{name}"),
                    "exp_avg_sq": file.get_tensor(f"second.{name}"),
                }

    def save(self) -> None:
        """Write the state; what was there is replaced in one rename."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.model.named_parameters():
            moments = self.optimizer.state[parameter]
            tensors[f"model.{name}"] = parameter.detach()
            tensors[f"average.{name}"] = self.average[name]
            tensors[f"first.{name}"] = moments["exp_avg"]
            tensors[f"second.{name}"] = moments["exp_avg_sq"]
        aside = self._state.with_suffix(".new")
        save_file(tensors, aside, metadata={"step": str(self.step)})
        aside.replace(self._state)

    def log(self, **values: float) -> None:
        """Append one line to the curves."""
        path = self.folder / "log.csv"
        fresh = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(["step", *values])
            writer.writerow([self.step, *(f"{value:.5f}" for value in values.values())])

    def steps_left(self, minutes: float, save_every: int = 200) -> Iterator[int]:
        """The steps still to do, with a progress bar, until done or out of time; saves as it goes.

        Yields:
            The number of the step about to be made, from 0.
        """
        stop = time.monotonic() + 60 * minutes
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TimeRemainingColumn(),
        )
        with Progress(*columns) as progress:
            task = progress.add_task(self.folder.name, total=self.steps, completed=self.step)
            while self.step < self.steps and time.monotonic() < stop:
                yield self.step
                progress.update(task, completed=self.step)
                if self.step % save_every == 0:
                    self.save()
        self.save()

    def update(self, loss: Tensor) -> None:
        """One optimiser step down the loss, and the moving average behind it."""
        warm = min(1.0, (self.step + 1) / 200)
        rate = warm * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * self.step / self.steps)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate * rate
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        follow = min(0.999, self.step / (self.step + 20))
        with torch.no_grad():
            for name, parameter in self.model.named_parameters():
                self.average[name].lerp_(parameter, 1 - follow)

    def averaged(self, into: Model) -> Model:
        """The moving average's weights, copied into another module of the same shape."""
        into.load_state_dict(self.average, strict=False)
        return into.eval()
