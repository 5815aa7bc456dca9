"""Masked tokens: BERT's shares, the same in every evaluation, and a model that learns from them."""

import pytest
import torch
from hydra.utils import instantiate

from perceiver.tasks import MaskedTokens
from perceiver.types import Batch
from runner.recipe import provisional
from runner.training import run_training


def texts(ids, **options) -> Batch:
    return Batch(inputs={"text": torch.as_tensor(ids)}, **options)


def test_masking_follows_bert_s_shares():
    objective = MaskedTokens(out_dim=262)
    given = texts(torch.full((7, 5_717), 100))
    made = objective.prepare(given)
    masked, chosen = made.inputs["text"], made.known["masked_text"]
    assert (given.inputs["text"] == 100).all()
    assert (made.targets["masked_text"] == 100).all()
    assert (masked[~chosen] == 100).all()
    share, n = chosen.float().mean().item(), 7 * 5_717
    assert share == pytest.approx(0.15, abs=4 * (0.15 * 0.85 / n) ** 0.5)
    hidden = (masked[chosen] == 3).float().mean().item()
    drawn = masked[chosen & (masked != 3) & (masked != 100)]
    count = int(chosen.sum())
    assert hidden == pytest.approx(0.8, abs=4 * (0.8 * 0.2 / count) ** 0.5)
    # A random byte is the same one of 256 times.
    wanted = 0.1 * 255 / 256
    assert len(drawn) / count == pytest.approx(wanted, abs=4 * (0.1 * 0.9 / count) ** 0.5)
    assert drawn.min() >= 6
    assert len(drawn.unique()) > 200


def test_masking_spares_special_tokens_padding_and_absent_texts_and_hides_at_least_one():
    objective = MaskedTokens(out_dim=262, p=1e-6, mask=1.0, random=0.0)
    ids = [[1, 50, 60, 2, 0, 0], [70, 71, 72, 73, 74, 75], [1, 2, 1, 2, 1, 2]]
    mask = torch.tensor([[True] * 4 + [False] * 2, [True] * 6, [True] * 6])
    batch = texts(ids, masks={"text": mask}, present={"text": torch.tensor([True, False, True])})
    hidden = set()
    for _ in range(50):
        made = objective.prepare(batch)
        places = made.known["masked_text"].nonzero().tolist()
        assert len(places) == 1
        assert (made.inputs["text"] == 3).nonzero().tolist() == places
        hidden.add(tuple(places[0]))
    assert hidden == {(0, 1), (0, 2)}
    everything = MaskedTokens(out_dim=262, p=1.0, mask=1.0, random=0.0).prepare(batch)
    assert everything.inputs["text"].tolist() == [[1, 3, 3, 2, 0, 0], *ids[1:]]
    assert objective.answered(everything).tolist() == [True, False, False]


def test_evaluation_hides_the_same_of_a_text_in_whatever_batch_it_is():
    objective = MaskedTokens(out_dim=262).eval()
    ids = torch.randint(6, 262, (5, 67))
    whole = objective.prepare(texts(ids)).inputs["text"]
    assert not torch.equal(whole, ids)
    assert torch.equal(objective.prepare(texts(ids)).inputs["text"], whole)
    padded = torch.cat([ids[[3]], torch.zeros(1, 11, dtype=torch.int64)], 1)
    mask = torch.arange(78)[None] < 67
    again = objective.prepare(texts(padded, masks={"text": mask})).inputs["text"]
    assert torch.equal(again[0, :67], whole[3])
    objective.train()
    first, second = (objective.prepare(texts(ids)).inputs["text"] for _ in range(2))
    assert not torch.equal(first, second)


def test_the_loss_is_the_mean_cost_of_the_hidden_tokens_of_each_text():
    objective = MaskedTokens(out_dim=11, num_specials=4)
    made = objective.prepare(texts(torch.randint(4, 11, (3, 29))))
    outputs = torch.randn(3, 29, 11)
    losses = objective.losses(outputs, made)
    for row in range(3):
        places = made.known["masked_text"][row].nonzero()[:, 0].tolist()
        costs = [
            -outputs[row, m].log_softmax(0)[made.targets["masked_text"][row, m]] for m in places
        ]
        torch.testing.assert_close(losses[row], sum(costs) / len(costs))


def test_masking_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"MaskedTokens\(p=0\.0, "):
        MaskedTokens(out_dim=7, p=0.0)
    with pytest.raises(ValueError, match="sum to at most 1"):
        MaskedTokens(out_dim=7, mask=0.8, random=0.3)
    with pytest.raises(ValueError, match="hides tokens of text, but the batch has image"):
        MaskedTokens(out_dim=7).prepare(Batch(inputs={"image": torch.zeros(1, 1)}))


def test_steps_on_hidden_bytes_lower_their_cost_for_texts_of_any_length(compose_run):
    torch.manual_seed(0)
    config = compose_run("task=masked_tokens", "model.modality_dropout.p=0.0", "optimizer.lr=1e-3")
    task = instantiate(provisional(config).task, _convert_="all")
    task.log = lambda *args, **options: None
    optimizer = task.optimizer(task.model.parameters())
    inputs = {"image": torch.rand(2, 1, 8, 8), "audio": torch.rand(2, 1024)}
    batch = Batch(inputs | {"text": torch.tensor([[50, 60, 70, 80, 90]] * 2)})
    longer = Batch(inputs | {"text": torch.tensor([[50, 60, 70, 80, 90, 100, 110]] * 2)})
    losses = []
    for step in range(12):
        loss = task.training_step(longer if step % 2 else batch, step)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-2:]) < 0.8 * sum(losses[:2])
    assert task.model(**vars_of(batch)).shape == (2, 5, 262)
    assert task.eval().predict_step(longer, 0).shape == (2, 7, 262)


def vars_of(batch):
    return {"inputs": batch.inputs, "masks": batch.masks, "present": batch.present}


def test_a_run_from_the_command_line_reports_the_hidden_bytes_found(compose_run, tmp_path):
    config = compose_run("task=masked_tokens", "debug=fast", "data.batch_size=7")
    run_training(config)
    assert '"test/acc/image+audio"' in (tmp_path / "run" / "results.json").read_text()
