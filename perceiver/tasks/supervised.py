"""The LightningModule of supervised training: any objectives over any model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from perceiver.attention import ReinforceLoss, SampledChoices
from perceiver.tasks.base import Task
from perceiver.tasks.metrics import SplitMetrics
from perceiver.tasks.objectives import Objective
from perceiver.tasks.subsets import modality_subsets, restrict
from perceiver.types import Batch

Outputs = Tensor | Mapping[str, Tensor]


class SupervisedTask(Task):
    """Trains a model to answer what a batch asks, from whatever modalities an example has.

    Logs `train/loss` per step (and `train/reinforce`, what sampled attention adds to it). Over a
    whole split it logs `val/loss`, `val/acc` (or the objective's other metrics), `val/score` (the
    higher, the better: what the best epoch is chosen by) and
    `val/acc/image+text` for subsets of the modalities: the same model, given those alone, over the
    examples that have at least one of them. Parts of a split are logged apart,
    `test/acc/length_40`. The test also logs how many examples each value is of,
    `test/examples/text`, and subsets over the examples that have all modalities,
    `test/complete/acc/text`.

    With several objectives the model gives each the outputs of its name; the loss is their weighted
    sum, each averaged over the examples that have its target, and metrics are logged by name,
    `val/label/acc`.

    Args:
        model: forward(inputs, masks, present) → outputs (b, o, k), by name for several objectives;
            `Perceiver` or one's own.
        objective: loss, metrics and predictions, where there is one.
        objectives: name → the same, where there are several.
        weights: name → the weight of an objective's loss; 1 where it is not named.
        monitor: name of the objective whose metric selects and is shown; None = the first.
        optimizer: makes the optimiser from parameter groups.
        scheduler: makes the schedule from (optimizer, total_steps); None = constant rate.
        modalities: names in the order in which reports list them.
        val_subsets: which subsets of the modalities validation reports: "all", "single", "none".
        test_subsets: the same for the test.
        parts: what parts of a split are reported apart: {length: [40, 80]} names "length_40" and
            "length_80".
        reinforce: what trains attention that samples (the normaliser `reinforce`), from each
            example's loss; None = with its defaults. A model without such attention has no use for
            it.

    Raises:
        ValueError: without objectives, with both kinds, or for names that are none of them.
    """

    def __init__(
        self,
        *,
        model: nn.Module,
        objective: Objective | None = None,
        objectives: Mapping[str, Objective] | None = None,
        weights: Mapping[str, float] | None = None,
        monitor: str | None = None,
        optimizer: Callable[..., Optimizer],
        modalities: list[str],
        scheduler: Callable[..., LRScheduler] | None = None,
        val_subsets: str = "single",
        test_subsets: str = "all",
        parts: Mapping[str, Sequence[Any]] | None = None,
        reinforce: ReinforceLoss | None = None,
    ) -> None:
        super().__init__(model=model, optimizer=optimizer, scheduler=scheduler)
        if (objective is None) == (not objectives):
            raise ValueError("a task needs task.objective, or several by name in task.objectives")
        for option, names in (
            ("weights", weights or {}),
            ("monitor", [monitor] if monitor else []),
        ):
            if strange := sorted(set(names) - set(objectives or {})):
                raise ValueError(
                    f"task.{option} names {', '.join(strange)}, but the objectives are "
                    f"{', '.join(objectives or {}) or 'one without a name'}"
                )
        self.objective = objective
        self.objectives = nn.ModuleDict(dict(objectives or {}))
        self.weights = dict(weights or {})
        self.monitored = monitor or next(iter(objectives or [""]))
        self.choices = SampledChoices(model)
        self.reinforce = (reinforce or ReinforceLoss()) if self.choices else None
        self.subsets = {
            "val": modality_subsets(modalities, val_subsets),
            "test": modality_subsets(modalities, test_subsets),
        }
        self.parts = f"{next(iter(parts))}s" if parts else "modalities"
        apart = [f"{what}_{value}" for what, values in (parts or {}).items() for value in values]
        self.metrics: Mapping[str, Any] = nn.ModuleDict(  # type: ignore[assignment]
            {
                split: nn.ModuleDict(
                    {
                        f"of_{name}": SplitMetrics(
                            objective=each,
                            subsets=["+".join(s) for s in subsets],
                            parts=apart,
                            is_test=split == "test",
                        )
                        for name, each in self.heads.items()
                    }
                )
                for split, subsets in self.subsets.items()
            }
        )

    @property
    def heads(self) -> dict[str, Objective]:
        """The objectives by name; a lone one is called ""."""
        if self.objective is not None:
            return {"": self.objective}
        return dict(self.objectives.items())  # type: ignore[arg-type]

    @property
    def monitor(self) -> str:
        """The metric that selects, without its split: "acc", or "label/acc"."""
        return _named(self.monitored, self.heads[self.monitored].monitor)

    def forward(self, batch: Batch) -> Outputs:
        """Outputs (b, o, k) of a batch, before `Objective.predict`; by name of several heads."""
        return self.model(batch.inputs, batch.masks, batch.present)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        batch = self._prepared(batch)
        total = of_examples = torch.zeros((), device=self.device)
        with self.choices as choices:
            outputs = self._by_head(self(batch))
        for name, objective in self.heads.items():
            losses, answered = objective.losses(outputs[name], batch), objective.answered(batch)
            # Zeros where there is no target: the mean is over those that have one.
            loss = losses.sum() / answered.sum().clamp(min=1)
            weight = self.weights.get(name, 1.0)
            total = total + weight * loss
            of_examples = of_examples + weight * torch.where(answered, losses, loss)
            if name:
                self.log(f"train/{name}/loss", loss, batch_size=len(batch))
        self.log("train/loss", total, batch_size=len(batch))
        if self.reinforce is None:
            return total
        of_choices = self.reinforce(-of_examples, choices)
        self.log("train/reinforce", of_choices, batch_size=len(batch))
        return total + of_choices

    def validation_step(self, batch: Batch, batch_idx: int) -> Outputs:
        return self._evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> Outputs:
        return self._evaluate(batch, "test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Outputs:
        return self._predictions(self._by_head(self(batch)), batch)

    def _prepared(self, batch: Batch) -> Batch:
        for objective in self.heads.values():
            batch = objective.prepare(batch)
        return batch

    def _by_head(self, outputs: Outputs) -> Mapping[str, Tensor]:
        """The outputs of each objective."""
        given = outputs if isinstance(outputs, Mapping) else {"": outputs}
        if set(given) != set(self.heads):
            shown = [
                ", ".join(names) if any(names) else "one without a name"
                for names in (given, self.heads)
            ]
            raise ValueError(
                f"the model gives outputs named {shown[0]}, the task has the objectives "
                f"{shown[1]}: give model.decoder.heads and task.objectives the same names"
            )
        return given

    def _predictions(self, outputs: Mapping[str, Tensor], batch: Batch) -> Outputs:
        """Predictions (b, k) of each objective with one output, (b, o, k) with several."""
        found = {}
        for name, objective in self.heads.items():
            answers = objective.predict(outputs[name], batch)
            found[name] = answers[:, 0] if outputs[name].shape[1] == 1 else answers
        return found[""] if self.objective is not None else found

    def _evaluate(self, batch: Batch, split: str) -> Outputs:
        batch, metrics = self._prepared(batch), self.metrics[split]
        outputs = self._by_head(self(batch))
        for name, objective in self.heads.items():
            metrics[f"of_{name}"].update(objective, outputs[name], batch)
        asked = getattr(self.model, "asked", ())
        for subset in self.subsets[split] if not batch.part else ():
            answers = self._by_head(self(restrict(batch, subset, asked)))
            some = batch.has_any(subset)
            for name, objective in self.heads.items():
                metrics[f"of_{name}"].update_subset(
                    "+".join(subset), objective, answers[name], batch, some
                )
        return self._predictions(outputs, batch)

    def on_validation_epoch_end(self) -> None:
        self._log_split("val")

    def on_test_epoch_end(self) -> None:
        self._log_split("test")

    def _log_split(self, split: str) -> None:
        values: dict[str, Tensor] = {}
        for name, objective in self.heads.items():
            found = self.metrics[split][f"of_{name}"].compute()
            values |= {_named(name, metric): value for metric, value in found.items()}
            if split == "val" and name == self.monitored and found:
                count = self.metrics[split][f"of_{name}"].whole.count.compute()
                values["score"] = objective.score(found | {"examples": count})
            self.metrics[split][f"of_{name}"].reset()
        losses = {name: values.get(_named(name, "loss")) for name in self.objectives}
        weighted = [self.weights.get(n, 1.0) * x for n, x in losses.items() if x is not None]
        if weighted:
            values = {"loss": torch.stack(weighted).sum(), **values}
        for name, value in values.items():
            self.log(f"{split}/{name}", value, prog_bar=name in ("loss", self.monitor))


def _named(head: str, metric: str) -> str:
    return f"{head}/{metric}" if head else metric
