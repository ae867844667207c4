"""Space-time attention: pairs of joint and divided, and why neither knows the order."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:schemes]
def in_space(x_TPK: Tensor) -> Tensor:
    """Attend within each of T frames; frames are the batch."""
    x_T1PK = x_TPK.unsqueeze(1)
    return x_TPK + attend(x_T1PK, x_T1PK, x_T1PK).squeeze(1)


def in_time(x_TPK: Tensor) -> Tensor:
    """Attend across frames at each of P places; places are the batch."""
    return in_space(x_TPK.transpose(0, 1)).transpose(0, 1)


def jointly(x_TPK: Tensor) -> Tensor:
    """Attend from each patch to all patches of all frames."""
    return in_space(x_TPK.flatten(0, 1).unsqueeze(0)).view_as(x_TPK)


def divided(x_TPK: Tensor) -> Tensor:
    """Attend in time, then in space (Bertasius et al. 2021, §3)."""
    return in_space(in_time(x_TPK))


# --8<-- [end:schemes]

if __name__ == "__main__":
    # --8<-- [start:counts]
    print("frames  pixels  tokens  joint a patch  divided  ratio  joint scores")
    for frames, pixels in ((8, 224), (8, 448), (32, 224), (16, 448), (96, 224)):
        places = (pixels // 16) ** 2
        joint, split = frames * places + 1, places + frames + 2  # with the class token
        stored = 12 * joint**2 * 2 / 1e9  # 12 heads, two bytes a score
        print(
            f"{frames:6} {pixels:7} {joint - 1:7,} {joint:14,} {split:8,}"
            f" {joint / split:6.1f} {stored:9.2f} GB"
        )
    tubes = (32 // 2) * (224 // 16) ** 2
    print(
        f"32 frames in tubes of 2: {tubes:,} tokens, {tubes**2 / 6272**2:.2f} of pairs"
    )
    # --8<-- [end:counts]

    # --8<-- [start:order]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    clip_TPK = torch.randn(8, 9, 16, dtype=torch.float64)
    time_T1K = torch.randn(8, 1, 16, dtype=torch.float64)
    moved = {}
    for name, scheme in (("space", in_space), ("joint", jointly), ("divided", divided)):
        for told, added_T1K in (("no", 0 * time_T1K), ("time", time_T1K)):
            forward_K = scheme(clip_TPK + added_T1K).mean((0, 1))
            backward_K = scheme(clip_TPK.flip(0) + added_T1K).mean((0, 1))
            moved[name, told] = (forward_K - backward_K).abs().max().item()
            print(
                f"{name:7}, {told:4} positions:"
                f" backwards the output moves by {moved[name, told]:.2f}"
            )
    assert all((move > 0.01) == (told == "time") for (_, told), move in moved.items())
    # --8<-- [end:order]

    # --8<-- [start:another-frame]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    clip_TPK = 0.5 * torch.randn(8, 9, 16, dtype=torch.float64)
    other_TPK = clip_TPK.clone()
    other_TPK[7, 4] += 1  # one patch of the last frame
    for scheme in (in_space, in_time, divided, jointly):
        change_TP = (scheme(other_TPK) - scheme(clip_TPK)).abs().amax(-1)
        print(f"{scheme.__name__:8}: {(change_TP > 1e-12).sum()} of 72 patches change")
    # --8<-- [end:another-frame]
