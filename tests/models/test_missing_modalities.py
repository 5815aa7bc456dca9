"""Whatever is absent or padding has no part in the answer, and training bears it."""

from functools import partial
from itertools import combinations

import pytest
import torch
from torch.testing import assert_close

from perceiver.adapters import ConvStemAdapter, ModalityDropout, ProjectionFusion

# Sums in another order: 1e-9 leaves float64 a factor of a million.
close = partial(assert_close, rtol=0, atol=1e-9)
NAMES = ("audio", "image", "text")
SUBSETS = [subset for size in (1, 2, 3) for subset in combinations(NAMES, size)]


@pytest.fixture(params=["padding", "projection"])
def model(request, small_model):
    fusion = {} if request.param == "padding" else {"fusion": partial(ProjectionFusion, dim=9)}
    return small_model(**fusion).eval()


def flags(subset, batch: int = 3) -> dict[str, torch.Tensor]:
    return {name: torch.full((batch,), name in subset) for name in NAMES}


@pytest.mark.parametrize("subset", SUBSETS, ids="+".join)
def test_an_absent_modality_a_missing_key_and_no_tokens_are_the_same(model, small_inputs, subset):
    some = {name: small_inputs[name] for name in subset}
    absent = model(small_inputs, present=flags(subset))
    close(model(some), absent)
    close(model(some, present=flags(subset)), absent)
    # A byte array that never had the tokens.
    segments = {name: model.adapters[name](values) for name, values in some.items()}
    close(model.decoder(model.encoder(model.fusion(segments))), absent)
    if len(subset) < 3:
        assert not torch.allclose(absent, model(small_inputs))


def test_a_model_that_never_knew_the_modality_answers_the_same(small_model, small_inputs):
    model, other = small_model().eval(), small_model("image", "text").eval()
    shared = other.state_dict().keys()
    assert not any("audio" in name for name in shared)
    other.load_state_dict({k: v for k, v in model.state_dict().items() if k in shared})
    del small_inputs["audio"]
    close(other(small_inputs), model(small_inputs))


def test_each_example_of_a_batch_may_lack_other_modalities(model, small_inputs):
    # What stands in the place of an absent input does not matter: random numbers here.
    has = [("image",), ("audio", "text"), NAMES]
    present = {name: torch.tensor([name in subset for subset in has]) for name in NAMES}
    outputs = model(small_inputs, present=present)
    for row, subset in enumerate(has):
        close(outputs[[row]], model({name: small_inputs[name][[row]] for name in subset}))


def test_a_modality_that_present_does_not_name_is_there(model, small_inputs):
    present = {"text": torch.tensor([True, False, True])}
    complete = present | {name: torch.ones(3, dtype=torch.bool) for name in ("audio", "image")}
    close(model(small_inputs, present=present), model(small_inputs, present=complete))


def test_absent_pictures_have_no_part_in_the_statistics_of_a_batch(small_model):
    stem = ConvStemAdapter(channels=3, size=(8, 8), stem_dim=4, position=None)
    model = small_model(adapters={"image": stem}, modality_dropout=ModalityDropout(p=0.5))
    norm, pictures = stem.stem[2], torch.randn(4, 3, 8, 8).double()
    present = torch.tensor([True, False, True, True])
    model.double().train()({"image": pictures[present]})
    expected = norm.running_var.clone()
    norm.reset_running_stats()
    model({"image": pictures * present[:, None, None, None]}, present={"image": present})
    close(norm.running_var, expected)


def test_with_nothing_present_answers_are_finite_and_owe_nothing_to_the_inputs(model, small_inputs):
    nothing = flags(())
    outputs = model(small_inputs, present=nothing)
    assert outputs.isfinite().all()
    zeros = {name: torch.zeros_like(values) for name, values in small_inputs.items()}
    close(outputs, model(zeros, present=nothing))
    close(outputs[0], outputs[1])
    outputs.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_an_empty_example_does_not_touch_the_others(model, small_inputs):
    present = {name: torch.tensor([True, False, True]) for name in NAMES}
    outputs = model(small_inputs, present=present)
    close(outputs[[0, 2]], model({name: v[[0, 2]] for name, v in small_inputs.items()}))
    outputs[[0, 2]].square().sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_padding_changes_no_answer(model):
    texts = [torch.randint(0, 17, (length,)) for length in (3, 13, 1)]
    sounds = [torch.randn(length).double() for length in (211, 97, 5)]
    image = torch.randn(3, 3, 3, 5).double()
    # The padding holds anything.
    text, audio = torch.full((3, 13), 16), torch.full((3, 240), 0.7).double()
    masks = {"text": torch.zeros(3, 13).bool(), "audio": torch.zeros(3, 240).bool()}
    for row in range(3):
        for name, values, whole in (("text", texts[row], text), ("audio", sounds[row], audio)):
            whole[row, : len(values)] = values
            masks[name][row, : len(values)] = True
    together = model({"image": image, "text": text, "audio": audio}, masks)
    for row in range(3):
        alone = {"image": image[[row]], "text": texts[row][None], "audio": sounds[row][None]}
        close(together[[row]], model(alone))


@pytest.mark.parametrize("lacking", [(), *((name,) for name in NAMES), ("image", "text")])
def test_every_parameter_gets_a_gradient_whatever_a_batch_lacks(model, small_inputs, lacking):
    # A process whose parameter has none stalls distributed training.
    here = [name for name in NAMES if name not in lacking]
    model.train()(small_inputs, present=flags(here)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        part = next((m for m in NAMES if f".{m}." in name or name.endswith(f".{m}")), None)
        # Of a key's bias the softmax knows nothing.
        if part in lacking:
            assert not parameter.grad.any(), name
        elif not name.endswith("to_key.bias"):
            assert parameter.grad.any(), name


def test_modality_dropout_leaves_one_modality_in_training_and_all_in_evaluation(
    small_model, small_inputs
):
    model = small_model(modality_dropout=ModalityDropout(p=1.0))
    single = {name: model.eval()({name: small_inputs[name]}) for name in NAMES}
    close(model(small_inputs), model(small_inputs, present=flags(NAMES)))
    outputs = model.train()(small_inputs)
    for row in range(3):
        assert any(torch.allclose(outputs[row], single[name][row], atol=1e-9) for name in NAMES)
    # What is absent does not come back.
    only_text = model(small_inputs, present=flags(("text",)))
    close(only_text, single["text"])


@pytest.mark.parametrize(
    ("p", "given", "masked"),
    [
        (0.5, NAMES, True),
        ({"text": 0.5}, NAMES, True),
        (0.0, NAMES, False),
        ({"text": 0.0}, NAMES, False),
        ({"text": 0.5}, ("audio", "image"), False),
        (0.9, ("image",), False),
    ],
)
def test_training_masks_nothing_where_nothing_can_be_dropped(
    small_model, small_inputs, p, given, masked
):
    model = small_model(modality_dropout=ModalityDropout(p=p)).train()
    read = model.byte_array({name: small_inputs[name] for name in given})
    assert (read.mask is not None) is masked


@pytest.mark.parametrize("p", [0.0, 0.9])
def test_a_lone_modality_that_examples_lack_stays_absent_in_training(small_model, small_inputs, p):
    model = small_model(modality_dropout=ModalityDropout(p=p)).train()
    has = torch.tensor([True, False, True])
    read = model.byte_array({"text": small_inputs["text"]}, present={"text": has})
    assert torch.equal(read.mask.any(1), has)


def test_modalities_are_sorted_whatever_order_they_are_given_in(model, small_inputs):
    assert model.modalities == NAMES
    reversed_ = dict(reversed(small_inputs.items()))
    assert list(model.byte_array(reversed_).segments) == list(NAMES)
    close(model(reversed_), model(small_inputs))


def test_what_a_model_cannot_read_is_named(small_model, small_inputs):
    model = small_model("image", "text")
    with pytest.raises(ValueError, match="cannot read audio: its modalities are image, text"):
        model(small_inputs)
    with pytest.raises(ValueError, match="no input at all: its modalities are image, text"):
        model({})
    some = {name: small_inputs[name] for name in ("image", "text")}
    for what in ("masks", "present"):
        with pytest.raises(ValueError, match=rf"{what} of txt: the model's modalities are image"):
            model(some, **{what: {"txt": torch.ones(len(some["text"]), dtype=torch.bool)}})
    with pytest.raises(ValueError, match=r"different numbers of examples: .*'text': 2"):
        model({"image": small_inputs["image"], "text": small_inputs["text"][:2]})
    with pytest.raises(ValueError, match=r"model\.adapters is empty"):
        small_model(adapters={})
    with pytest.raises(ValueError, match=r"p names sound: the model's modalities are audio, image"):
        small_model(modality_dropout=ModalityDropout(p={"sound": 0.3, "text": 0.1}))
