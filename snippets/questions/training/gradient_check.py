"""Gradient check: finite differences against backward, in double precision."""

# --8<-- [start:imports]
import warnings

import torch
from torch import Tensor
from torch.autograd import gradcheck

# --8<-- [end:imports]


# --8<-- [start:attention]
class Attention(torch.autograd.Function):
    """Attention with a backward written by hand; three faults can be planted."""

    fault = ""

    @staticmethod
    def forward(ctx, q_TK: Tensor, k_SK: Tensor, v_SV: Tensor) -> Tensor:
        """Return the output (T, V)."""
        weight_TS = (q_TK @ k_SK.T * q_TK.shape[1] ** -0.5).softmax(-1)
        ctx.save_for_backward(q_TK, k_SK, v_SV, weight_TS)
        return weight_TS @ v_SV

    @staticmethod
    def backward(ctx, grad_TV: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return dQ, dK and dV."""
        q_TK, k_SK, v_SV, weight_TS = ctx.saved_tensors
        scale = 1.0 if Attention.fault == "no scale" else q_TK.shape[1] ** -0.5
        dweight_TS = grad_TV @ v_SV.T
        dot_T1 = (weight_TS * dweight_TS).sum(1, keepdim=True)
        if Attention.fault == "no row sum":
            dot_T1 = torch.zeros_like(dot_T1)
        dscore_TS = scale * weight_TS * (dweight_TS - dot_T1)
        if Attention.fault == "off by 1%":
            dscore_TS = 1.01 * dscore_TS
        return dscore_TS @ k_SK, dscore_TS.T @ q_TK, weight_TS.T @ grad_TV


# --8<-- [end:attention]

if __name__ == "__main__":
    # --8<-- [start:faults]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    shapes, accepted = ((3, 4), (5, 4), (5, 2)), {}
    qkv_any = [torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in shapes]
    for fault in ("", "no scale", "no row sum", "off by 1%"):
        Attention.fault = fault
        accepted[fault] = gradcheck(Attention.apply, qkv_any, raise_exception=False)
        print(f"{fault or 'right':10} accepted: {accepted[fault]}")
    Attention.fault = ""
    assert [fault for fault, passed in accepted.items() if passed] == [""]
    # --8<-- [end:faults]

    # --8<-- [start:step]
    torch.manual_seed(0)
    best, default = {}, {}
    for dtype in (torch.float64, torch.float32):
        x_S, v_S = torch.randn(2, 5, dtype=torch.float64).to(dtype)
        weight_S = x_S.softmax(-1)
        exact = (weight_S * (v_S - weight_S @ v_S))[0].item()
        error = {}
        for power in range(-12, 0):
            move_S = torch.zeros_like(x_S)
            move_S[0] = 10.0**power
            up, down = ((x_S + s * move_S).softmax(-1) @ v_S for s in (1, -1))
            error[power] = abs((up - down).item() / (2 * 10.0**power) - exact)
        best[dtype], default[dtype] = min(error, key=error.get), error[-6]
        print(f"{dtype}: best step 1e{best[dtype]}, error there"
              f" {error[best[dtype]]:.0e}; with a step of 1e-6 {error[-6]:.0e}")  # fmt: skip
    assert best[torch.float64] < best[torch.float32]
    assert default[torch.float64] < 1e-9 < 1e-3 < default[torch.float32]
    # --8<-- [end:step]

    # --8<-- [start:single]
    torch.manual_seed(0)
    shapes, told = ((3, 4), (5, 4), (5, 2)), ""
    qkv_any = [torch.randn(*s, requires_grad=True) for s in shapes]  # float32
    try:
        with warnings.catch_warnings(record=True):
            gradcheck(Attention.apply, qkv_any)
    except RuntimeError as error:
        told = str(error).splitlines()[0]
    print("float32, right backward:", told)
    assert told.startswith("Jacobian mismatch")
    # --8<-- [end:single]

    # --8<-- [start:blind]
    torch.manual_seed(0)
    blind = {}
    for name, S, size in (("five keys", 5, 1), ("one key", 1, 1), ("saturated", 5, 99)):
        q_TK, k_SK, v_SV = (
            size * torch.randn(*shape, dtype=torch.float64)
            for shape in ((3, 4), (S, 4), (S, 2))
        )
        leaves_any = [x_any.requires_grad_() for x_any in (q_TK, k_SK, v_SV)]
        Attention.fault = "no scale"
        blind[name] = gradcheck(Attention.apply, leaves_any, raise_exception=False)
        print(f"{name}: a backward without the scale is accepted: {blind[name]}")
    Attention.fault = ""
    assert blind == {"five keys": False, "one key": True, "saturated": True}
    # --8<-- [end:blind]
