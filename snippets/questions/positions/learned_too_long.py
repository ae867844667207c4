"""Learned positions: no row past the end, no training for rows not used."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]

if __name__ == "__main__":
    try:
        # --8<-- [start:too-long]
        torch.manual_seed(0)
        table = torch.nn.Embedding(512, 64)  # on the CPU, which checks at once
        table(torch.arange(513))
        # --8<-- [end:too-long]
    except IndexError as error:
        print(error)

    # --8<-- [start:untrained]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    rows, longest = 256, 64
    table = torch.nn.Embedding(rows, 16)
    before_any = table.weight.detach().clone()
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    updates_any = torch.zeros(rows, dtype=torch.int64)
    for _ in range(200):
        length = int(torch.randint(1, longest + 1, ()))
        loss = table(torch.arange(length)).square().sum()
        optimizer.zero_grad()
        loss.backward()
        updates_any += table.weight.grad.abs().sum(1) > 0
        optimizer.step()
    still = (table.weight == before_any).all(1).sum().item()
    print("rows that never moved:", still, "of", rows)
    print("updates of rows 1, 32, 64:", updates_any[[0, 31, 63]].tolist())
    assert still == rows - longest
    assert updates_any[63] < 10 < updates_any[31] < updates_any[0] == 200
    # --8<-- [end:untrained]
