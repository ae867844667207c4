"""Teacher forcing: one pass trains all positions, if shift and mask are both there."""

# --8<-- [start:imports]
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# --8<-- [end:imports]
from snippets.foundations.scaled_dot_product import attend


# --8<-- [start:decoder]
class Decoder(nn.Module):
    """One layer of self-attention over E words; word E starts a sentence."""

    def __init__(self, words: int, length: int, size: int) -> None:
        """Make embeddings of words and places, and one head."""
        super().__init__()
        self.word = nn.Embedding(words + 1, size)
        self.place = nn.Embedding(length, size)
        self.to_qkv = nn.Linear(size, 3 * size)
        self.to_word = nn.Linear(size, words)

    def forward(self, word_BT: Tensor, mask_TT: Tensor) -> Tensor:
        """Return the scores of the next word at each position, (B, T, E)."""
        B, T = word_BT.shape
        x_BTD = self.word(word_BT) + self.place.weight[:T]
        q_B1TD, k_B1TD, v_B1TD = self.to_qkv(x_BTD).unsqueeze(1).chunk(3, dim=-1)
        read_B1TD = attend(q_B1TD, k_B1TD, v_B1TD, mask_TT.expand(B, 1, T, T))
        return self.to_word(x_BTD + read_B1TD.squeeze(1))


def train(shift: bool, causal: bool, steps: int = 200) -> float:
    """Train on random words, which nobody can predict; return the last loss."""
    torch.manual_seed(0)
    words, length = 10, 8
    model = Decoder(words, length, 32)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    mask_TT = torch.ones(length, length, dtype=torch.bool)
    for _ in range(steps):
        target_BT = torch.randint(words, (64, length))
        start_B1 = torch.full((64, 1), words)
        input_BT = torch.cat((start_B1, target_BT[:, :-1]), 1) if shift else target_BT
        score_BTE = model(input_BT, mask_TT.tril() if causal else mask_TT)
        loss = F.cross_entropy(score_BTE.flatten(0, 1), target_BT.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


# --8<-- [end:decoder]

if __name__ == "__main__":
    # --8<-- [start:leak]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    print(f"best possible loss on 10 random words: ln 10 = {math.log(10):.2f}")
    loss = {}
    for shift, causal in ((True, True), (True, False), (False, True)):
        loss[shift, causal] = train(shift, causal)
        print(f"shift {shift!s:5} causal {causal!s:5}: {loss[shift, causal]:.2f}")
    assert loss[True, True] > 0.95 * math.log(10)
    assert max(loss[True, False], loss[False, True]) < 0.5 * math.log(10)
    # --8<-- [end:leak]

    # --8<-- [start:parallel]
    torch.manual_seed(0)
    model = Decoder(words=10, length=8, size=32).double()
    word_BT = torch.randint(10, (2, 8))
    past_TT = torch.ones(8, 8, dtype=torch.bool).tril()
    with torch.no_grad():
        once_BTE = model(word_BT, past_TT)
        step_BE = [model(word_BT[:, :t], past_TT[:t, :t])[:, -1] for t in range(1, 9)]
    torch.testing.assert_close(once_BTE, torch.stack(step_BE, dim=1))
    print(f"one pass of 8 positions = 8 passes, {once_BTE.shape[1]} losses a sentence")
    # --8<-- [end:parallel]

    # --8<-- [start:padding]
    torch.manual_seed(0)
    model = Decoder(words=10, length=8, size=32).double()
    word_BT = torch.randint(10, (2, 8))
    other_BT = word_BT.clone()
    other_BT[:, 5:] = (word_BT[:, 5:] + 1) % 10  # the last three are padding
    past_TT = torch.ones(8, 8, dtype=torch.bool).tril()
    with torch.no_grad():
        once_BTE, again_BTE = model(word_BT, past_TT), model(other_BT, past_TT)
    print("real positions unchanged:", once_BTE[:, :5].equal(again_BTE[:, :5]))
    target_BT = torch.where(torch.arange(8) < 5, word_BT, -100)  # -100 is ignored
    kept = F.cross_entropy(once_BTE.mT, target_BT)
    alone = F.cross_entropy(once_BTE[:, :5].mT, word_BT[:, :5])
    all_of_it = F.cross_entropy(once_BTE.mT, word_BT)
    print(f"loss {alone:.3f}, padding ignored {kept:.3f}, counted {all_of_it:.3f}")
    torch.testing.assert_close(kept, alone)
    assert (all_of_it - alone).abs() > 0.01
    # --8<-- [end:padding]
