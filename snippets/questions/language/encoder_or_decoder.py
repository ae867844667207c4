"""Encoder-only, decoder-only, encoder–decoder: three masks, and what each can learn."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor
from torch.nn import functional as F

# --8<-- [end:imports]
from snippets.questions.language.teacher_forcing import Decoder


# --8<-- [start:patterns]
def patterns(S: int, T: int) -> dict[str, Tensor]:
    """Return who sees whom among S source and T target tokens, (P, P) each."""
    all_PP = torch.ones(S + T, S + T, dtype=torch.bool)
    past_PP, source_P = all_PP.tril(), torch.arange(S + T) < S
    source_PP = source_P.unsqueeze(1) & source_P
    return {
        "encoder-only": all_PP,
        "decoder-only": past_PP,
        "encoder–decoder": past_PP | source_PP,
    }


# --8<-- [end:patterns]


# --8<-- [start:train]
def train(mask_PP: Tensor, task: str, steps: int = 100) -> float:
    """Train one layer of attention under a mask; return the last loss, in nats."""
    torch.manual_seed(0)
    P, words, ignored = len(mask_PP), 8, -100
    model = Decoder(words, P, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(steps):
        if task == "tag":  # the label of a word is the word on its right
            word_BP = torch.randint(words, (64, P))
            label_BP = word_BP.roll(-1, dims=1)
            label_BP[:, -1] = ignored
        else:  # the target is the source in reverse, shifted right by one
            source_BS = torch.randint(words, (64, P // 2))
            target_BT, start_B1 = source_BS.flip(1), torch.full((64, 1), words)
            word_BP = torch.cat((source_BS, start_B1, target_BT[:, :-1]), dim=1)
            nothing_BS = torch.full_like(source_BS, ignored)
            label_BP = torch.cat((nothing_BS, target_BT), dim=1)
        loss = F.cross_entropy(model(word_BP, mask_PP).mT, label_BP)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# --8<-- [end:train]

if __name__ == "__main__":
    # --8<-- [start:race]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"knowing nothing: ln 8 = {math.log(8):.2f}")
    loss = {}
    for name, task in (
        ("encoder-only", "tag"),
        ("decoder-only", "tag"),
        ("decoder-only", "reverse"),
        ("encoder–decoder", "reverse"),
    ):
        loss[name, task] = train(patterns(6, 6)[name], task)
        print(f"{name:15} {task:7}: loss {loss[name, task]:.2f}")
    assert loss["decoder-only", "tag"] > 0.95 * math.log(8)
    assert max(loss[pair] for pair in loss if pair != ("decoder-only", "tag")) < 0.1
    # --8<-- [end:race]

    # --8<-- [start:depth]
    for name, mask_PP in patterns(6, 6).items():
        reach_PP = mask_PP.double().matrix_power(24) > 0  # 24 layers, one after another
        first, last_source = reach_PP[0].sum().item(), reach_PP[5].sum().item()
        print(f"{name:15} after 24 layers: word 0 knows {first}, word 5 {last_source}")
        assert reach_PP.equal(mask_PP)
    # --8<-- [end:depth]

    # --8<-- [start:grow]
    torch.manual_seed(0)
    model, word_BP = Decoder(words=8, length=12, size=32), torch.randint(8, (1, 12))
    kept = {}
    for name in ("encoder-only", "decoder-only"):
        mask_PP = patterns(6, 6)[name]
        before_BPE = model(word_BP[:, :11], mask_PP[:11, :11])
        after_BPE = model(word_BP, mask_PP)[:, :11]  # one more word was written
        kept[name] = torch.isclose(before_BPE, after_BPE).all(-1).sum().item()
        print(f"{name}: {kept[name]} of 11 earlier outputs are still valid")
    n = 128
    print(f"{n} words: {n} positions with a cache, {n * (n + 1) // 2:,} without")
    assert kept == {"encoder-only": 0, "decoder-only": 11}
    # --8<-- [end:grow]

    # --8<-- [start:tokens]
    torch.manual_seed(0)
    model, word_BP = Decoder(words=8, length=12, size=32), torch.randint(8, (1, 12))
    replaced_BP = word_BP.clone()
    replaced_BP[:, 4:] = 8  # the eight words after position 3 become [MASK]
    change = {}
    for name in ("decoder-only", "encoder-only"):
        mask_PP = patterns(6, 6)[name]
        gap_BPE = model(replaced_BP, mask_PP) - model(word_BP, mask_PP)
        change[name] = gap_BPE[:, 3].abs().max().item()
        print(f"{name}: [MASK] after position 3 moves its output by {change[name]:.2f}")
    assert change["decoder-only"] == 0 < change["encoder-only"]
    n = 512
    print(
        f"answers in a pass over {n} tokens: {round(0.15 * n)} masked, {n - 1} causal"
    )
    # --8<-- [end:tokens]
