"""Shifting sinusoidal codes is one rotation for all positions."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.sinusoidal import frequencies

if __name__ == "__main__":
    # --8<-- [start:shift]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D = 16
    angle_any = torch.arange(5105).double().unsqueeze(1) * frequencies(D)
    code_SD = torch.stack((angle_any.sin(), angle_any.cos()), dim=-1).flatten(1)
    off = {}
    for name, table_SD in (("sinusoidal", code_SD), ("random", torch.randn(5105, D))):
        table_SD = table_SD.double()
        shift_DD = torch.linalg.pinv(table_SD[:1000]) @ table_SD[5:1005]
        off[name] = (
            (table_SD[5000:5100] @ shift_DD - table_SD[5005:]).abs().max().item()
        )
        print(f"{name}: shift by 5 at 5000 to 5099 off by {off[name]:.2g}")
    assert off["sinusoidal"] < 1e-6
    assert off["random"] > 0.5

    w_DD = torch.randn(D, D, dtype=torch.float64) / D**0.5
    spread = {}
    for name, other_SD in (("no projection", code_SD), ("projected", code_SD @ w_DD)):
        dot_any = (code_SD[:5100] * other_SD[5:]).sum(dim=1)
        spread[name] = (dot_any.max() - dot_any.min()).item()
        print(f"dot products at distance 5, {name}: vary by {spread[name]:.2g}")
    assert spread["no projection"] < 1e-5
    assert spread["projected"] > 1
    # --8<-- [end:shift]
