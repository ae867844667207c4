"""Quantized keys and values: one scale a channel, or one a token."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:round-trip]
def round_trip(x_SK: Tensor, bits: int, dim: int) -> Tensor:
    """Store x in `bits` bits and read it back; minimum and step are taken along dim.

    dim = 0 gives a step to each channel, dim = 1 a step to each token.
    """
    low_any = x_SK.amin(dim, keepdim=True)
    step_any = (x_SK.amax(dim, keepdim=True) - low_any) / (2**bits - 1)
    return ((x_SK - low_any) / step_any).round() * step_any + low_any


# --8<-- [end:round-trip]


# --8<-- [start:output-error]
def output_error(
    k_SK: Tensor, v_SK: Tensor, pair_any: tuple[Tensor, Tensor], size: float = 2
) -> float:
    """Return the mean relative error of 64 random queries' outputs."""
    q_TK = size * torch.randn(64, k_SK.shape[1])
    right_TK, off_TK = (
        torch.softmax(q_TK @ key_SK.T / key_SK.shape[1] ** 0.5, dim=-1) @ value_SK
        for key_SK, value_SK in ((k_SK, v_SK), pair_any)
    )
    return ((off_TK - right_TK).norm(dim=1) / right_TK.norm(dim=1)).mean().item()


# --8<-- [end:output-error]


if __name__ == "__main__":
    # --8<-- [start:keys]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    k_error = {}
    for shift in (0, 3, 10, 30):  # 2 of 64 channels are large in all tokens
        k_SK, v_SK = torch.randn(2, 256, 64)
        k_SK[:, :2] += shift
        for name, dim in (("channel", 0), ("token", 1)):
            pair_any = (round_trip(k_SK, 4, dim), v_SK)
            k_error[shift, name] = output_error(k_SK, v_SK, pair_any)
        print(
            f"2 channels shifted by {shift:2}: step per channel"
            f" {k_error[shift, 'channel']:.0%}, per token {k_error[shift, 'token']:.0%}"
        )
    assert all(k_error[s, "channel"] < k_error[s, "token"] / 2 for s in (10, 30))
    assert k_error[0, "token"] < k_error[0, "channel"]  # without large channels
    # --8<-- [end:keys]

    # --8<-- [start:values]
    torch.manual_seed(0)
    v_error = {}
    for spread in (0.0, 0.5, 1.0):  # how much the sizes of tokens differ
        k_SK, v_SK = torch.randn(2, 256, 64)
        v_SK *= (spread * torch.randn(256, 1)).exp()
        for name, dim in (("channel", 0), ("token", 1)):
            pair_any = (k_SK, round_trip(v_SK, 4, dim))
            v_error[spread, name] = output_error(k_SK, v_SK, pair_any)
        print(
            f"sizes spread by {spread}: step per channel"
            f" {v_error[spread, 'channel']:.1%}, per token {v_error[spread, 'token']:.1%}"
        )
    assert all(v_error[s, "token"] < v_error[s, "channel"] / 2 for s in (0.5, 1.0))
    # --8<-- [end:values]

    # --8<-- [start:scale]
    torch.manual_seed(0)
    k_SK, v_SK = torch.randn(2, 256, 64)
    harm = {}
    for size in (0.5, 1, 2, 4):  # of the queries, and so of the scores
        pairs_any = (round_trip(k_SK, 4, 1), v_SK), (k_SK, round_trip(v_SK, 4, 1))
        harm[size] = [
            output_error(k_SK, v_SK, pair_any, size) for pair_any in pairs_any
        ]
        print(f"queries × {size}: keys {harm[size][0]:.0%}, values {harm[size][1]:.0%}")
    assert harm[0.5][0] < harm[0.5][1] / 1.5
    assert harm[4][0] > harm[4][1] * 1.5
    # --8<-- [end:scale]

    # --8<-- [start:bytes]
    torch.manual_seed(0)
    size, group = 128, 32  # a 16-bit minimum and step for each group of 32 numbers
    for bits in (8, 4, 2):
        each = bits + 2 * 16 / group
        print(f"{bits} bits: {each:g} a number, {16 / each:.1f} times smaller than 16")
    assert 16 / (2 + 2 * 16 / group) < 6 < 8
    # --8<-- [end:bytes]
