"""Heads are merged by transpose and flatten; a view alone mixes them up."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:small]
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    # 2 heads, 3 positions, size 2; each number says head, position, component.
    head_211, place_131, part_112 = (
        torch.arange(n).reshape(shape)
        for n, shape in ((2, (-1, 1, 1)), (3, (1, -1, 1)), (2, (1, 1, -1)))
    )
    x_232 = 100 * head_211 + 10 * place_131 + part_112
    right_34 = x_232.transpose(0, 1).flatten(1)
    view_34 = x_232.reshape(3, 4)
    last_34 = x_232.mT.reshape(3, 4)
    print("transpose(0, 1), then flatten:", right_34.tolist())
    print("reshape alone:", view_34.tolist())
    print("transpose(-1, -2), then reshape:", last_34.tolist())
    positions_34 = right_34 % 100 // 10
    assert (positions_34 == torch.arange(3).unsqueeze(1)).all()
    assert ((view_34 % 100 // 10) != positions_34).any()
    assert ((last_34 % 100 // 10) != positions_34).any()
    # --8<-- [end:small]

    # --8<-- [start:leak]
    torch.manual_seed(0)
    x_HTK = torch.randn(4, 6, 8)
    other_HTK = x_HTK.clone()
    other_HTK[:, -1] += 1  # the last position
    moved = {}
    for name, merge in (
        ("transpose, flatten", lambda y_HTK: y_HTK.transpose(0, 1).flatten(1)),
        ("reshape alone", lambda y_HTK: y_HTK.reshape(6, 32)),
        ("transpose(-1, -2)", lambda y_HTK: y_HTK.mT.reshape(6, 32)),
    ):
        moved[name] = (merge(other_HTK) != merge(x_HTK)).any(-1).nonzero().flatten()
        print(f"{name}: rows that change with position 5: {moved[name].tolist()}")
    assert moved["transpose, flatten"].tolist() == [5]
    assert len(moved["reshape alone"]) > 1
    assert len(moved["transpose(-1, -2)"]) > 1
    # --8<-- [end:leak]

    # --8<-- [start:error]
    try:
        torch.randn(4, 6, 8).transpose(0, 1).view(6, 32)
    except RuntimeError as error:
        print("view after transpose:", str(error).splitlines()[0][:60], "…")
    else:
        raise AssertionError("view accepted a transposed tensor")
    # --8<-- [end:error]
