"""TextReader.encode and decode_utf8: bytes to ids."""

import sys

import numpy as np
import pytest
import torch

from datamodules.readers.text import TextReader, decode_utf8


def test_ids_are_bytes_plus_six():
    assert TextReader(max_length=11).encode("aé").tolist() == [97 + 6, 0xC3 + 6, 0xA9 + 6]


def test_bytes_equal_the_perceiver_tokenizer():
    transformers = pytest.importorskip("transformers")
    text = "naïve 七 שבע 🎈"
    expected = transformers.PerceiverTokenizer()(text, add_special_tokens=False)["input_ids"]
    assert TextReader(max_length=64).encode(text).tolist() == expected


def test_long_texts_are_cut():
    assert len(TextReader(max_length=5).encode("seventeen")) == 5


def test_an_empty_text_is_absent():
    assert TextReader(max_length=5).encode("") is None


@pytest.mark.parametrize("crop", ["first", "last", "random"])
@pytest.mark.parametrize("errors", ["raise", "replace"])
def test_texts_decode_together_as_one_by_one(crop, errors):
    kind = TextReader(max_length=5, crop=crop, errors=errors)
    cells = ["seventeen", "", None, "éééé", b"\xef\xbb\xbfelf", b"", "a"]
    cells += [b"ab\xffcdef"] if errors == "replace" else []
    together = kind.decode_all(cells)
    for cell, found in zip(cells, together, strict=True):
        expected = None if cell is None else kind.decode(cell, where="")
        assert (found is None) == (expected is None)
        assert found is None or torch.equal(found, expected)


def test_bytes_that_are_text_only_beside_others_are_refused():
    with pytest.raises(ValueError, match="not UTF-8"):
        TextReader(max_length=5).decode_all([b"a\xc3", b"\xa9b"])


def test_files_and_ids_are_left_to_be_decoded_one_by_one(tmp_path):
    kind = TextReader(max_length=5)
    assert kind.decode_all(["a", tmp_path / "b.txt"]) is None
    assert kind.decode_all(["a", torch.ones(3)]) is None


def test_bytes_that_are_not_utf8_are_refused_with_their_place():
    with pytest.raises(ValueError, match=r"a\.tsv, line 3 is not UTF-8 .*0xff at position 2"):
        decode_utf8(b"ab\xff", where="a.tsv, line 3")


def test_bytes_that_are_not_utf8_are_replaced_if_asked():
    assert decode_utf8(b"ab\xff", where="", errors="replace") == "ab\ufffd"


@pytest.mark.parametrize(
    "options",
    [
        {"max_length": 0},
        {"errors": "ignore"},
        {"vocab_size": 261},
        {"tokenizer": "no.json", "vocab_size": 7},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(
        (ValueError, FileNotFoundError), match=rf"data\.text\.{next(iter(options))}"
    ):
        TextReader(**({"max_length": 5} | options))


@pytest.fixture
def tokenizer_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "one": 1, "two": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def test_a_tokenizer_file_takes_the_place_of_bytes(tokenizer_file):
    ids = TextReader(max_length=5, tokenizer=tokenizer_file, vocab_size=3).encode("two one six")
    assert ids.tolist() == [2, 1, 0]
    assert ids.dtype == torch.int64


def test_a_vocabulary_that_differs_from_the_tokenizers_is_refused(tokenizer_file):
    with pytest.raises(ValueError, match=r"vocab_size=262.*has 3 ids.*data\.text\.vocab_size=3"):
        TextReader(max_length=5, tokenizer=tokenizer_file)


def test_a_missing_tokenizers_package_is_named(tokenizer_file, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ValueError, match="needs the package tokenizers: pip install"):
        TextReader(max_length=5, tokenizer=tokenizer_file, vocab_size=3)


def test_the_last_part_of_a_text_can_be_kept():
    last = TextReader(max_length=4, crop="last")
    assert last.decode("abcdéf", where="").tolist() == [n + 6 for n in "déf".encode()]
    assert len(last.decode("ab", where="")) == 2


def test_training_takes_any_part_of_a_text_and_evaluation_the_first():
    anywhere = TextReader(max_length=3, crop="random")
    rng = np.random.default_rng(0)
    drawn = {
        "".join(chr(n - 6) for n in anywhere.decode("abcdef", where="", rng=rng).tolist())
        for _ in range(60)
    }
    assert drawn == {"abc", "bcd", "cde", "def"}
    assert anywhere.decode("abcdef", where="").tolist() == [n + 6 for n in b"abc"]
    with pytest.raises(ValueError, match=r"data\.text\.crop='middle'"):
        TextReader(max_length=3, crop="middle")


def test_a_file_of_text_is_read_without_its_byte_order_mark(tmp_path):
    (tmp_path / "a.txt").write_bytes("\ufeffשבע 🎈".encode())
    ids = TextReader(max_length=64).decode(tmp_path / "a.txt", where="")
    assert bytes((ids - 6).tolist()).decode() == "שבע 🎈"


def test_a_file_of_text_that_cannot_be_one_is_named(tmp_path, monkeypatch):
    options = TextReader(max_length=64)
    with pytest.raises(ValueError, match=r"text .*none\.txt: there is no such file"):
        options.decode(tmp_path / "none.txt", where="")
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(ValueError, match=r"a\.txt is not UTF-8"):
        options.decode(tmp_path / "a.txt", where="")
    monkeypatch.setattr("datamodules.readers.text._MAX_BYTES", 2)
    with pytest.raises(ValueError, match=r"a\.txt has 3 bytes, more than 2"):
        options.decode(tmp_path / "a.txt", where="")


def test_the_length_is_fitted_to_the_texts():
    texts = ["seven"] * 200 + ["x" * 3000]
    assert TextReader.fit({"max_length": None}, [texts])["max_length"] == 8
    assert TextReader.fit({"max_length": None}, [["é" * 11]])["max_length"] == 24
    assert TextReader.fit({"max_length": None}, [["x" * 3000]])["max_length"] == 512
    assert TextReader.fit({"max_length": 5}, [texts])["max_length"] == 5
