"""How pictures and sound are read and changed: what is left open is chosen from the data."""

from dataclasses import replace

import pytest
from omegaconf import OmegaConf

from datamodules.core.facts import DataFacts
from perceiver.types import TargetKind
from runner.checks import check_config, check_model
from runner.inputs import describe_inputs
from runner.resolve import resolve
from tests.configs import choices

FACTS = DataFacts(
    targets=TargetKind.CLASS,
    class_names=["cat", "dog"],
    num_examples={"train": 700, "val": 70, "test": 70},
    options={
        "modalities": ["image"],
        "num_classes": 2,
        "image": {"channels": 3, "size": [32, 48], "resize": True},
    },
)


@pytest.fixture
def chosen(compose_run):
    """chosen(facts, overrides …) → the final config, and what is said of it."""

    def chosen(facts, *overrides):
        given = compose_run("data=manifest", "data.path=my.csv", *overrides)
        final = resolve(given, facts)
        return final, "\n".join(describe_inputs(final, given, facts))

    return chosen


def with_options(**options):
    return replace(FACTS, options=FACTS.options | options)


def picture(**options):
    return with_options(image=FACTS.options["image"] | options)


def names(steps):
    return [step["_target_"].rpartition(".")[2] for step in steps]


def test_photographs_are_read_by_stages_mirrored_and_shifted(chosen):
    final, said = chosen(FACTS)
    adapter = final.model.adapters.image
    assert (adapter.dims, adapter.strides) == ([32, 64, 128], [1, 2, 2])
    assert names(final.data.augment.image) == ["RandomHorizontalFlip", "RandomCrop"]
    assert final.data.augment.image[1].padding == [6, 4], "an eighth of columns and rows"
    assert "64 channels at stride 2" in said
    assert "mirrored, shifted by up to 6 pixels (augment/image=…)" in said
    assert resolve(final, FACTS) == final


@pytest.mark.parametrize(
    ("classes", "is_mirrored"),
    [
        (["cat", "dog"], True),
        (["0", "1", "10"], False),
        (["zero", "one"], False),
        (["b", "d"], False),
        (["left hand", "right hand"], False),
        (["turn_left", "straight"], False),
        (["cleft", "bright"], True),
    ],
)
def test_pictures_are_mirrored_where_classes_allow_it(chosen, classes, is_mirrored):
    final, said = chosen(replace(FACTS, class_names=classes))
    assert ("RandomHorizontalFlip" in names(final.data.augment.image)) == is_mirrored
    assert ("not mirrored, as class" in said) != is_mirrored


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (
            replace(FACTS, targets=TargetKind.VALUES, target_mean=[0.0], target_std=[1.0]),
            ["RandomCrop"],
        ),
        (with_options(modalities=["image_a", "image_b"]), ["RandomCrop"]),
        (picture(channels=1), ["RandomCrop"]),
        (picture(resize="fit"), ["RandomHorizontalFlip"]),
        (picture(resize="keep"), []),
        (picture(size=[8, 8]), []),
        (replace(FACTS, num_examples={"train": 200_000}), []),
    ],
    ids=["values", "two cameras", "grey", "fit", "keep", "small", "many"],
)
def test_pictures_are_changed_as_their_data_allow(chosen, facts, expected):
    assert names(chosen(facts)[0].data.augment.image) == expected


def test_what_was_chosen_is_left_alone(chosen):
    final, said = chosen(FACTS, "augment/image=none", "modality@model.adapters=[image_patches]")
    assert final.data.augment.image == []
    assert "dims" not in final.model.adapters.image
    assert said == ""
    final, _ = chosen(FACTS, "model.adapters.image.dims=[5]", "model.adapters.image.strides=[3]")
    assert final.model.adapters.image.dims == [5]


def test_what_a_frozen_encoder_reads_stays_as_it_is_so_that_its_tokens_can_be_kept(chosen):
    encoder = ["modality@model.adapters.image=timm", "model.adapters.image.name=resnet18"]
    assert chosen(FACTS, *encoder)[0].data.augment.image is None
    final, _ = chosen(FACTS, *encoder, "model.adapters.image.frozen=false")
    assert len(final.data.augment.image) == 2


@pytest.mark.parametrize(("seconds", "is_changed"), [(2.0, True), (0.1, False)])
def test_sound_that_is_long_enough_is_changed(chosen, seconds, is_changed):
    audio = {"sample_rate": 8000, "max_seconds": seconds}
    final, said = chosen(with_options(modalities=["audio_a", "audio_b"], audio=audio))
    assert ("audio_b: up to 20 frames and 8 bins hidden" in said) == is_changed
    assert ("audio: up to 10 % faster or slower" in said) == is_changed
    assert names(final.data.augment.audio) == (["RandomSpeed"] if is_changed else [])
    for adapter in final.model.adapters.values():
        assert (adapter.augment is not None) == is_changed
        if is_changed:
            assert adapter.augment.time_mask_param == 20, "a tenth of 200 frames"
            assert adapter.augment.freq_mask_param == 8, "a fifth of 40 bins"
    none = ["augment/audio=none", "augment/spectrogram=none"]
    final, said = chosen(with_options(modalities=["audio"], audio=audio), *none)
    assert final.data.augment.audio == []
    assert final.model.adapters.audio.augment == {"_target_": "torch.nn.Identity"}
    assert said == ""


@pytest.mark.parametrize("modality", [c for c in choices("modality") if c.startswith("image")])
def test_the_experiment_on_photographs_takes_any_adapter_of_pictures(compose_run, modality):
    config = compose_run("experiment=cifar10", f"modality@model.adapters=[{modality}]")
    check_config(config)
    check_model(config)
    assert OmegaConf.select(config, "model.adapters.image.size") == [32, 32]
