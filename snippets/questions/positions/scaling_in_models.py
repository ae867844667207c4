"""Tables of RoPE frequencies from the published constants of three models."""

# --8<-- [start:imports]
import torch

# --8<-- [end:imports]
# isort: split
from snippets.positions.rope import frequencies
from snippets.positions.rope_scaling import attention_factor, llama3, yarn

if __name__ == "__main__":
    # --8<-- [start:tables]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    models = {
        "Llama 3.1": (500_000, 8, llama3(128)),
        "Qwen3": (1_000_000, 4, yarn(128, 4, 32768, 1_000_000)[0]),
        "DeepSeek-V3": (10_000, 40, yarn(64, 40, 4096)[0]),
        "Llama 3.1 as YaRN": (500_000, 8, yarn(128, 8, 8192, 500_000)[0]),
    }
    counts = {}
    for name, (base, scale, theta_any) in models.items():
        slowed_any = frequencies(2 * len(theta_any), base) / theta_any
        kept = (slowed_any < 1 + 1e-6).sum().item()
        whole = (slowed_any > scale - 1e-6).sum().item()
        counts[name] = (kept, len(theta_any) - kept - whole, whole)
        print(f"{name:17}: kept, blended, slowed by {scale:2}: {counts[name]}")
    ratio_J = models["Llama 3.1"][2] / models["Llama 3.1 as YaRN"][2]
    apart = ratio_J.max().item()
    on_scores = attention_factor(40) ** 2
    print(f"Llama 3.1 against YaRN: a pair up to {apart:.1f} times as fast")
    print(f"YaRN at scale 4, q and k each times {attention_factor(4):.4f}")
    print(f"DeepSeek-V3, scores times {on_scores:.3f}")
    assert apart > 1.5
    assert counts["Llama 3.1"] != counts["Llama 3.1 as YaRN"]
    # --8<-- [end:tables]
