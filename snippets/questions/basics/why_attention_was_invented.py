"""The bottleneck: all of a sentence through one vector, or each word when needed."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]


# --8<-- [start:translator]
class Translator(nn.Module):
    """An encoder and a decoder, untrained; all that differs is what the decoder reads."""

    def __init__(self, D: int, attend: bool) -> None:
        """Make both recurrent networks."""
        super().__init__()
        self.encoder, self.decoder = nn.GRU(D, D), nn.GRUCell(D, D)
        self.attend = attend

    def forward(self, x_SD: Tensor, T: int) -> Tensor:
        """Write T words, each from the decoder's state; returns (T, D)."""
        h_SD, last_1D = self.encoder(x_SD)
        state_D = last_1D[0]
        context_D, out_any = state_D, []
        for _ in range(T):
            if self.attend:
                weight_S = (8 * h_SD @ state_D).softmax(0)
                context_D = weight_S @ h_SD
            state_D = self.decoder(context_D, state_D)
            out_any.append(state_D)
        return torch.stack(out_any)


# --8<-- [end:translator]

if __name__ == "__main__":
    # --8<-- [start:rank]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    D, limit = 4, 1e-9
    rank = {}
    for S in (1, 2, 4, 8):
        x_any = torch.randn(S, D).double()
        for attend in (False, True):
            model = Translator(D, attend).double()
            slope_any = torch.autograd.functional.jacobian(
                lambda y_any, model=model, S=S: model(y_any, S), x_any
            )
            size_any = torch.linalg.svdvals(slope_any.reshape(S * D, S * D))
            rank[attend, S] = (size_any > limit * size_any[0]).sum().item()
        print(f"{S} words of {D} numbers in and out: rank {rank[False, S]} through one "
              f"vector, {rank[True, S]:2} with attention")  # fmt: skip
    assert all(rank[False, S] == D for S in (1, 2, 4, 8))
    assert all(rank[True, S] >= 0.9 * S * D for S in (1, 2, 4, 8))
    # --8<-- [end:rank]

    # --8<-- [start:forget]
    torch.manual_seed(0)
    D, B = 32, 50
    encoder = nn.GRU(D, D)
    trace = {}
    for S in (2, 4, 8, 16, 32):
        x_any = torch.randn(S, B, D)
        other_any = x_any.clone()
        other_any[0] = torch.randn(B, D)  # another first word
        h_any, g_any = encoder(x_any)[0], encoder(other_any)[0]
        change_any = (h_any - g_any).norm(dim=(1, 2)) / h_any.norm(dim=(1, 2))
        trace[S] = change_any[-1].item()
        print(f"{S:2} words: another first word changes the last state by "
              f"{trace[S]:.1g}, the first by {change_any[0].item():.1f}")  # fmt: skip
        assert change_any[0] > 1
    assert trace[2] > 0.5
    assert trace[16] < 0.01
    # --8<-- [end:forget]
