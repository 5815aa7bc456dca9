"""The experiments of the memory papers: a step learns, and a run reports bits per sequence."""

import json
import math

import pytest
import torch
from hydra.utils import instantiate

from runner.recipe import provisional
from runner.training import run_training

EXPERIMENTS = {  # experiment → answers of a test sequence of size n, and bits that one is worth
    "ntm_copy": (lambda n: 8 * n, 1.0),
    "ntm_recall": (lambda n: 6 * 3, 1.0),
    "dnc_graph": (lambda n: 3, math.log2(12)),
    "fast_weights": (lambda n: 1, math.log2(10)),
}
SHORT = ["data.batch_size=3", "data.batches={train:2,val:1,test:2}", "trainer.max_epochs=1"]
SHORT += ["trainer.accelerator=cpu", "logger=none"]


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_steps_on_a_batch_lower_its_cost(compose_run, experiment):
    torch.manual_seed(0)
    config = compose_run(f"experiment={experiment}", *SHORT)
    data = instantiate(config.data)
    task = instantiate(provisional(config).task, _convert_="all")
    task.log = lambda *args, **options: None
    batch = data.split("train")[0, 0]
    optimizer = task.optimizer(task.model.parameters())
    costs = []
    for step in range(4):
        loss = task.training_step(batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        costs.append(loss.item())
    assert costs[-1] < 0.98 * costs[0]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in task.model.parameters())


@pytest.mark.parametrize("experiment", EXPERIMENTS)
def test_a_run_reports_bits_per_sequence_of_every_length(compose_run, tmp_path, experiment):
    answers, bits = EXPERIMENTS[experiment]
    config = compose_run(f"experiment={experiment}", *SHORT, "data.sizes.test=[3,3]")
    run_training(config)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    for size, end in [(3, "")] + [(size, f"/length_{size}") for size in config.data.longer]:
        cost = results[f"test/bits_per_sequence{end}"]
        # Two steps teach next to nothing: a guess costs what an answer is worth.
        assert cost == pytest.approx(answers(size) * bits, rel=0.3)
        assert 0 < results[f"test/errors_per_sequence{end}"] <= answers(size)
        assert 0 <= results[f"test/solved{end}"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("experiment", "longer"), [("ntm_copy", 40), ("dnc_graph", 8), ("fast_weights", 12)]
)
def test_experiment_solves_its_problems_and_longer_ones(run_script, tmp_path, experiment, longer):
    run_script("train.py", f"experiment={experiment}", "logger=none", timeout=1800)
    [file] = tmp_path.glob("outputs/*/*/results.json")
    results = json.loads(file.read_text())
    assert results["test/solved"] > 0.97
    assert results[f"test/solved/length_{longer}"] > 0.9


@pytest.mark.slow
def test_an_lstm_cannot_do_what_fast_weights_do(run_script, tmp_path):
    run_script("train.py", "experiment=fast_weights", "model=lstm", "logger=none", timeout=900)
    [file] = tmp_path.glob("outputs/*/*/results.json")
    assert json.loads(file.read_text())["test/solved"] < 0.7
