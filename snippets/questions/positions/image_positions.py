"""RoPE with two or three coordinates: scores depend on each difference."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies, rotate_halves

if __name__ == "__main__":
    # --8<-- [start:grid]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    q_111K, k_111K = torch.randn(2, 1, 1, 1, 48, dtype=torch.float64).unbind(0)
    theta_J = frequencies(48)
    one_11 = torch.tensor([[1]])

    def score(query: tuple[int, ...], key: tuple[int, ...]) -> float:
        """Return q · k with the pairs divided evenly between the coordinates."""
        each = 24 // len(query)
        by_any = [torch.tensor(at).repeat_interleave(each) for at in (query, key)]
        # Position 1 at these frequencies turns pair j by its coordinate times theta_j.
        turned_any = [
            rotate_halves(x_111K, one_11, coordinate_J * theta_J)
            for x_111K, coordinate_J in zip((q_111K, k_111K), by_any, strict=True)
        ]
        return (turned_any[0] * turned_any[1]).sum().item()

    shifted = abs(score((0, 5, 2), (0, 3, 7)) - score((9, 105, 52), (9, 103, 57)))
    print(f"three coordinates, all shifted: score moves by {shifted:.1g}")
    right, wrapped = score((0, 1), (0, 0)), score((1, 0), (0, 3))
    flat = abs(score((1,), (0,)) - score((4,), (3,)))
    print(f"one to the right against the next row: 1-D {flat:.1g}", end=", ")
    print(f"2-D {abs(right - wrapped):.2f}")
    apart = abs(score((3, 4), (0, 0)) - score((5, 0), (0, 0)))
    print(f"(3, 4) against (5, 0), both at distance 5: {apart:.2f}")
    text = abs(score((7, 7, 7), (4, 4, 4)) - score((7,), (4,)))
    print(f"equal coordinates against 1-D RoPE: {text:.1g}")
    assert max(shifted, flat, text) < 1e-10
    assert min(abs(right - wrapped), apart) > 0.1
    # --8<-- [end:grid]
