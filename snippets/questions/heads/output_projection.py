"""W_O mixes heads; folded into W_V it gives values of full size for every head."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    # --8<-- [start:fold]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    H, T, D = 8, 5, 64
    V = D // H
    weight_HTT = torch.randn(H, T, T).double().softmax(-1)
    x_TD, wv_HDV, wo_HVD = (
        torch.randn(shape).double() for shape in ((T, D), (H, D, V), (H, V, D))
    )
    head_HTV = weight_HTT @ (x_TD @ wv_HDV)
    joined_TD = head_HTV.transpose(0, 1).flatten(1) @ wo_HVD.flatten(0, 1)
    folded_HDD = wv_HDV @ wo_HVD  # one matrix for each head
    value_HTD = x_TD @ folded_HDD
    summed_TD = (weight_HTT @ value_HTD).sum(0)
    torch.testing.assert_close(summed_TD, joined_TD)
    apart = wv_HDV.numel() + wo_HVD.numel()
    print("concatenate, then W_O = sum over heads of (W_V W_O): equal")
    print(f"parameters apart {apart:,}, folded {folded_HDD.numel():,}")
    print(f"values of a position apart {H * V}, folded {value_HTD[:, 0].numel()}")
    print("rank of a folded matrix:", torch.linalg.matrix_rank(folded_HDD[0]).item())
    assert folded_HDD.numel() == H * apart / 2
    assert value_HTD.numel() == H * head_HTV.numel()
    assert torch.linalg.matrix_rank(folded_HDD).max().item() == V
    # --8<-- [end:fold]

    # --8<-- [start:without]
    torch.manual_seed(0)
    H, T, D = 8, 5, 64
    weight_HTT = torch.randn(H, T, T).softmax(-1)
    v_HTV, other_HTV = torch.randn(2, H, T, D // H)
    other_HTV[1:] = v_HTV[1:]  # only head 0 differs
    wo_DD = torch.randn(D, D)
    touched = {}
    for name, mix in (
        ("without W_O", lambda y_TD: y_TD),
        ("with W_O", lambda y_TD: y_TD @ wo_DD),
    ):
        first_TD, second_TD = (
            mix((weight_HTT @ x_HTV).transpose(0, 1).flatten(1))
            for x_HTV in (v_HTV, other_HTV)
        )
        touched[name] = (first_TD != second_TD).any(0).sum().item()
        print(f"{name}: head 0 reaches {touched[name]} of {D} output components")
    assert touched == {"without W_O": D // H, "with W_O": D}
    # --8<-- [end:without]
