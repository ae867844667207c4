"""A causal mask tells the order without any positional encoding."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:swap]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    T = 6
    x_TD = torch.randn(T, 32, dtype=torch.float64)
    swapped_TD = x_TD[torch.tensor([1, 0, 2, 3, 4, 5])]  # the last token stays last
    hidden_TT = torch.ones(T, T).triu(1).bool()  # of PyTorch: True = may not attend
    moved = {}
    for layers in (1, 2):
        layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        model = torch.nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        model = model.double().eval()
        for name, hide_any in (("both directions", None), ("causal", hidden_TT)):
            with torch.no_grad():
                a_1TD = model(x_TD.unsqueeze(0), mask=hide_any)
                b_1TD = model(swapped_TD.unsqueeze(0), mask=hide_any)
            moved[name, layers] = (a_1TD - b_1TD)[0, -1].abs().max().item()
            print(f"{name}, layers: {layers}, moved by {moved[name, layers]:.1e}")
    by_order = moved.pop(("causal", 2))
    assert by_order > 1e-3
    assert max(moved.values()) < 1e-12
    # --8<-- [end:swap]

    # --8<-- [start:clock]
    mark_S = torch.zeros(1024, dtype=torch.float64)
    mark_S[0] = 1  # the value of the first token
    may_SS = torch.ones(1024, 1024).tril().bool()
    score_SS = torch.zeros(1024, 1024).double().masked_fill(~may_SS, -torch.inf)
    out_S = torch.softmax(score_SS, dim=-1) @ mark_S
    read_S = (1 / out_S).round().long()
    right = (read_S == torch.arange(1, 1025)).sum().item()
    print("outputs 1 to 4:", [f"{w:.3f}" for w in out_S[:4].tolist()])
    print("positions read correctly:", right, "of 1024")
    assert right == 1024
    torch.manual_seed(0)
    layer = torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = torch.nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    same_16D = torch.randn(1, 1, 32).expand(1, 6, 32).double()
    with torch.no_grad():
        out_16D = model.double().eval()(same_16D, mask=torch.ones(6, 6).triu(1).bool())
    spread = (out_16D - out_16D[:, :1]).abs().max().item()
    print(f"six equal tokens: outputs differ by {spread:.1e}")
    assert spread < 1e-12
    # --8<-- [end:clock]
