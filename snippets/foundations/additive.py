"""Additive attention: a small tanh network scores every query against every key."""

# --8<-- [start:imports]
import math

import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import masked_softmax, weigh


# --8<-- [start:check-additive]
def check_additive(
    module: nn.Module,
    q_BTD: Tensor,
    k_BSK: Tensor,
    v_BSV: Tensor,
    mask_BTS: Tensor | None,
) -> None:
    """Raise ValueError unless the sizes fit each other and the module."""
    shapes = {"query": q_BTD.shape, "key": k_BSK.shape, "value": v_BSV.shape}
    for name, shape in shapes.items():
        if len(shape) != 3:
            raise ValueError(f"{name} has shape {tuple(shape)}, expected 3 axes")
    B, T, S = *q_BTD.shape[:2], k_BSK.shape[1]
    D, K = module.query.in_features, module.key.in_features
    wanted = {"query": (B, T, D), "key": (B, S, K), "value": (B, S, v_BSV.shape[2])}
    if mask_BTS is not None:
        shapes["mask"], wanted["mask"] = mask_BTS.shape, (B, T, S)
        if mask_BTS.dtype != torch.bool:
            raise ValueError(f"mask is {mask_BTS.dtype}, expected torch.bool")
    for name, shape in shapes.items():
        if tuple(shape) != wanted[name]:
            raise ValueError(
                f"{name} has shape {tuple(shape)}, expected {wanted[name]}"
            )


# --8<-- [end:check-additive]


# --8<-- [start:additive]
class AdditiveAttention(nn.Module):
    """Attend with the score w·tanh(W q + U k + b) (Bahdanau et al. 2014, A.1.2)."""

    def __init__(self, query_size: int, key_size: int, hidden_size: int) -> None:
        """Make W (R, D), U (R, K), b (R) and w (R): D, K, R are the sizes given."""
        super().__init__()
        self.query = nn.Linear(query_size, hidden_size, bias=False)
        self.key = nn.Linear(key_size, hidden_size)
        self.energy = nn.Linear(hidden_size, 1, bias=False)

    def score(self, q_BTD: Tensor, k_BSK: Tensor) -> Tensor:
        """Return one unnormalized score per pair, (B, T, S)."""
        query_BT1R = self.query(q_BTD).unsqueeze(2)
        key_B1SR = self.key(k_BSK).unsqueeze(1)
        hidden_BTSR = torch.tanh(query_BT1R + key_B1SR)
        return self.energy(hidden_BTSR).squeeze(-1)

    def forward(
        self,
        q_BTD: Tensor,
        k_BSK: Tensor,
        v_BSV: Tensor,
        mask_BTS: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the output (B, T, V) and the weights (B, T, S).

        The mask is boolean, True = may attend; a row without any True gives zeros.
        Raises ValueError when sizes disagree.
        """
        check_additive(self, q_BTD, k_BSK, v_BSV, mask_BTS)
        if mask_BTS is not None:
            # Padding may hold anything. Clear it, or 0 · NaN reaches the gradients.
            q_BTD = q_BTD.masked_fill(~mask_BTS.any(dim=2).unsqueeze(-1), 0.0)
            k_BSK = k_BSK.masked_fill(~mask_BTS.any(dim=1).unsqueeze(-1), 0.0)
        score_B1TS = self.score(q_BTD, k_BSK).unsqueeze(1)
        mask_B1TS = None if mask_BTS is None else mask_BTS.unsqueeze(1)
        weight_B1TS = masked_softmax(score_B1TS, mask_B1TS)
        out_B1TV = weigh(weight_B1TS, v_BSV.unsqueeze(1))
        return out_B1TV.squeeze(1), weight_B1TS.squeeze(1)


# --8<-- [end:additive]


# --8<-- [start:compare-cost]
def saved_bytes(run) -> int:
    """Return the bytes that autograd keeps for the backward pass of `run()`."""
    kept = {}

    def keep(each_any: Tensor) -> None:
        kept[each_any.data_ptr()] = each_any.nbytes

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda _: _):
        run()
    return sum(kept.values())


def compare_cost(B: int, T: int, D: int) -> str:
    """Return a line on both scores of T queries and T keys, every size being D."""
    additive = AdditiveAttention(query_size=D, key_size=D, hidden_size=D)
    query, key = nn.Linear(D, D, bias=False), nn.Linear(D, D, bias=False)
    x_BTD = torch.randn(B, T, D)
    many = saved_bytes(lambda: additive.score(x_BTD, x_BTD))
    few = saved_bytes(lambda: query(x_BTD) @ key(x_BTD).mT / math.sqrt(D))
    return f"T = S = {T:3}: {many / 2**20:6.2f} MiB against {few / 2**20:.2f} MiB"


# --8<-- [end:compare-cost]


# --8<-- [start:reversal]
def learn_reversal(steps: int, B: int, S: int) -> tuple[Tensor, float]:
    """Learn to say S random tokens backwards; return the weights (S, S) and the loss.

    Queries and keys are one-hot positions, values one-hot tokens: the output is the
    chance of each token, and the parameters of the attention are all there is.
    """
    model = AdditiveAttention(query_size=S, key_size=S, hidden_size=32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    place_BSS = torch.eye(S).expand(B, S, S)
    for _ in range(steps):
        token_BS = torch.randint(10, (B, S))
        v_BSV = nn.functional.one_hot(token_BS, 10).float()
        chance_BSV, weight_BSS = model(place_BSS, place_BSS, v_BSV)
        right_BS1 = chance_BSV.gather(-1, token_BS.flip(1).unsqueeze(-1))
        loss = -right_BS1.clamp(min=1e-6).log().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return weight_BSS[0].detach(), loss.item()


# --8<-- [end:reversal]

if __name__ == "__main__":
    # --8<-- [start:first-run]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    B, T, S, D, K = 2, 3, 5, 4, 6
    additive = AdditiveAttention(query_size=D, key_size=K, hidden_size=8)
    q_BTD, k_BSK, v_BSV = (torch.randn(B, *x) for x in ((T, D), (S, K), (S, 7)))
    inside_BS = torch.arange(S) < torch.tensor([[5], [3]])
    mask_BTS = inside_BS.unsqueeze(1).expand(B, T, S)
    out_BTV, weight_BTS = additive(q_BTD, k_BSK, v_BSV, mask_BTS)
    print("output", tuple(out_BTV.shape), "weights", tuple(weight_BTS.shape))
    print("second sample:", [f"{x:.3f}" for x in weight_BTS[1, 0].tolist()])
    # --8<-- [end:first-run]

    # --8<-- [start:cost]
    parameters = AdditiveAttention(128, 128, 128).parameters()
    print("parameters:", sum(map(Tensor.numel, parameters)), "against", 2 * 128 * 128)
    for length in (32, 64, 128):
        print(compare_cost(B=4, T=length, D=128))
    # --8<-- [end:cost]

    # --8<-- [start:alignment]
    align_88, loss = learn_reversal(steps=100, B=32, S=8)
    print(f"loss {loss:.3f}; largest weight at", align_88.argmax(-1).tolist())
    print(f"smallest weight there: {align_88.amax(-1).min().item():.3f}")
    # --8<-- [end:alignment]

    # --8<-- [start:alignment-figure]
    plt.imshow(align_88.numpy(force=True), cmap="viridis", vmin=0, vmax=1)
    plt.colorbar(label="weight")
    plt.xlabel("input position s")
    plt.ylabel("output position t")
    plt.show()
    # --8<-- [end:alignment-figure]

    # --8<-- [start:wrong-axis]
    score_B1S = additive.score(q_BTD[:, :1], k_BSK)
    for dim in (1, 2):
        row = torch.softmax(score_B1S, dim)[0, 0].tolist()
        print(f"dim={dim}:", [f"{x:.2f}" for x in row])
    # --8<-- [end:wrong-axis]

    # --8<-- [start:unmasked]
    _, careless_BTS = additive(q_BTD, k_BSK, v_BSV)
    for name, each_BTS in (("no mask", careless_BTS), ("mask", weight_BTS)):
        lost_T = each_BTS[1, :, 3:].sum(-1)
        print(f"{name}: weight on padding", [f"{x:.2f}" for x in lost_T.tolist()])
    # --8<-- [end:unmasked]

    # --8<-- [start:mixed-samples]
    sample_B = torch.arange(B)
    print("keys of sample        ", sample_B.repeat_interleave(S).tolist())
    print("repeat:            state", sample_B.repeat(S).tolist())
    print("repeat_interleave: state", sample_B.repeat_interleave(S).tolist())
    # --8<-- [end:mixed-samples]

    try:
        # --8<-- [start:seed-concat]
        state_BD, memory_SBD = torch.randn(B, D), torch.randn(S, B, D)
        torch.cat((state_BD.unsqueeze(1), memory_SBD), dim=2)
        # --8<-- [end:seed-concat]
    except RuntimeError as error:
        print(error)
