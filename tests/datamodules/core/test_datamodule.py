"""MultimodalDataModule: what every data set checks, shares out and reports."""

from types import SimpleNamespace

import pytest
import torch

from datamodules.core.columns import Tensors
from datamodules.core.datamodule import MultimodalDataModule
from datamodules.core.dataset import Source
from datamodules.transforms.mix import MixUp
from perceiver.types import TargetKind


class Tiny(Source):
    """Audio of one sample and text of one byte an example; texts listed in `silent` are absent."""

    def __init__(self, targets, *, name, silent=()):
        texts = [None if i in silent else torch.tensor([i + 6]) for i in range(len(targets))]
        super().__init__(
            targets=targets,
            ids=[f"{name} {i}" for i in range(len(targets))],
            columns={"text": Tensors(texts)},
        )

    def read(self, index, rng):
        return {"audio": torch.tensor([rng.random()]), "text": self.columns["text"][index]}


class TinyDataModule(MultimodalDataModule):
    available_modalities = ("audio", "text")
    targets: dict

    def __init__(self, targets=None, *, silent=(), **common):
        defaults = {
            "modalities": ["audio", "text"],
            "batch_size": 3,
            "audio": {"sample_rate": 7, "max_seconds": 1.0},
            "text": {"max_length": 5, "tokenizer": "bytes", "vocab_size": 262},
        }
        super().__init__(**(defaults | common))
        self.targets = {"train": [0, 1, 1, 0, 1, 0, 1], "val": [1, 0], "test": [0, 1, 1]}
        self.targets |= targets or {}
        self.silent = silent

    def build(self):
        sources = {
            name: Tiny(targets, name=name, silent=self.silent)
            for name, targets in self.targets.items()
        }
        return ["no", "yes"], sources


def ids(loader):
    return [name for batch in loader for name in batch.ids]


def test_modalities_keep_the_order_of_the_data_set():
    assert TinyDataModule(modalities=["text", "audio"]).modalities == ["audio", "text"]


@pytest.mark.parametrize(("modalities", "named"), [(["video"], "'video'"), ([], "none of them")])
def test_modalities_that_are_not_offered_are_refused_with_the_override(modalities, named):
    with pytest.raises(
        ValueError, match=rf"\['audio', 'text'\].*{named}.*modality@model\.adapters=\[audio,text\]"
    ):
        TinyDataModule(modalities=modalities)


def test_only_the_chosen_modalities_are_in_a_batch():
    batch = next(iter(TinyDataModule(modalities=["text"]).val_dataloader()))
    assert set(batch.inputs) == {"text"}


def test_classes_are_known_after_setup():
    data = TinyDataModule()
    data.setup("fit")
    assert (data.num_classes, data.class_names) == (2, ["no", "yes"])


@pytest.mark.parametrize("num_classes", [3, 5])
def test_another_number_of_classes_is_refused_naming_both(num_classes):
    with pytest.raises(ValueError, match=rf"num_classes={num_classes}, but the data has 2 classes"):
        TinyDataModule(num_classes=num_classes).setup()


def test_too_few_classes_are_refused_naming_the_first_example_outside():
    with pytest.raises(ValueError, match=r"train 1 has label 1, outside \[0, 1\).*has 2 classes"):
        TinyDataModule(num_classes=1).setup()


@pytest.mark.parametrize("label", [-1, 2])
def test_a_label_out_of_range_is_refused_naming_the_example(label):
    with pytest.raises(ValueError, match=rf"test 1 has label {label}, outside \[0, 2\)"):
        TinyDataModule({"test": [0, label, 1]}).setup()


def test_an_empty_split_is_refused_naming_the_split():
    with pytest.raises(ValueError, match="The val split has no examples"):
        TinyDataModule({"val": []}).setup()


def test_an_example_with_no_chosen_modality_is_refused_when_set_up():
    with pytest.raises(ValueError, match=r"train 1 has none of the modalities \['text'\]"):
        TinyDataModule(modalities=["text"], silent=[1]).setup()


def test_the_training_order_changes_with_the_epoch_and_evaluation_is_in_order():
    loader = TinyDataModule().train_dataloader()
    orders = []
    for epoch in (0, 1, 0):
        loader.set_epoch(epoch)
        orders.append(ids(loader))
    assert orders[0] == orders[2] != orders[1]
    assert ids(TinyDataModule().test_dataloader()) == ["test 0", "test 1", "test 2"]


def test_worker_processes_give_the_same_batches():
    def inputs(num_workers):
        loader = TinyDataModule(num_workers=num_workers).train_dataloader()
        found = []
        for epoch in range(2):
            loader.set_epoch(epoch)
            found += [batch.inputs["audio"] for batch in loader]
        return found

    alone, shared = inputs(0), inputs(2)
    assert not torch.equal(alone[0], alone[3])
    for a, b in zip(alone, shared, strict=True):
        assert torch.equal(a, b)


def trainer(device="cpu", **told):
    """What a loader asks a trainer."""
    strategy = SimpleNamespace(root_device=torch.device(device))
    alone = {"global_rank": 0, "world_size": 1, "overfit_batches": 0}
    return SimpleNamespace(strategy=strategy, **alone | told)


@pytest.mark.parametrize(
    ("wanted", "device", "pinned"),
    [(None, "cpu", False), (None, "cuda", True), (True, "cpu", True), (False, "cuda", False)],
)
def test_batches_are_page_locked_where_there_is_a_gpu(wanted, device, pinned):
    data = TinyDataModule(pin_memory=wanted)
    assert data.train_dataloader().pin_memory is bool(wanted)
    data.trainer = trainer(device)
    assert data.train_dataloader().pin_memory is pinned


def test_workers_stay_and_read_ahead():
    loader = TinyDataModule(num_workers=1, prefetch=5).train_dataloader()
    assert loader.persistent_workers
    assert loader.prefetch_factor == 5


def test_processes_share_a_split_without_counting_an_example_twice():
    tested, trained, batches = [], [], []
    for rank in range(2):
        data = TinyDataModule()
        data.trainer = trainer(global_rank=rank, world_size=2)
        tested += ids(data.test_dataloader())
        trained += ids(data.train_dataloader())
        batches.append(len(data.train_dataloader()))
    assert sorted(tested) == ["test 0", "test 1", "test 2"]
    assert sorted(trained) == [f"train {i}" for i in range(7)]
    assert batches[0] == batches[1], "one process would wait for the other's gradients"


def test_overfitting_sees_the_same_batches_every_epoch():
    data = TinyDataModule()
    data.trainer = trainer(overfit_batches=1)
    loader = data.train_dataloader()
    first = next(iter(loader))
    loader.set_epoch(1)
    again = next(iter(loader))
    assert first.ids == again.ids == ["train 0", "train 1", "train 2"]
    assert torch.equal(first.inputs["audio"], again.inputs["audio"])


def test_sorting_by_lengths_that_nothing_has_is_refused():
    with pytest.raises(ValueError, match=r"bucket_batches=4 sorts.*none of \['audio', 'text'\]"):
        TinyDataModule(bucket_batches=4).train_dataloader()


def test_the_seed_changes_training_draws_and_never_evaluation():
    def first(seed, split):
        data = TinyDataModule(seed=seed)
        data.setup()
        return data.splits[split][0, 0].inputs["audio"].item()

    assert first(0, "train") != first(1, "train")
    assert first(0, "test") == first(1, "test")
    assert first(0, "test") != first(0, "val")


def test_missing_modalities_are_the_same_for_every_seed_and_are_reported():
    def lacking(seed):
        data = TinyDataModule({"test": [0, 1] * 50}, seed=seed, missing={"test": {"audio": 0.5}})
        data.setup()
        return data, [batch.has_any(["audio"]) for batch in data.test_dataloader()]

    data, present = lacking(0)
    assert torch.equal(torch.cat(present), torch.cat(lacking(1)[1]))
    count = int((~torch.cat(present)).sum())
    assert 0 < count < 100
    assert f"      lacking audio {count}" in data.summary()
    assert not any(batch.present for batch in data.train_dataloader())


@pytest.mark.parametrize(
    "missing", [{"tset": {"audio": 0.1}}, {"test": {"video": 0.1}}, {"test": {"audio": 1.1}}]
)
def test_impossible_missing_modalities_are_refused(missing):
    with pytest.raises(ValueError, match=r"data\.missing\.\w+\.\w+=.*expected a split"):
        TinyDataModule(missing=missing)


def test_augmenting_a_modality_that_is_not_offered_is_refused():
    with pytest.raises(ValueError, match=r"data\.augment names \['video'\]"):
        TinyDataModule(augment={"video": [abs]})


def test_augmentation_of_a_modality_that_was_not_chosen_is_left_out():
    data = TinyDataModule(modalities=["text"], augment={"audio": [abs], "text": [torch.neg]})
    batch = next(iter(data.train_dataloader()))
    assert (batch.inputs["text"] < 0).all()


def test_a_batch_size_below_one_is_refused():
    with pytest.raises(ValueError, match=r"data\.batch_size=0"):
        TinyDataModule(batch_size=0)


def test_the_summary_counts_examples_and_classes():
    assert TinyDataModule().summary() == [
        "modalities audio, text",
        "train 7 examples · no 3, yes 4",
        "val   2 examples · no 1, yes 1",
        "test  3 examples · no 1, yes 2",
    ]


def test_mixed_batches_do_not_depend_on_the_number_of_workers():
    batches = []
    for num_workers in (0, 2):
        data = TinyDataModule(mix=MixUp(alpha=1.0), num_workers=num_workers, seed=3)
        batches.append(list(data.train_dataloader()))
    for one, other in zip(*batches, strict=True):
        assert one.targets["target"].shape == (len(one), 2)
        # The last example has a batch for itself, and so no partner.
        assert ((one.targets["target"] > 0) & (one.targets["target"] < 1)).any() == (len(one) > 1)
        assert torch.equal(one.targets["target"], other.targets["target"])
        assert torch.equal(one.inputs["audio"], other.inputs["audio"])


def test_evaluation_is_never_mixed():
    data = TinyDataModule(mix=MixUp(alpha=1.0))
    for loader in (data.val_dataloader(), data.test_dataloader()):
        assert all(batch.targets["target"].dtype == torch.int64 for batch in loader)


def test_transforms_of_modalities_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"data\.transform names \['video'\]"):
        TinyDataModule(transform={"video": [abs]})


class Unequal(TinyDataModule):
    """Twenty-three examples of one class and two of the other."""

    def __init__(self, **options):
        super().__init__({"train": [0] * 23 + [1, 1]}, **options)
        counts, self.targets = self.targets, TargetKind.CLASS
        self.build = lambda: (
            ["no", "yes"],
            {name: Tiny(targets, name=name) for name, targets in counts.items()},
        )


def test_strong_imbalance_is_said_with_what_may_help():
    (line,) = [line for line in Unequal().summary() if "imbalanced" in line]
    assert "23 of no, 2 of yes; task.objective.class_weights=balanced" in line
    assert Unequal().facts().class_counts == [23, 2]
    assert not any("imbalanced" in line for line in TinyDataModule().summary())


def test_a_balanced_sampler_shows_rare_classes_as_often_and_evaluation_all_once():
    data = Unequal(sampler="balanced")
    labels = [n for batch in data.train_dataloader() for n in batch.targets["target"].tolist()]
    assert sorted([labels.count(0), labels.count(1)]) == [12, 13]
    assert ids(data.test_dataloader()) == ["test 0", "test 1", "test 2"]


def test_samplers_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match=r"data.sampler=fair, expected balanced or null"):
        TinyDataModule(sampler="fair")
    data = Unequal(sampler="balanced")
    data.targets = TargetKind.VALUES
    with pytest.raises(ValueError, match=r"data.sampler=balanced, but the target is values, not"):
        data._loader("train")
    data.shuffle_window = 5
    with pytest.raises(ValueError, match=r"data.shuffle_window=5 keeps examples in blocks"):
        data._loader("train")
