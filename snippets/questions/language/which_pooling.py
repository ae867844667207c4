"""Mean, attention pooling, [CLS]: what each keeps of a sentence."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:pool]
def pool(x_BSD: Tensor, query_D: Tensor) -> Tensor:
    """Return the sum of the words, weighted by their products with a query, (B, D)."""
    weight_BS = (x_BSD @ query_D).softmax(-1)
    return torch.einsum("BS,BSD->BD", weight_BS, x_BSD)


def draw(task: str, S: int) -> tuple[Tensor, Tensor]:
    """Draw 256 sentences of S words, each with a sign, one of them marked."""
    x_BSD = torch.randn(256, S, 8)
    x_BSD[..., 1] = torch.randint(2, (256, S)) * 2.0 - 1  # the sign of each word
    place_B = torch.randint(S, (256,))
    x_BSD[..., 0] = F.one_hot(place_B, S).float()  # the mark
    counts_BS = x_BSD[..., 0] if task == "marked word" else torch.ones(256, S)
    return x_BSD, ((counts_BS * x_BSD[..., 1]).sum(-1) > 0).float()


def accuracy(task: str, S: int, attend: bool, steps: int = 150) -> float:
    """Train a pooling and a linear classifier; return the accuracy on new sentences."""
    torch.manual_seed(0)
    query_D = nn.Parameter(torch.zeros(8), requires_grad=attend)  # zeros: the mean
    to_score = nn.Linear(8, 1)
    optimizer = torch.optim.Adam([query_D, *to_score.parameters()], lr=0.1)
    for _ in range(steps):
        x_BSD, label_B = draw(task, S)
        score_B = to_score(pool(x_BSD, query_D)).squeeze(-1)
        loss = F.binary_cross_entropy_with_logits(score_B, label_B)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    x_BSD, label_B = draw(task, S)
    score_B = to_score(pool(x_BSD, query_D)).squeeze(-1)
    return ((score_B > 0) == label_B.bool()).float().mean().item()


# --8<-- [end:pool]

if __name__ == "__main__":
    # --8<-- [start:sweep]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    right = {}
    for task in ("all words", "marked word"):
        for S in (3, 17, 129):
            for attend in (False, True):
                right[task, S, attend] = accuracy(task, S, attend)
            mean, learned = right[task, S, False], right[task, S, True]
            print(f"{task:11} of {S:3}: mean {mean:.2f}, attention {learned:.2f}")
    assert min(right[pair] for pair in right if pair[2]) > 0.9
    assert right["marked word", 129, False] < 0.65
    # --8<-- [end:sweep]

    # --8<-- [start:cls]
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    embed, to_word = nn.Embedding(12, 16), nn.Linear(16, 12)
    CLS, MASK = 10, 11
    word_BS = torch.randint(10, (4, 9))
    seen_BS = word_BS.clone()
    word_BS[:, 0] = seen_BS[:, 0] = CLS
    seen_BS[:, 3] = MASK
    out_BSD = layer(embed(seen_BS))
    out_BSD.retain_grad()
    F.cross_entropy(to_word(out_BSD[:, 3]), word_BS[:, 3]).backward()
    at_mask, at_cls = (out_BSD.grad[:, s].abs().max().item() for s in (3, 0))
    print(f"masked-word loss: gradient at [MASK] {at_mask:.3f}, at [CLS] {at_cls:.3f}")
    assert at_cls == 0 < at_mask
    # --8<-- [end:cls]
