"""Ring attention on one process: keys travel, parts merge; who waits for whom."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]
# isort: split
from snippets.decoding.split_kv import attend_part, merge
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:ring]
def ring(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTV: Tensor, own_NC: Tensor) -> Tensor:
    """Attend causally; device n has the positions `own_NC[n]` and sees no others.

    In each of N steps a device attends to the keys it holds and passes them on.
    """
    N, out_BHTV = len(own_NC), torch.empty_like(v_BHTV)
    for n in range(N):  # the devices work at the same time
        q_BHCK, done_any = q_BHTK[:, :, own_NC[n]], None
        for step in range(N):
            held_C = own_NC[(n - step) % N]  # came from the neighbor, step by step
            mask_CC = held_C <= own_NC[n].unsqueeze(1)
            part_any = attend_part(
                q_BHCK,
                k_BHTK[:, :, held_C],
                v_BHTV[:, :, held_C],
                mask_CC.expand(*q_BHCK.shape[:3], len(held_C)),
            )
            if done_any is not None:
                both_any = zip(done_any, part_any, strict=True)
                part_any = merge(*(torch.stack(pair_any) for pair_any in both_any))
            done_any = part_any
        out_BHTV[:, :, own_NC[n]] = done_any[0]
    return out_BHTV


# --8<-- [end:ring]


# --8<-- [start:split]
def split(how: str, N: int, C: int) -> Tensor:
    """Return which positions each of N devices has (N, C)."""
    pos_any = torch.arange(N * C)
    if how == "contiguous":
        return pos_any.view(N, C)
    if how == "striped":
        return pos_any.view(C, N).T
    half_any = pos_any.view(2 * N, C // 2)  # zigzag: one from each end
    return torch.cat((half_any[:N], half_any[N:].flip(0)), dim=1)


# --8<-- [end:split]

if __name__ == "__main__":
    # --8<-- [start:exact]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_BHTK, k_BHTK, v_BHTV = torch.randn(3, 1, 2, 64, 8).double().unbind(0)
    mask_BHTT = torch.ones(64, 64, dtype=torch.bool).tril().expand(1, 2, 64, 64)
    whole_BHTV, gap = attend(q_BHTK, k_BHTK, v_BHTV, mask_BHTT), {}
    for how in ("contiguous", "striped", "zigzag"):
        out_BHTV = ring(q_BHTK, k_BHTK, v_BHTV, split(how, 4, 16))
        gap[how] = (out_BHTV - whole_BHTV).abs().max().item()
        print(f"{how:10}, 4 devices: off by {gap[how]:.0e}")
    assert max(gap.values()) < 1e-12
    # --8<-- [end:exact]

    # --8<-- [start:load]
    torch.manual_seed(0)
    wait = {}
    for N in (2, 4, 8, 16):
        for how in ("contiguous", "striped", "zigzag"):
            own_NC, total = split(how, N, 32), 0
            for step in range(N):  # all wait for the one with most pairs to compute
                held_NC = own_NC.roll(step, 0)
                seen_NCC = held_NC.unsqueeze(1) <= own_NC.unsqueeze(2)
                total += seen_NCC.sum((1, 2)).max().item()
            pairs = (32 * N) * (32 * N + 1) / 2
            wait[how, N] = total / (pairs / N)
        print(f"{N:2} devices, time over an even share:", *[
            f"{how} {wait[how, N]:.2f}" for how in ("contiguous", "striped", "zigzag")
        ])  # fmt: skip
    assert wait["contiguous", 16] > 1.9
    for N in (2, 4, 8, 16):
        assert abs(wait["striped", N] - N * 33 / (32 * N + 1)) < 1e-9
        assert wait["zigzag", N] == 1
    # --8<-- [end:load]
