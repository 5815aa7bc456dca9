"""What makes a run faster does what it says, or refuses in a sentence."""

from __future__ import annotations

import sys

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from perceiver.models.blocks import AttentionBlock
from runner.speed import check_speed, compile_model, use_float8


class Model(nn.Module):
    """A model of two regions of one layer each, an adapter before them and an answer behind."""

    def __init__(self, width=32):
        super().__init__()
        self.adapter = nn.Linear(16, width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, 48)
        self.answer = nn.Linear(48, 32)

    def regions(self):
        return [self.first, nn.Sequential(self.second, self.answer)]

    def forward(self, x):
        return self.answer(self.second(self.first(self.adapter(x)).relu()).relu())


@pytest.fixture
def compiled(monkeypatch):
    done = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, **how: done.append((self, how)))
    return done


def test_each_choice_of_compile_compiles_its_part(compiled):
    model = Model()
    compile_model(model, True)
    assert [type(part) for part, _ in compiled] == [nn.Linear, nn.Sequential]
    compile_model(model, "whole")
    compile_model(model, "graphs")
    assert compiled[2:] == [(model, {}), (model, {"mode": "reduce-overhead"})]


def test_a_model_without_regions_is_not_compiled_by_them(compiled):
    with pytest.raises(ValueError, match=r"Linear names no regions .* compile=whole"):
        compile_model(nn.Linear(2, 3), True)
    assert not compiled


def test_float8_is_true_or_false():
    with pytest.raises(ValueError, match=r"float8=maybe is none of its choices"):
        check_speed(config(float8="maybe"))


@pytest.mark.parametrize("wrong", ["hihg", True, 32, None, ["high"]])
def test_a_precision_of_products_is_one_of_torchs(wrong):
    for choice in ("highest", "high", "medium"):
        check_speed(config(matmul_precision=choice))
    with pytest.raises(ValueError, match=r"is none of its choices: highest .* high .* medium"):
        check_speed(config(matmul_precision=wrong))


def config(compile=False, float8=False, matmul_precision="highest", accelerator="auto"):
    options = {
        "compile": compile,
        "float8": float8,
        "matmul_precision": matmul_precision,
        "trainer": {"accelerator": accelerator},
    }
    return OmegaConf.create(options)


@pytest.mark.parametrize("accelerator", ["cpu", "auto", "gpu"])
def test_graphs_are_for_gpus(monkeypatch, accelerator):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    graphs = config(compile="graphs", accelerator=accelerator)
    if accelerator == "cpu":
        with pytest.raises(ValueError, match=r"compile=graphs .* compile=whole"):
            check_speed(graphs)
        return
    check_speed(graphs)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"compile=graphs .* compile=whole"):
        check_speed(graphs)


@pytest.mark.parametrize("batches", [None, 1, 2])
@pytest.mark.parametrize("compiled", ["whole", "graphs"])
def test_graphs_do_not_sum_gradients_over_batches(monkeypatch, compiled, batches):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = config(compile=compiled)
    chosen.trainer.accumulate_grad_batches = batches
    if (compiled, batches) == ("graphs", 2):
        with pytest.raises(ValueError, match=r"accumulate_grad_batches=2: .* set compile=whole"):
            check_speed(chosen)
    else:
        check_speed(chosen)


@pytest.mark.parametrize(("capability", "can"), [((8, 0), False), ((8, 9), True), ((9, 0), True)])
def test_eight_bits_are_for_gpus_that_have_them(monkeypatch, capability, can):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "An Old GPU")
    if can:
        check_speed(config(float8=True))
        return
    with pytest.raises(ValueError, match="An Old GPU does not: set float8=false"):
        check_speed(config(float8=True))
    check_speed(config(float8=True, accelerator="cpu"))


def rounded(x, kind):
    """x on the grid of an eight-bit format that is scaled to the largest value of x."""
    scale = torch.finfo(kind).max / x.abs().max()
    return (x * scale).to(kind).to(x.dtype) / scale


def test_layers_of_regions_round_their_operands_to_eight_bits_and_others_do_not():
    pytest.importorskip("torchao", reason="needs the extra [float8]")
    torch.manual_seed(0)
    model = Model()
    plain = {name: p.clone() for name, p in model.state_dict().items()}
    use_float8(model, emulated=True)
    assert model.state_dict().keys() == plain.keys()
    assert type(model.adapter) is nn.Linear
    assert type(model.answer) is nn.Linear, "the answer stays exact"
    x = torch.randn(7, 32, requires_grad=True)
    out, factor = model.first(x), torch.randn(7, 32)
    e4m3, e5m2 = torch.float8_e4m3fn, torch.float8_e5m2
    weight, given = rounded(plain["first.weight"], e4m3), rounded(x.detach(), e4m3)
    close = {"rtol": 1e-3, "atol": 1e-4}  # a number between two of the grid may go to either
    torch.testing.assert_close(out, given @ weight.T + plain["first.bias"], **close)
    assert not torch.allclose(out, x @ plain["first.weight"].T + plain["first.bias"], rtol=1e-3)
    out.backward(factor)
    coarse = rounded(factor, e5m2)
    torch.testing.assert_close(x.grad, coarse @ weight, **close)
    torch.testing.assert_close(model.first.weight.grad, coarse.T @ given, **close)


def test_widths_that_matrix_units_do_not_take_are_refused():
    pytest.importorskip("torchao", reason="needs the extra [float8]")
    with pytest.raises(ValueError, match=r"multiples of 16: .* or float8=false"):
        use_float8(Model(width=31), emulated=True)


def test_without_its_package_eight_bits_are_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchao.float8", None)
    with pytest.raises(ValueError, match=r"perceiver-multimodal\[float8\]"):
        use_float8(Model(), emulated=True)


def test_a_block_in_eight_bits_is_near_the_block():
    pytest.importorskip("torchao", reason="needs the extra [float8]")
    from perceiver.attention import Attention

    torch.manual_seed(0)
    block = AttentionBlock(32, attention=lambda **dims: Attention(**dims, num_heads=2))
    latents = torch.randn(3, 16, 32)
    exact = block(latents)
    model = nn.Sequential(block, nn.Linear(32, 32))
    model.regions = lambda: [block]
    use_float8(model, emulated=True)
    error = (block(latents) - exact).norm() / (exact - latents).norm()
    assert 1e-3 < error < 0.1  # of what the block adds; a step of e4m3 is 2⁻³ of a number
