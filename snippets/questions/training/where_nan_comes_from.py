"""NaN in training: where it is born, how it spreads, how to find the place."""

# --8<-- [start:imports]
import warnings

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# --8<-- [end:imports]


# --8<-- [start:birth]
class Birth(TorchDispatchMode):
    """Notes each operator that makes NaN out of inputs without NaN."""

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()
        self.born: list[str] = []

    def __torch_dispatch__(self, func, types, args_any=(), kwargs=None):
        """Run an operator and look at what went in and came out."""
        out_any = func(*args_any, **(kwargs or {}))
        before, after = (
            any(isinstance(x_any, Tensor) and x_any.isnan().any() for x_any in many_any)
            for many_any in (tree_leaves((args_any, kwargs)), tree_leaves(out_any))
        )
        if after and not before:
            self.born.append(func.overloadpacket.__name__)
        return out_any


# --8<-- [end:birth]


# --8<-- [start:loss]
def loss_of(layer: nn.Linear, lengths: list[int]) -> Tensor:
    """Return the loss of self-attention over a padded batch; padding does not count."""
    torch.manual_seed(0)
    keep_BT = torch.arange(6) < torch.tensor(lengths).unsqueeze(1)
    x_BTD = torch.randn(len(lengths), 6, 8)
    q_BTD, k_BTD, v_BTD = layer(x_BTD).chunk(3, dim=-1)
    score_BTT = q_BTD @ k_BTD.mT / 8**0.5
    score_BTT = score_BTT.masked_fill(~keep_BT.unsqueeze(1), -torch.inf)
    return (score_BTT.softmax(-1) @ v_BTD)[keep_BT].square().mean()


# --8<-- [end:loss]

if __name__ == "__main__":
    # --8<-- [start:steps]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = nn.Linear(8, 24)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    losses, norms, ruined = [], [], []
    for lengths in ([6, 5, 4], [6, 5, 4], [6, 5, 0], [6, 5, 4]):  # one is empty
        loss = loss_of(layer, lengths)
        optimizer.zero_grad()
        loss.backward()
        losses.append(loss.item())
        norms.append(layer.weight.grad.norm().item())
        optimizer.step()
        parts = zip("qkv", layer.weight.chunk(3), strict=True)
        ruined.append("".join(name for name, w_KD in parts if w_KD.isnan().any()))
        print(f"lengths {lengths}: loss {losses[-1]:.3f}, gradient {norms[-1]:.3f},"
              f" NaN then in projections: {ruined[-1] or 'none'}")  # fmt: skip
    assert torch.tensor(losses).isnan().tolist() == [False, False, False, True]
    assert torch.tensor(norms).isnan().tolist() == [False, False, True, True]
    assert ruined == ["", "", "v", "qkv"]
    # --8<-- [end:steps]

    # --8<-- [start:find]
    torch.manual_seed(0)
    layer, told = nn.Linear(8, 24), ""
    with Birth() as births:
        loss_of(layer, [6, 5, 0])
    print("NaN is born in:", births.born)
    try:
        with warnings.catch_warnings(record=True), torch.autograd.detect_anomaly():
            loss_of(layer, [6, 5, 0]).backward()
    except RuntimeError as error:
        told = str(error)
    print("detect_anomaly:", told)
    assert births.born == ["_softmax"]
    assert "nan values" in told
    # --8<-- [end:find]

    # --8<-- [start:half]
    torch.manual_seed(0)
    q_TK = torch.full((2, 64), 32.0)
    k_SK = torch.stack((q_TK[0], -q_TK[0]))
    sure = {}
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        q_any, k_any = q_TK.to(dtype), k_SK.to(dtype)
        for name, score_any in (
            ("after", (q_any @ k_any.T) / 8),
            ("before", (q_any / 8) @ k_any.T),
        ):
            weight = score_any.softmax(-1)[0, 0].item()
            sure[dtype, name] = weight
            print(f"{dtype}, scaled {name} the product: score"
                  f" {score_any[0, 0].item()}, weight {weight}")  # fmt: skip
    assert sure[torch.float16, "after"] != sure[torch.float16, "after"]
    assert sum(weight == 1 for weight in sure.values()) == 5
    # --8<-- [end:half]

    # --8<-- [start:where]
    torch.manual_seed(0)
    score_S = torch.tensor([1.0, 2.0, -torch.inf])  # the last key is masked
    grads = {}
    for name in ("where outside", "where inside, too"):
        weight_S = score_S.softmax(-1).requires_grad_()
        seen_S = weight_S > 0
        inner_S = weight_S
        if name == "where inside, too":
            inner_S = torch.where(seen_S, weight_S, 1.0)  # log never sees the 0
        entropy = -torch.where(seen_S, inner_S * inner_S.log(), 0.0).sum()
        entropy.backward()
        grads[name] = weight_S.grad
        shown = [round(x, 2) for x in weight_S.grad.tolist()]
        print(f"{name}: entropy {entropy.item():.3f}, gradient {shown}")
    assert grads["where outside"].isnan().tolist() == [False, False, True]
    assert grads["where inside, too"].isfinite().all()
    # --8<-- [end:where]

    # --8<-- [start:clip]
    torch.manual_seed(0)
    good_1, bad_1 = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    good_1.grad, bad_1.grad = torch.ones(1), torch.full((1,), torch.nan)
    nn.utils.clip_grad_norm_([good_1, bad_1], 1.0)
    print("after clipping, gradients:", good_1.grad.item(), bad_1.grad.item())
    assert good_1.grad.isnan().all()
    # --8<-- [end:clip]
