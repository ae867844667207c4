"""Two towers without cross-attention learn to match pairs, at N + N encodings."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]


# --8<-- [start:towers]
def contrast(image_BD: Tensor, text_BD: Tensor, scale: float = 20.0) -> Tensor:
    """Return the symmetric cross entropy of B × B cosines (Radford et al. 2021)."""
    score_BB = scale * F.normalize(image_BD, dim=1) @ F.normalize(text_BD, dim=1).T
    pair_B = torch.arange(len(score_BB))
    return (F.cross_entropy(score_BB, pair_B) + F.cross_entropy(score_BB.T, pair_B)) / 2


def tower(size: int) -> nn.Module:
    """Return an encoder from `size` numbers to 16; it never sees the other side."""
    return nn.Sequential(nn.Linear(size, 64), nn.ReLU(), nn.Linear(64, 16))


def hits(image_ND: Tensor, text_ND: Tensor) -> float:
    """Return how many of N images find their own text among the N, as a share."""
    score_NN = F.normalize(image_ND, dim=1) @ F.normalize(text_ND, dim=1).T
    return (score_NN.argmax(1) == torch.arange(len(score_NN))).float().mean().item()


# --8<-- [end:towers]

if __name__ == "__main__":
    # --8<-- [start:learn]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    N = 256  # pairs; 8 hidden factors show in 32 "pixels" and in 24 "words"
    to_pixels_8I, to_words_8J = torch.randn(8, 32), torch.randn(8, 24)
    image, text = tower(32), tower(24)
    both = nn.ModuleList((image, text))
    optimizer = torch.optim.Adam(both.parameters(), lr=0.003)
    factor_N8 = torch.randn(N, 8)  # for the test: never trained on
    pixel_NI, word_NJ = torch.tanh(factor_N8 @ to_pixels_8I), factor_N8 @ to_words_8J
    before = hits(image(pixel_NI), text(word_NJ))
    for _ in range(400):
        factor_B8 = torch.randn(128, 8)
        image_BD = image(torch.tanh(factor_B8 @ to_pixels_8I))
        loss = contrast(image_BD, text(factor_B8 @ to_words_8J))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = hits(image(pixel_NI), text(word_NJ))
    print(f"right text among {N}: {before:.0%} before training, {after:.0%} after")
    assert before < 0.05 < 0.8 < after
    print(f"{N} × {N} scores: {N + N} encodings; a joint encoder runs {N * N} times")
    # --8<-- [end:learn]

    # --8<-- [start:batch-of-one]
    torch.manual_seed(0)
    image_ND, text_ND = torch.randn(128, 16, requires_grad=True), torch.randn(128, 16)
    slopes = {}
    for pairs in (128, 2, 1):  # 128 pairs at once, or accumulated from small batches
        losses = map(contrast, image_ND.split(pairs), text_ND.split(pairs))
        loss = sum(losses) * pairs / 128
        (slope_ND,) = torch.autograd.grad(loss, image_ND)
        slopes[pairs] = slope_ND.flatten()
        same = F.cosine_similarity(slopes[128], slopes[pairs], dim=0)
        print(
            f"batches of {pairs:3}: gradient {slope_ND.norm():.3f}, cosine {same:.2f}"
        )
    assert slopes[1].abs().max() == 0 < slopes[2].abs().max()
    assert F.cosine_similarity(slopes[128], slopes[2], dim=0) < 0.8
    # --8<-- [end:batch-of-one]

    # --8<-- [start:binding]
    torch.manual_seed(0)
    red, blue, cube, ball = range(4)
    word_4D = torch.randn(4, 16, dtype=torch.float64)
    text_14D = word_4D[[red, cube, blue, ball]].unsqueeze(0)
    swap_14D = word_4D[[blue, cube, red, ball]].unsqueeze(0)
    mixer = nn.TransformerEncoderLayer(16, 1, 32, dropout=0.0, batch_first=True)
    mixer = mixer.double().eval()
    place_14D = torch.randn(1, 4, 16, dtype=torch.float64)
    for name, encode in (
        ("mean of words", lambda x_any: x_any.mean(1)),
        (
            "attention and positions first",
            lambda x_any: mixer(x_any + place_14D).mean(1),
        ),
    ):
        gap = (encode(text_14D) - encode(swap_14D)).abs().max().item()
        print(f"{name}: the two sentences differ by {gap:.0e}")
        assert (gap < 1e-12) == (name == "mean of words")
    # --8<-- [end:binding]
