"""A pointer copies words that no output layer knows: attention as a distribution."""

# --8<-- [start:imports]
import torch
from torch import Tensor

# --8<-- [end:imports]


# --8<-- [start:mix]
def mix(
    generate: float, vocabulary_E: Tensor, weight_S: Tensor, word_S: Tensor
) -> Tensor:
    """Return word probabilities, copying included (See et al. 2017, eq. 9).

    `word_S` numbers the words of the source; numbers from E on are not in the
    vocabulary. The result has a place for each of them.
    """
    size = max(len(vocabulary_E), int(word_S.max()) + 1)
    total_N = torch.zeros(size, dtype=vocabulary_E.dtype)
    total_N[: len(vocabulary_E)] = generate * vocabulary_E
    return total_N.scatter_add(0, word_S, (1 - generate) * weight_S)


# --8<-- [end:mix]

if __name__ == "__main__":
    # --8<-- [start:copy]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    known = ["<unk>", "the", "team", "beat", "won"]
    source = ["zhou", "beat", "li", "the", "fans", "of", "zhou", "won"]
    words = known + [word for word in dict.fromkeys(source) if word not in known]
    word_S = torch.tensor([words.index(word) for word in source])
    weight_S = torch.tensor([0.35, 0.05, 0.1, 0.05, 0.05, 0.05, 0.3, 0.05])
    vocabulary_E = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1])
    for generate in (1.0, 0.5, 0.2):
        chance_N = mix(generate, vocabulary_E, weight_S, word_S)
        zhou, best = chance_N[words.index("zhou")].item(), words[chance_N.argmax()]
        print(f"p_gen {generate}: zhou {zhou:.3f}, most probable word {best}")
        assert abs(chance_N.sum().item() - 1) < 1e-6
    # --8<-- [end:copy]

    # --8<-- [start:lost]
    word_S = torch.tensor([5, 3, 6, 1, 7, 8, 5, 4])  # word 5 stands there twice
    weight_S = torch.tensor([0.35, 0.05, 0.1, 0.05, 0.05, 0.05, 0.3, 0.05])
    vocabulary_E = torch.tensor([0.4, 0.2, 0.2, 0.1, 0.1])
    right_N = mix(0.2, vocabulary_E, weight_S, word_S)
    careless_N = torch.cat((0.2 * vocabulary_E, torch.zeros(4)))
    careless_N[word_S] = careless_N[word_S] + 0.8 * weight_S  # not an accumulation
    for name, chance_N in (("scatter_add", right_N), ("assignment", careless_N)):
        print(f"{name:11}: sum {chance_N.sum():.2f}, the word twice {chance_N[5]:.2f}")
    assert careless_N.sum() < 0.99
    # --8<-- [end:lost]
