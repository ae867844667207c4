"""Which ways around the T × T matrix give the same output, and which another one."""

# --8<-- [start:imports]
import torch
import torch.nn.functional as F

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:compare]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_TK, k_TK, v_TK = torch.randn(3, 256, 32).double()
    exact_TK = F.scaled_dot_product_attention(q_TK, k_TK, v_TK)
    score_TT = q_TK @ k_TK.T / 32**0.5
    apart_TT = (torch.arange(256).unsqueeze(1) - torch.arange(256)).abs()
    least_T1 = score_TT.topk(32).values[:, -1:]
    phi_q_TK, phi_k_TK = F.elu(q_TK) + 1, F.elu(k_TK) + 1
    results = {
        "32 queries at a time": torch.cat(
            [F.scaled_dot_product_attention(part_CK, k_TK, v_TK) for part_CK in q_TK.split(32)]
        ),
        "window of 65 keys": F.scaled_dot_product_attention(q_TK, k_TK, v_TK, apart_TT <= 32),
        "32 best keys": F.scaled_dot_product_attention(q_TK, k_TK, v_TK, score_TT >= least_T1),
        "linear, elu + 1": phi_q_TK @ (phi_k_TK.T @ v_TK)
        / (phi_q_TK @ phi_k_TK.sum(0, keepdim=True).T),
    }  # fmt: skip
    error = {}
    for name, out_TK in results.items():
        error[name] = ((out_TK - exact_TK).norm() / exact_TK.norm()).item()
        print(f"{name:20} {error[name]:.1e} from exact attention")
    assert error.pop("32 queries at a time") < 1e-14
    assert min(error.values()) > 0.75
    # --8<-- [end:compare]

    # --8<-- [start:pairs]
    torch.manual_seed(0)
    pairs = {
        "exact": 256 * 256,
        "window": (apart_TT <= 32).sum().item(),
        "best": 256 * 32,
    }
    for name, number in pairs.items():
        print(f"{name}: {number:,} pairs mixed")
    assert pairs["window"] < pairs["exact"] / 3
    print("the 32 best were found by computing all", score_TT.numel(), "scores")
    # --8<-- [end:pairs]
