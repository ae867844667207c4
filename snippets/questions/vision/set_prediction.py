"""DETR: why boxes are matched one to one, and why object queries differ."""

# --8<-- [start:imports]
import torch
from torch import Tensor
from torch.nn import functional as F

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend
from snippets.questions.vision.attention_in_vision import match


# --8<-- [start:train]
def train(rule: str, slots: int = 6) -> tuple[Tensor, Tensor]:
    """Fit free slots to two objects of one image; return places and probabilities.

    A slot is a place and a logit for “object here”. The rule says which object each
    slot is taught: its own by list order, its nearest, or the one it is matched to.
    """
    object_S2 = torch.tensor([[0.2, 0.2], [0.8, 0.7]])
    place_T2 = torch.rand(slots, 2).requires_grad_()
    logit_T = torch.zeros(slots, requires_grad=True)
    for step in range(150):
        listed_S2 = object_S2.flip(0) if step % 2 else object_S2  # a set has no order
        cost_TS = torch.cdist(place_T2, listed_S2).detach()
        if rule == "list order":
            taught = {0: 0, 1: 1}
        elif rule == "nearest":
            taught = dict(enumerate(cost_TS.argmin(1).tolist()))
        else:
            _, best = match(cost_TS - logit_T.detach().sigmoid()[:, None])
            taught = {slot: number for number, slot in enumerate(best)}
        row_N, column_N = torch.tensor(list(taught.items())).T
        wanted_T = torch.zeros(slots).index_fill(0, row_N, 1.0)
        far = (place_T2[row_N] - listed_S2[column_N]).square().sum()
        wrong = F.binary_cross_entropy_with_logits(logit_T, wanted_T, reduction="sum")
        (far + wrong).backward()
        with torch.no_grad():
            for leaf_any in (place_T2, logit_T):
                leaf_any -= 0.05 * leaf_any.grad
                leaf_any.grad = None
    return place_T2.detach(), logit_T.detach().sigmoid()


# --8<-- [end:train]


# --8<-- [start:decode]
def decode(query_TK: Tensor, map_SK: Tensor, talk: bool = True) -> Tensor:
    """Run one decoder layer: queries see each other if they may talk, then the map."""
    x_11TK, map_11SK = query_TK[None, None], map_SK[None, None]
    if talk:
        x_11TK = x_11TK + attend(x_11TK, x_11TK, x_11TK)
    return (x_11TK + attend(x_11TK, map_11SK, map_11SK))[0, 0]


# --8<-- [end:decode]

if __name__ == "__main__":
    # --8<-- [start:rules]
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    object_S2 = torch.tensor([[0.2, 0.2], [0.8, 0.7]])
    found = {}
    for rule in ("list order", "nearest", "matched"):
        torch.manual_seed(0)
        place_T2, sure_T = train(rule)
        near_ST = (torch.cdist(object_S2, place_T2) < 0.05) & (sure_T > 0.5)
        found[rule] = near_ST.sum(1).tolist()
        print(
            f"{rule:10}: {(sure_T > 0.5).sum()} slots report,"
            f" on each object {found[rule]}"
        )
        if rule == "list order":
            between = [f"{x:.2f}" for x in place_T2[sure_T > 0.5].mean(0).tolist()]
            print("            they stand near", between)
    assert found["list order"] == [0, 0]
    assert sum(found["nearest"]) == 6  # how they split depends on where they start
    assert found["matched"] == [1, 1]
    # --8<-- [end:rules]

    # --8<-- [start:queries]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    map_SK = torch.randn(64, 16)
    query_TK = torch.randn(5, 16)
    same_TK = decode(query_TK[:1].expand(5, -1), map_SK)
    spread = {
        "equal": same_TK.std(0).max(),
        "distinct": decode(query_TK, map_SK).std(0).max(),
    }
    for name, value in spread.items():
        print(f"{name:8} queries: outputs differ by {value:.2f}")
    assert spread["equal"] < 1e-6 < 1 < spread["distinct"]
    changed_TK = query_TK.clone()
    changed_TK[0] = torch.randn(16)
    for talk in (True, False):
        move_TK = decode(changed_TK, map_SK, talk) - decode(query_TK, map_SK, talk)
        print(
            f"self-attention {talk!s:5}: the others move by {move_TK[1:].abs().max():.2f}"
        )
    # --8<-- [end:queries]
