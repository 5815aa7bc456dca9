"""conf/: every file composes, instantiates and takes one step of training, validation and test."""

import json
import math
from functools import cache

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import open_dict

from datamodules.layouts.manifest import ManifestDataModule
from datamodules.layouts.shards.writer import pack
from datamodules.readers import READERS
from datamodules.sets.digits import DigitsDataModule
from perceiver.models import MeanPoolDecoder
from perceiver.tasks.optimisers import parameter_groups
from perceiver.types import Batch
from runner.build import build_data, build_task
from runner.checks import check_config, check_model
from runner.options import check_options
from runner.recipe import provisional
from runner.training import run_training
from tests.configs import CONF, attention_config, choices, compose_config
from tests.tiny import LAYOUTS

ROOTS = {"fsdd": "spoken_digits", "av_digits": "spoken_digits", "text_tsv": "sentences"}
ROOTS |= {"video_folder": "films"}
ROOTS |= {"image_folder": "photographs", "cifar10": "photographs"}
# Not taken by a run of the default job: where they are tested instead is said beside them.
ELSEWHERE = {
    ("task", "multi_label"),  # below: no shipped data set has such targets
    ("task", "regression"),  # likewise
    ("trainer", "gpu"),  # needs a GPU
    ("trainer", "ddp"),  # tests/test_processes.py
    # tests/adapters/pretrained: each needs weights
    ("modality", "timm"),
    ("modality", "torchvision"),
    ("modality", "torchaudio"),
    ("modality", "transformers_audio"),
    ("modality", "transformers_text"),
}


def cases(*groups):
    return [(g, c) for g in groups for c in choices(g) if (g, c) not in ELSEWHERE]


QUICK = ["data.batch_size=7", "task.val_subsets=none", "task.test_subsets=none"]


@pytest.fixture
def composed(compose_run, request, tmp_path):
    """composed("augment/audio=waveform", data="fsdd") → the config of a run on a tiny data set."""

    def make(*overrides, data=None):
        if data == "manifest":
            overrides = (*overrides, f"data.path={request.getfixturevalue('table_of_films')}")
        if data == "shards":
            texts = request.getfixturevalue(ROOTS["text_tsv"])
            pack(
                instantiate(compose_run("data=text_tsv", f"data.root={texts}").data), tmp_path / "s"
            )
            overrides = (*overrides, f"data.root={tmp_path}/s")
        if data in ROOTS:
            overrides = (*overrides, f"data.root={request.getfixturevalue(ROOTS[data])}")
        if data in LAYOUTS:
            root, fitting = request.getfixturevalue("tiny_layout")(data)
            place = "path" if data == "hf_dataset" else "root"
            overrides = (*overrides, *fitting, f"data.{place}={root}")
        if data == "cifar10":
            overrides = (*overrides, "data.num_classes=2")
        return compose_run("debug=fast", *overrides)

    return make


@pytest.fixture
def run_of(composed, tmp_path):
    """Run one batch of fit, validation and test; returns the losses, which NaN logits spoil.

    An accuracy would not show them: the largest of several NaN is as good a class as any.
    """

    def run(*overrides, data=None):
        run_training(composed(*QUICK, *overrides, data=data))
        results = json.loads((tmp_path / "run" / "results.json").read_text())
        return results["val/loss"] + results["test/loss"]

    return run


@pytest.fixture
def step(composed):
    """Checks, a step on a batch and a validated batch; returns both losses."""

    def take(*overrides, data=None):
        config = composed(QUICK[0], *overrides, data=data)
        check_config(config)
        check_model(config)
        datamodule, final = build_data(config)
        task = build_task(final, datamodule.facts())
        trained = task.training_step(next(iter(datamodule.train_dataloader())), 0)
        trained.backward()
        gradients = [p.grad for p in task.parameters() if p.grad is not None]
        assert gradients
        assert all(gradient.isfinite().all() for gradient in gradients)
        optimizer = task.optimizer(parameter_groups(task.model))
        schedule = task.scheduler(optimizer, 3) if task.scheduler else None
        before = [weight.detach().clone() for weight in task.parameters()]
        for _ in range(2):  # a schedule may begin with a rate of zero
            optimizer.step()
            if schedule:
                schedule.step()
        assert any((a != b).any() for a, b in zip(before, task.parameters(), strict=True))
        with torch.no_grad():
            task.eval().validation_step(next(iter(datamodule.val_dataloader())), 0)
        losses = [metrics.compute()["loss"].item() for metrics in task.metrics["val"].values()]
        return trained.item() + sum(losses)

    return take


# What a choice needs of others to make sense.
SEQUENCES = "data=copy"
FITTING = dict.fromkeys([("model", m) for m in ("ntm", "dnc", "lstm", "fast_weights")], SEQUENCES)
FITTING[("task", "sequence")] = SEQUENCES
FITTING[("decoder", "per_token")] = "task=masked_tokens"
FITTING[("decoder", "per_pixel")] = "task=reconstruction"
FITTING[("decoder", "label_and_tokens")] = "task=label_and_tokens"
# What the default job has: all of it runs once, as the choice of its logger.
DEFAULTS = {("model", "perceiver"), ("optimizer", "adamw"), ("scheduler", "cosine")}
DEFAULTS.add(("task", "single_label"))
DEFAULTS |= {(group, "default") for group in ("callbacks", "trainer", "paths")}

WHOLE = ("callbacks", "task", "trainer", "logger", "paths")
PARTS = ("model", "optimizer", "scheduler")


@pytest.mark.parametrize(("group", "choice"), [c for c in cases(*WHOLE) if c not in DEFAULTS])
def test_run_with_the_choice_takes_a_step(run_of, group, choice):
    needs = f"callbacks=[default,{choice}]" if group == "callbacks" else f"{group}={choice}"
    others = [FITTING[group, choice]] if (group, choice) in FITTING else []
    assert math.isfinite(run_of(*others, needs))


@pytest.mark.parametrize(("group", "choice"), [c for c in cases(*PARTS) if c not in DEFAULTS])
def test_choice_takes_a_step(step, group, choice):
    others = [FITTING[group, choice]] if (group, choice) in FITTING else []
    assert math.isfinite(step(*others, f"{group}={choice}"))


@pytest.mark.parametrize(
    ("choice", "target"),
    [
        ("multi_label", torch.tensor([[1, 0, 1], [0, 0, 1]])),
        ("regression", torch.tensor([[0.5], [-2.0]])),
    ],
)
def test_task_takes_a_step_on_targets_of_its_kind(compose_run, choice, target):
    torch.manual_seed(0)
    gentle = ["optimizer.lr=3e-4", "model.modality_dropout.p=0.0"]
    config = compose_run(f"task={choice}", f"data.num_classes={target.shape[1]}", *gentle)
    task = instantiate(provisional(config).task, _convert_="all")
    inputs = {"image": torch.rand(2, 1, 8, 8), "audio": torch.rand(2, 1024)}
    inputs["text"] = torch.randint(6, 262, (2, 11))
    batch = Batch(inputs=inputs, targets={"target": target})
    optimizer = task.optimizer(task.model.parameters())
    before = task.objective.loss(task.eval()(batch), batch)
    for _ in range(20):
        task.train().training_step(batch, 0).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert task.objective.loss(task.eval()(batch), batch) < before


@pytest.mark.parametrize("choice", choices("data"))
def test_data_set_takes_a_step(step, choice):
    assert math.isfinite(step(f"data={choice}", data=choice))


@pytest.mark.parametrize("choice", [choice for _, choice in cases("modality")])
def test_modality_takes_a_step(step, table_of_columns, choice):
    # The default job has neither columns of a table nor films.
    override = f"modality@model.adapters=[{choice}]"
    kind = choice.partition("_")[0]
    if READERS[kind].takes_columns:
        assert math.isfinite(step("data=manifest", f"data.path={table_of_columns}", override))
        return
    data = "video_folder" if kind == "video" else "digits"
    small = ["data.video.size=[16,16]"] if data == "video_folder" else []
    assert math.isfinite(step(f"data={data}", override, *small, data=data))


# What a choice changes, on data that has it.
AUGMENTED = {"image": "image_folder", "video": "video_folder", "text": "text_tsv"}


@pytest.mark.parametrize(
    ("part", "choice"),
    [
        (part.name, c)
        for part in sorted((CONF / "augment").iterdir())
        for c in choices(f"augment/{part.name}")
    ],
)
def test_augmentation_takes_a_step(step, part, choice):
    data = AUGMENTED.get(part, "digits")
    small = [f"data.{part}.size=[16,16]"] if part in ("image", "video") else []
    small += ["data.text.tokenizer=bytes"] if choice == "case_noise" else []  # words have no case
    assert math.isfinite(step(f"data={data}", f"augment/{part}={choice}", *small, data=data))


@pytest.mark.parametrize(
    ("group", "place", "choice"),
    [
        (group, place, choice)
        for group, places in {
            "decoder": ["model.decoder"],
            "fusion": ["model.fusion"],
        }.items()
        for place in places
        for choice in choices(group)
    ],
)
def test_part_of_the_model_takes_a_step(step, group, place, choice):
    others = [FITTING[group, choice]] if (group, choice) in FITTING else []
    assert math.isfinite(step(f"{group}@{place}={choice}", *others))


@pytest.fixture
def no_data(monkeypatch):
    """Fails a test that makes a data set, or asks one for data."""
    for module in (DigitsDataModule, ManifestDataModule):
        for name in ("__init__", "prepare_data", "setup"):
            monkeypatch.setattr(module, name, lambda *_, **__: pytest.fail("data was touched"))


# Presets that cannot serve there in the default job say so, naming what to use instead.
WIDTHS, GRID = "use score=general", "grid=None: set it, or use attention=perceiver"
REFUSALS = {
    ("cross_attention", "enc_dec_dot"): WIDTHS,
    ("cross_attention", "enc_only_dot"): WIDTHS,
    ("cross_attention", "luong_dot"): WIDTHS,
    ("cross_attention", "multi_head"): "set num_heads to one of",
    ("cross_attention", "stand_alone"): GRID,
    ("cross_attention", "swin"): GRID,
    ("latent_attention", "stand_alone"): GRID,
    ("latent_attention", "swin"): GRID,
}


@cache
def batch_of_the_default_job():
    """Five examples of the default job, one of which lacks its sound."""
    overrides = ("data.batch_size=5", "data.missing.train.audio=0.2")
    datamodule = instantiate(compose_config(overrides=overrides).data)
    datamodule.setup()
    return next(iter(datamodule.train_dataloader()))


@pytest.mark.parametrize("choice", choices("attention"))
@pytest.mark.parametrize("place", ["cross_attention", "latent_attention"])
def test_attention_takes_a_step_or_says_what_to_use(compose_run, request, place, choice):
    """A check, a forward and a backward pass; the next test has whole runs of a few."""
    config = compose_run("logger=none")
    config.model[place] = attention_config(choice)
    if (place, choice) in REFUSALS:
        request.getfixturevalue("no_data")
        with pytest.raises(ValueError, match=f"^model.{place}: ") as refused:
            run_training(config)
        assert REFUSALS[place, choice] in str(refused.value)
        return
    batch = batch_of_the_default_job()
    check_options(config.model[place])
    check_model(config)
    torch.manual_seed(0)
    task = instantiate(provisional(config).task, _convert_="all")
    loss = task.training_step(batch, 0)
    loss.backward()
    assert math.isfinite(loss)
    learns = [name for name, weight in task.model.named_parameters() if weight.grad is not None]
    assert any(f"{place}s" in name or "attend" in name for name in learns)
    assert all(w.grad.isfinite().all() for w in task.model.parameters() if w.grad is not None)
    assert torch.isfinite(task.eval()(batch)).all()


@pytest.mark.parametrize(
    ("place", "choice"),
    [
        ("cross_attention", "hard_reinforce"),
        ("cross_attention", "luong_local_p"),
        ("latent_attention", "differential"),
    ],
)
def test_run_with_other_attention_takes_a_step(run_of, place, choice):
    assert math.isfinite(run_of(f"attention@model.{place}={choice}"))


AXIS = "kernel=flex refuses this attention; normaliser: Entmax is not softmax"


# The default job has 24 latents, and 16 patches, 13 frames and 32 bytes at most.
@pytest.mark.parametrize(
    ("place", "preset", "option", "said"),
    [
        ("cross_attention", "luong_location", "location.max_len=60", "max_len=60 for 61 keys"),
        ("latent_attention", "tutorial", "location.max_len=23", "max_len=23 for 24 keys"),
        ("decoder.attention", "tutorial", "location.max_len=23", "max_len=23 for 24 keys"),
        ("latent_attention", "swin", "swin_table.grid=[5,6]", "30 elements for 24 queries"),
        ("latent_attention", "stand_alone", "local2d.grid=[4,5]", "20 elements for 24 queries"),
        ("cross_attention", "swin", "swin_table.grid=[4,6]", "24 queries and 61 keys"),
    ],
)
def test_attention_too_small_for_the_models_lengths_is_refused_before_data_is_opened(
    step, no_data, tmp_path, place, preset, option, said
):
    with pytest.raises(ValueError, match=f"^model.{place}: ") as refused:
        step(f"attention@model.{place}={preset}", f"model.{place}.options.{option}")
    assert said in str(refused.value)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["attention@model.cross_attention=entmax", "model.cross_attention.kernel=flex"], AXIS),
        (["attention@model.latent_attention=entmax", "model.latent_attention.kernel=flex"], AXIS),
        (["model.decoder.attention.kernel=linear"], "kernel=linear refuses this attention; score"),
        (["model.encoder.num_cross_attends=3"], "num_cross_attends=3 must lie between 1 and"),
        (["+model.cross_attention.options.qkv.gated=true"], "qkv has no option 'gated'"),
    ],
)
@pytest.mark.parametrize("data", ["digits", "manifest"])
def test_parts_that_cannot_be_built_are_refused_before_data_is_opened(
    step, no_data, overrides, said, data
):
    with pytest.raises(ValueError, match=said):
        step(f"data={data}", *overrides)


# A table's modalities, and with them the length and width of what is read, are in the table alone.
@pytest.mark.parametrize(
    ("place", "preset", "options", "said"),
    [
        ("latent_attention", "tutorial", ["location.max_len=23"], "max_len=23 for 24 keys"),
        ("latent_attention", "swin", ["swin_table.grid=[5,6]"], "30 elements for 24 queries"),
        ("cross_attention", "swin", ["swin_table.grid=[5,6]"], "30 elements for 24 queries"),
        ("cross_attention", "stand_alone", [], GRID),
    ],
)
def test_attention_that_no_table_would_suit_is_refused_before_one_is_opened(
    step, no_data, place, preset, options, said
):
    options = [f"model.{place}.options.{option}" for option in options]
    with pytest.raises(ValueError, match=f"^model.{place}: ") as refused:
        step("data=manifest", f"attention@model.{place}={preset}", *options)
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["attention@model.cross_attention=luong_dot"],  # bytes can be as wide as latents
        ["attention@model.cross_attention=multi_head", "model.cross_attention.num_heads=11"],
        [
            "attention@model.cross_attention=tutorial",
            "model.cross_attention.options.location.max_len=1",
        ],
        [
            "attention@model.cross_attention=swin",
            "model.cross_attention.options.swin_table.grid=[4,6]",
        ],
    ],
)
def test_what_a_table_may_suit_waits_for_it(step, no_data, overrides):
    with pytest.raises(pytest.fail.Exception, match="data was touched"):
        step("data=manifest", *overrides)


@pytest.mark.parametrize("data", ["digits", "manifest"])
def test_an_option_that_no_part_takes_is_refused_before_data_is_opened(step, no_data, data):
    with pytest.raises(ValueError, match=r"model\.encoder\.foo is no option of .*PerceiverEncoder"):
        step(f"data={data}", "+model.encoder.foo=1")


class AsksForNumbers(MeanPoolDecoder):
    """Cannot be built without memory."""

    def __init__(self, *, latent_dim, out_dim):
        super().__init__(latent_dim=latent_dim, out_dim=round(torch.tensor(float(out_dim)).item()))


class Unlike(torch.nn.Module):
    """A model without the parts of a Perceiver."""

    def __init__(self, *, adapters):
        super().__init__()


@pytest.mark.parametrize("data", ["digits", "manifest"])
@pytest.mark.parametrize("part", [AsksForNumbers, Unlike])
def test_a_part_of_ones_own_is_left_to_the_building_itself(compose_run, data, part):
    config = compose_run(f"data={data}")
    target = {"_target_": f"{__name__}.{part.__name__}"}
    with open_dict(config):
        if part is Unlike:
            config.model = target | {"adapters": config.model.adapters}
        else:
            config.model.decoder = target | {"_partial_": True, "out_dim": 3}
    check_model(config)


SLOWER = {choice: [pytest.mark.slow] for choice in ("anomaly", "profile")}


@pytest.mark.parametrize(
    "choice", [pytest.param(c, marks=SLOWER.get(c, [])) for c in choices("debug")]
)
def test_debug_mode_runs(compose_run, tmp_path, choice):
    overrides = ["trainer.limit_train_batches=3", "trainer.limit_test_batches=2"]
    overrides += [*QUICK, *(["trainer.max_epochs=1"] if choice != "fast" else [])]
    run_training(compose_run(f"debug={choice}", *overrides))
    assert "test/acc" in (tmp_path / "run" / "results.json").read_text()


EXPERIMENTS = choices("experiment")


@pytest.mark.parametrize("choice", [c for c in EXPERIMENTS if not c.startswith("imagenet")])
def test_experiment_takes_a_step(step, choice):
    assert math.isfinite(step(f"experiment={choice}", data=choice))


@pytest.mark.slow
@pytest.mark.parametrize("choice", ["imagenet_perceiver", "imagenet_perceiver_io_conv"])
def test_preset_takes_a_step(run_of, choice):
    small = ["data.batch_size=2", "trainer.precision=32-true"]
    local = ["data.num_workers=0", "data.pin_memory=false"]
    assert math.isfinite(run_of(f"experiment={choice}", *small, *local, data="imagenet"))


@pytest.mark.parametrize(
    ("experiment", "parameters"),
    [
        ("imagenet_perceiver", 44_912_254),
        ("imagenet_perceiver_unshared", 326_241_856),
        ("imagenet_perceiver_1x", 42_135_859),
        ("imagenet_perceiver_io", 48_440_627),
        ("imagenet_perceiver_io_conv", 48_646_522),
        ("imagenet_perceiver_io_learned", 62_255_848),
    ],
)
def test_preset_has_the_published_number_of_parameters(compose_run, experiment, parameters):
    config = compose_run(f"experiment={experiment}")
    with torch.device("meta"):
        model = instantiate(config.model, _convert_="all")
    assert sum(p.numel() for p in model.parameters()) == parameters


# Cross-attends 2 to 8 share weights, so six of them need not project the image again.
SHARED = 6 * 2 * 224**2 * 261 * (261 + 261) / 1e9


@pytest.mark.parametrize(
    ("experiment", "giga"), [("imagenet_perceiver", 707 - SHARED), ("imagenet_perceiver_1x", 404)]
)
def test_preset_has_the_published_number_of_flops(compose_run, experiment, giga):
    from torch.utils.flop_counter import FlopCounterMode

    config = compose_run(f"experiment={experiment}")
    with torch.device("meta"):
        model = instantiate(config.model, _convert_="all")
        with FlopCounterMode(display=False) as counter:
            model({"image": torch.empty(1, 3, 224, 224)})
    assert counter.get_total_flops() == pytest.approx(giga * 1e9, rel=0.005)
