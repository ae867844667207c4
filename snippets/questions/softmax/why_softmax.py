"""Why softmax: only differences of scores count, and no other weights trade off better."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:rivals]
def by_relu(x_S: Tensor) -> Tensor:
    """Drop negative scores, divide by the sum (S)."""
    return x_S.relu() / x_S.relu().sum()


def by_square(x_S: Tensor) -> Tensor:
    """Square, divide by the sum (S)."""
    return x_S.square() / x_S.square().sum()


def by_sum(x_S: Tensor) -> Tensor:
    """Divide by the sum (S)."""
    return x_S / x_S.sum()


def by_softmax(x_S: Tensor) -> Tensor:
    """Exponentiate, divide by the sum (S)."""
    return torch.softmax(x_S, dim=0)


# --8<-- [end:rivals]

if __name__ == "__main__":
    # --8<-- [start:compare]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x_3 = torch.tensor([-3.0, 1.0, 2.5])
    sound = {}
    for f in (by_softmax, by_relu, by_square, by_sum):
        p_3, shifted_3, low_3 = f(x_3), f(x_3 + 1), f(x_3 - 5)
        sound[f.__name__] = {
            "probabilities": bool((p_3 >= 0).all()),
            "keeps the order": bool((p_3.diff() > 0).all()),
            "ignores a shift": torch.allclose(p_3, shifted_3),
            "fit for low scores": bool((low_3 >= 0).all() and (low_3.diff() > 0).all()),
        }
        marks = ", ".join(
            k if ok else f"not: {k}" for k, ok in sound[f.__name__].items()
        )
        print(f"{f.__name__}: {marks}")
    assert [all(s.values()) for s in sound.values()] == [True, False, False, False]
    # --8<-- [end:compare]

    # --8<-- [start:best-trade]
    torch.manual_seed(0)
    x_S = torch.randn(6, dtype=torch.float64)
    p_S = torch.softmax(x_S, dim=0)
    value = (p_S @ x_S + torch.special.entr(p_S).sum()).item()
    other_NS = torch.distributions.Dirichlet(torch.ones(6).double()).sample((100_000,))
    value_N = other_NS @ x_S + torch.special.entr(other_NS).sum(-1)
    print(
        f"mean score + entropy: softmax {value:.4f}, best of 100,000 {value_N.max():.4f}"
    )
    print(f"log-sum-exp:                  {torch.logsumexp(x_S, 0).item():.4f}")
    assert math.isclose(value, torch.logsumexp(x_S, 0).item())
    assert (value_N < value).all()
    # --8<-- [end:best-trade]

    # --8<-- [start:sigmoid]
    torch.manual_seed(0)
    print("   S   sum of sigmoids   with bias -log S")
    for S in (64, 1024, 16384):
        x_S = torch.randn(S)
        bare = torch.sigmoid(x_S).sum().item()
        biased = torch.sigmoid(x_S - math.log(S)).sum().item()
        print(f"{S:5} {bare:16.1f} {biased:17.2f}")
        assert abs(bare / (S / 2) - 1) < 0.2
        assert 1 < biased < 2.5
    # --8<-- [end:sigmoid]
