"""T5's buckets of distances, and Shaw's clipping."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.bucketed_bias import bucket

if __name__ == "__main__":
    # --8<-- [start:buckets]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    past_1S = -torch.arange(1000).unsqueeze(0)  # key minus query
    starts = {}
    for name, causal in (("both ways", False), ("causal", True)):
        row_S = bucket(past_1S, causal=causal)[0]
        starts[name] = [int((row_S == n).nonzero()[0]) for n in row_S.unique()]
        print(f"{name}, buckets of the past begin at:", *starts[name])
    clipped_S = past_1S[0].clamp(-16, 16)
    shaw = clipped_S.unique().numel()
    print(f"kinds of distance: {len(starts['causal'])} causal, {shaw} clipped at 16")
    last = int((clipped_S == -16).nonzero()[0])
    print(f"one kind for all from distance {starts['causal'][-1]}, or from {last}")
    assert len(starts["both ways"]) == 16
    assert len(starts["causal"]) == 32
    assert starts["both ways"][-1] == 91
    assert starts["causal"][-1] == 113
    # --8<-- [end:buckets]
