import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers.logger import Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader

from perceiver.tasks import SingleLabel, SupervisedTask
from perceiver.types import Batch


class Memory(Logger):
    """A logger that keeps what it is given: (step, metrics)."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.lines = []

    def log_hyperparams(self, *args, **kwargs) -> None: ...

    def log_metrics(self, metrics, step=None) -> None:
        self.lines.append((step, dict(metrics)))

    def values(self, name: str) -> dict[int, float]:
        return {step: metrics[name] for step, metrics in self.lines if name in metrics}


class Linear(nn.Module):
    """Logits are a linear map of the one modality "x"."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, inputs, masks, present) -> Tensor:
        return self.linear(inputs["x"])[:, None]


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def task() -> SupervisedTask:
    torch.manual_seed(0)
    return SupervisedTask(
        model=Linear(),
        objective=SingleLabel(out_dim=3),
        optimizer=lambda groups: torch.optim.SGD(groups, lr=0.1),
        modalities=["x"],
    )


@pytest.fixture
def data():
    """data(2, 3) → a loader of two batches, of two and three examples."""

    def make(*sizes: int) -> DataLoader:
        made = [
            Batch(inputs={"x": torch.randn(n, 3)}, targets={"target": torch.randint(0, 3, (n,))})
            for n in sizes
        ]
        return DataLoader(made, batch_size=None)

    return make


@pytest.fixture
def trainer(tmp_path, memory):
    def make(*callbacks: pl.Callback, **options) -> pl.Trainer:
        settings = {
            "accelerator": "cpu",
            "max_epochs": 1,
            "log_every_n_steps": 1,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "enable_checkpointing": False,
            "default_root_dir": tmp_path,
        }
        return pl.Trainer(callbacks=[*callbacks], logger=memory, **(settings | options))

    return make
