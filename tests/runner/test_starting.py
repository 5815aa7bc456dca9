"""A run that starts from another's model takes what fits, keeps what is frozen and says so."""

import pytest
import torch
from torch import nn

from runner.starting import fit_to_start, freeze, start_from
from runner.training import run_training


class Model(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.encoder = nn.Linear(5, 7)
        self.adapters = nn.ModuleDict({"text": nn.Linear(2, 5)})
        self.decoder = nn.Linear(7, classes)


@pytest.fixture
def checkpoint(tmp_path):
    model = Model(3)
    state = {f"model.{name}": value for name, value in model.state_dict().items()}
    run = {"model": {"encoder": {"num_latents": 11, "latent_dim": 13, "num_layers": "${oc.env:A}"}}}
    run["data"] = {"text": {"tokenizer": "words", "vocabulary": "a b", "lowercase": True}}
    torch.save({"state_dict": state, "run_config": run}, tmp_path / "from.ckpt")
    return str(tmp_path / "from.ckpt"), model


def test_what_fits_is_copied_and_the_rest_is_named(checkpoint, caplog):
    path, old = checkpoint
    new = Model(2)
    head = new.decoder.weight.clone()
    with caplog.at_level("INFO"):
        start_from(path, new)
    assert torch.equal(new.encoder.weight, old.encoder.weight)
    assert torch.equal(new.adapters["text"].bias, old.adapters["text"].bias)
    assert torch.equal(new.decoder.weight, head)
    started, here, left = (record.getMessage() for record in caplog.records)
    assert "encoder 42, adapters.text 15" in started
    assert here.startswith("new here")
    assert here.endswith("decoder 16")
    assert left.endswith("decoder 24")


def test_a_model_that_nothing_fits_is_refused(checkpoint):
    with pytest.raises(ValueError, match=r"nothing of init_from=.* fits this model: give"):
        start_from(checkpoint[0], nn.Sequential(nn.Linear(2, 2)))


def test_parts_and_patterns_are_frozen():
    model = Model(3)
    freeze(model, ["adapters.text", "*.bias"])
    trained = [name for name, value in model.named_parameters() if value.requires_grad]
    assert trained == ["encoder.weight", "decoder.weight"]
    with pytest.raises(ValueError, match=r"'adapter' matches no .* encoder, adapters\.text"):
        freeze(model, ["adapter"])
    with pytest.raises(ValueError, match="leaves nothing to train"):
        freeze(model, ["*"])


def test_open_options_follow_the_run_and_only_plain_ones(compose_run, checkpoint):
    config = compose_run("data=sst2", f"init_from={checkpoint[0]}", "model.encoder.latent_dim=17")
    fit_to_start(config)
    encoder, text = config.model.encoder, config.data.text
    assert (encoder.num_latents, encoder.latent_dim, encoder.num_layers) == (11, 17, None)
    assert (text.tokenizer, text.vocabulary, text.lowercase) == ("words", "a b", True)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ["init_from=a.ckpt", "ckpt_path=b.ckpt"],
            "starts a new run .* go on with a run",
        ),
        (["init_from=a.ckpt", "fit=false"], "trains nothing"),
        (["freeze=[encoder]"], "name that with init_from"),
    ],
)
def test_what_contradicts_itself_is_refused(compose_run, overrides, said):
    with pytest.raises(ValueError, match=said):
        fit_to_start(compose_run(*overrides))


def test_a_run_starts_from_a_checkpoint_of_fewer_modalities(compose_run, tmp_path):
    short = ["debug=fast", "data.batch_size=7", "logger=none", "test=false", "baseline=false"]
    first = "trainer.limit_train_batches=1", "trainer.max_epochs=1", *short[1:]
    text = "modality@model.adapters=[text]"
    run_training(compose_run(*first, text, f"paths.run_dir={tmp_path}/first"))
    path = f"{tmp_path}/first/checkpoints/last.ckpt"
    config = compose_run(*short, f"init_from={path}", "freeze=[encoder.latents]")
    run_training(config)
