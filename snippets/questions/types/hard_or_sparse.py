"""A draw, top-k, a threshold and argmax: four things called hard attention."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
from snippets.foundations.hard import threshold, top_k, unique_hard

if __name__ == "__main__":
    # --8<-- [start:compare]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    chance_S = torch.tensor([0.35, 0.3, 0.2, 0.1, 0.05])
    score_S = chance_S.log().requires_grad_()
    v_S = torch.tensor([1.0, 4.0, 9.0, 16.0, 25.0])
    soft_S = torch.softmax(score_S, dim=-1)
    report = {}
    for name, weight_S in (
        ("soft", soft_S),
        ("top-k, k = 2", top_k(score_S, 2)),
        ("threshold 0.25", threshold(score_S, 0.25)),
        ("threshold 0.4", threshold(score_S, 0.4)),
        ("argmax", unique_hard(score_S)),
    ):
        out, reached = weight_S @ v_S, 0
        if out.requires_grad:
            (grad_S,) = torch.autograd.grad(out, score_S, retain_graph=True)
            reached = (grad_S.abs() > 1e-6).sum().item()
        report[name] = (weight_S.sum().item(), out.item(), reached)
        print(
            "{:15} sum {:.2f}, output {:5.2f}, {} scores with a gradient".format(
                name, *report[name]
            )
        )
    assert [reached for _, _, reached in report.values()] == [5, 2, 0, 0, 0]
    assert report["threshold 0.25"][0] > 1 > report["threshold 0.4"][0]
    # --8<-- [end:compare]

    # --8<-- [start:draw]
    torch.manual_seed(0)
    weight_S = torch.tensor([0.35, 0.3, 0.2, 0.1, 0.05])
    value_S = torch.tensor([1.0, 4.0, 9.0, 16.0, 25.0])
    drawn_N = value_S[torch.multinomial(weight_S, 100_000, replacement=True)]
    mean, error = drawn_N.mean().item(), (drawn_N.std() / 100_000**0.5).item()
    expected = (weight_S @ value_S).item()
    seldom = (drawn_N != 1).float().mean().item()
    assert abs(mean - expected) <= 5 * error
    print(f"soft output {expected:.2f}; mean of 100,000 draws {mean:.2f} ± {error:.2f}")
    print(f"draws that are not the largest weight: {seldom:.0%}")
    # --8<-- [end:draw]
