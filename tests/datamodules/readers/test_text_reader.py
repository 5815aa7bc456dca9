"""TextReader.encode and decode_utf8: bytes to ids."""

import json
import re
import time
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
import tokenizers
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
        {"vocabulary": "a b"},
        {"vocabulary": "a b a", "tokenizer": "words"},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(
        (ValueError, FileNotFoundError), match=rf"data\.text\.{next(iter(options))}"
    ):
        TextReader(**({"max_length": 5} | options))


@pytest.fixture
def tokenizer_file(tmp_path):
    words = {"[UNK]": 0, "one": 1, "two": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    return str(tmp_path / "tokenizer.json")


def test_a_tokenizer_file_takes_the_place_of_bytes(tokenizer_file):
    for name in (tokenizer_file, tokenizer_file.removesuffix("/tokenizer.json")):
        reader = TextReader(max_length=5, tokenizer=name)
        assert reader.vocab_size == 3
        assert reader.encode("two one six").tolist() == [2, 1, 0]
        assert [row.tolist() for row in reader.decode_all(["two", b"one two"])] == [[2], [1, 2]]


def test_a_vocabulary_that_differs_from_the_tokenizers_is_refused(tokenizer_file):
    with pytest.raises(ValueError, match=r"vocab_size=262.*has 3 ids.*data\.text\.vocab_size=null"):
        TextReader(max_length=5, tokenizer=tokenizer_file, vocab_size=262)


def test_what_is_no_tokenizer_is_named_in_a_sentence(tmp_path):
    (tmp_path / "a.json").write_text('{"model": "none"}')
    with pytest.raises(ValueError, match=r"a\.json is not a Hugging Face tokenizer\.json: "):
        TextReader(max_length=5, tokenizer=str(tmp_path / "a.json"))
    with pytest.raises(FileNotFoundError, match=r"none\.json is not a file"):
        TextReader(max_length=5, tokenizer=str(tmp_path / "none.json"))
    with pytest.raises(FileNotFoundError, match=r"no-such/model is not a file, nor a name that"):
        TextReader(max_length=5, tokenizer="no-such/model")


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


def test_the_length_is_fitted_to_the_bytes_of_the_texts():
    def length(texts, given=None):
        return TextReader.fit({"max_length": given, "tokenizer": "bytes"}, [texts])["max_length"]

    texts = ["seven"] * 200 + ["x" * 3000]
    assert length(texts) == 8
    assert length(["é" * 11]) == 24
    assert length(["x" * 3000]) == 512
    assert length(texts, 5) == 5


FILMS = ["A fine film.", "a dull film", "A dull, dull play!", "Films: fine; a play"] * 3


def test_words_that_repeat_are_the_tokens_and_the_most_frequent_come_first():
    reader = TextReader(**TextReader.fit({"tokenizer": None}, [FILMS]))
    assert reader.tokenizer == "words"
    assert reader.lowercase
    counts = Counter(re.findall(r"\w+|[^\w\s]", " ".join(FILMS).lower()))
    expected = sorted(counts, key=lambda word: (-counts[word], word))
    assert reader.vocabulary.split(" ") == expected
    assert reader.vocab_size == 7 + len(expected)
    ids = reader.encode("A new FILM")
    assert ids.tolist() == [7 + expected.index("a"), 6, 7 + expected.index("film")]
    assert reader.max_length == 8


def test_a_text_of_blanks_or_of_no_known_word_is_there_all_the_same():
    for texts in (["one"] * 5, FILMS):
        reader = TextReader(**TextReader.fit({}, [texts]))
        assert [reader.encode(text).tolist() for text in (" ", "x" * 70)] == [[6], [6]]
        assert reader.encode("") is None
    endless = TextReader.fit({"tokenizer": "words"}, [["x" * 10**5] * 5])
    assert endless["vocabulary"] == ""
    assert TextReader(**endless).vocab_size == 7


def test_the_options_of_words_make_the_same_reader_again_from_plain_data():
    reader = TextReader(**TextReader.fit({}, [FILMS]))
    again = TextReader(**json.loads(json.dumps(asdict(reader))))
    assert again == reader
    assert TextReader.open_options(asdict(reader)) == []
    assert again.encode(FILMS[2]).tolist() == reader.decode_all(FILMS[2:3])[0].tolist()


def test_bytes_stay_where_words_do_not_repeat():
    rng = np.random.default_rng(0)
    codes = ["".join(rng.choice(list("ABCDEFGH1234"), 9)) for _ in range(60)]
    thai = ["".join(chr(n) for n in rng.integers(0xE01, 0xE2E, 20)) for _ in range(60)]
    numbered = [f"PROD{n:05}" for n in range(60)]
    for texts in (codes, numbered, thai, ["seven"[:n] for n in range(1, 6)], [], [None]):
        found = TextReader.fit({"tokenizer": None}, [texts])
        assert found["tokenizer"] == "bytes"
        assert "vocabulary" not in found


def test_signs_of_chinese_are_words():
    texts = ["这部电影很好看", "这部电影不好看", "电影很长", "不长不短"] * 2
    found = TextReader.fit({"tokenizer": None}, [texts])
    assert found["tokenizer"] == "words"
    assert set("电影很长") <= set(found["vocabulary"].split(" "))


def test_case_is_kept_where_texts_differ_by_nothing_else():
    texts = ["may be", "May be", "us too", "US too"] * 5
    found = TextReader.fit({"tokenizer": None}, [texts])
    assert found["lowercase"] is False
    assert {"US", "us", "May", "may"} <= set(found["vocabulary"].split(" "))


def test_a_text_of_ten_million_characters_takes_no_longer_than_its_beginning():
    reader = TextReader(**TextReader.fit({"max_length": 16}, [FILMS]))
    long = "a dull film " * 10**6
    start = time.perf_counter()
    ids = reader.encode(long)
    assert time.perf_counter() - start < 0.5
    assert ids.tolist() == reader.encode("a dull film " * 6)[:16].tolist()
    last = replace(reader, crop="last")
    assert last.encode(long + "fine").tolist()[-1] == reader.encode("fine").item()
    fit = TextReader.fit({}, [[long, *FILMS[:1]]])
    assert (fit["tokenizer"], fit["max_length"]) == ("words", 512)
