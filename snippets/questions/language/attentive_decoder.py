"""A decoder with additive attention, step by step, and what its query has seen."""

# --8<-- [start:imports]
import torch
from torch import Tensor, nn

# --8<-- [end:imports]
from snippets.foundations.additive import AdditiveAttention


# --8<-- [start:decoder]
class Decoder(nn.Module):
    """A GRU that looks at the source at each step, in one of two orders."""

    def __init__(self, words: int, size: int, order: str) -> None:
        """Make embedding, attention and cell; order is "before" or "after"."""
        super().__init__()
        self.order = order
        self.word = nn.Embedding(words, size)
        self.attention = AdditiveAttention(size, size, size)
        self.cell = nn.GRUCell(2 * size if order == "before" else size, size)

    def step(
        self, state_BD: Tensor, word_B: Tensor, memory_BSD: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the new state, the context and the weights (B, S)."""
        word_BD = self.word(word_B)
        if self.order == "after":  # Luong et al. 2015: move, then look
            state_BD = self.cell(word_BD, state_BD)
        q_B1D = state_BD.unsqueeze(1)
        context_B1D, weight_B1S = self.attention(q_B1D, memory_BSD, memory_BSD)
        context_BD = context_B1D.squeeze(1)
        if self.order == "before":  # Bahdanau et al. 2014: look, then move
            state_BD = self.cell(torch.cat((word_BD, context_BD), dim=1), state_BD)
        return state_BD, context_BD, weight_B1S.squeeze(1)

    def forward(self, word_BT: Tensor, memory_BSD: Tensor) -> Tensor:
        """Return the weights of all steps, (B, T, S); word t is fed at step t."""
        state_BD, each_BS = memory_BSD.mean(1), []
        for word_B in word_BT.unbind(1):
            state_BD, _, weight_BS = self.step(state_BD, word_B, memory_BSD)
            each_BS.append(weight_BS)
        return torch.stack(each_BS, dim=1)


# --8<-- [end:decoder]

if __name__ == "__main__":
    # --8<-- [start:order]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    memory_BSD = torch.randn(2, 7, 16)
    word_BT = torch.randint(10, (2, 5))
    other_BT = word_BT.clone()
    other_BT[:, 2] = (word_BT[:, 2] + 1) % 10  # another word is fed at step 2
    first = {}
    for order in ("before", "after"):
        decoder = Decoder(10, 16, order)
        weight_BTS = decoder(word_BT, memory_BSD)
        moved_T = (decoder(other_BT, memory_BSD) != weight_BTS).any(2).any(0)
        first[order] = moved_T.nonzero()[0].item()
        print(f"looks {order:6} moving: weights differ from step {first[order]}")
    print("weights of all steps:", tuple(weight_BTS.shape))
    assert first == {"before": 3, "after": 2}
    # --8<-- [end:order]

    # --8<-- [start:once]
    torch.manual_seed(0)
    decoder = Decoder(10, 16, "before").double()
    memory_BSD = torch.randn(2, 7, 16, dtype=torch.float64)
    attention = decoder.attention
    key_B1SD = attention.key(memory_BSD).unsqueeze(1)  # once for the whole sentence
    rows = []
    attention.key.register_forward_hook(lambda *_: rows.append(_[2].shape[:2].numel()))
    for _ in range(5):
        q_B1D = torch.randn(2, 1, 16, dtype=torch.float64)
        hidden_B1SD = torch.tanh(attention.query(q_B1D).unsqueeze(2) + key_B1SD)
        cached_B1S = attention.energy(hidden_B1SD).squeeze(-1)
        torch.testing.assert_close(cached_B1S, attention.score(q_B1D, memory_BSD))
    print(f"keys projected: {sum(rows)} without the cache, {2 * 7} with it")
    # --8<-- [end:once]
