"""Choosing: caches against the configurations of transformers, costs by formula."""

import pytest
import torch
import torch.nn.functional as F
import transformers

from snippets.comparisons.choosing import (
    Model,
    cache_bytes,
    causal_mask,
    compare,
    keys_and_values,
)
from tests.running import run_main


@pytest.fixture(scope="module")
def run():
    """Run the page's cells once."""
    return run_main("snippets.comparisons.choosing")


def test_a_token_leaves_a_key_and_a_value_for_each_head():
    assert keys_and_values(8, 128) == 2 * 8 * 128


def test_cache_without_window_grows_with_every_token():
    model = Model("m", "MHA", layers=3, numbers=10)
    assert cache_bytes(model, 1) == 3 * 10 * 2
    assert cache_bytes(model, 7, each=4) == 7 * 3 * 10 * 4


def test_layers_with_a_window_stop_growing():
    model = Model("m", "window", layers=3, numbers=10, window=4, windowed=2)
    assert cache_bytes(model, 4) == 4 * 3 * 10 * 2
    assert cache_bytes(model, 5) == (5 + 2 * 4) * 10 * 2
    assert cache_bytes(model, 100) == (100 + 2 * 4) * 10 * 2


def test_no_token_is_refused():
    with pytest.raises(ValueError, match=r"^tokens is 0, expected at least 1$"):
        cache_bytes(Model("m", "MHA", 1, 1), 0)


def of_config(config) -> tuple[int, int, int, int]:
    """Return layers, numbers, window and windowed layers of a transformers config."""
    layers = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None) or []
    windowed = kinds.count("sliding_attention")
    window = (getattr(config, "sliding_window", None) or 0) if windowed else 0
    if hasattr(config, "kv_lora_rank"):
        return layers, config.kv_lora_rank + config.qk_rope_head_dim, 0, 0
    size = getattr(config, "head_dim", None) or (
        config.hidden_size // config.num_attention_heads
    )
    heads = 1 if getattr(config, "multi_query", False) else config.num_key_value_heads
    return layers, 2 * heads * size, window, windowed


def test_models_are_those_of_transformers(run):
    models = {model.name: model for model in run.names["models"]}
    for name, kind in (
        ("LLaMA 7B", transformers.LlamaConfig),
        ("Falcon 7B", transformers.FalconConfig),
        ("Gemma 2 2B", transformers.Gemma2Config),
        ("gpt-oss-120b", transformers.GptOssConfig),
        ("DeepSeek-V3", transformers.DeepseekV3Config),
    ):
        model = models[name]
        ours = (model.layers, model.numbers, model.window, model.windowed)
        assert ours == of_config(kind()), name
    mistral, theirs = models["Mistral 7B"], transformers.MistralConfig()
    assert mistral.numbers == 2 * theirs.num_key_value_heads * theirs.head_dim
    assert mistral.layers == mistral.windowed == theirs.num_hidden_layers
    assert mistral.window == theirs.sliding_window


def test_compare_counts_and_finds_the_difference():
    def half(x):
        return F.scaled_dot_product_attention(x, x, x) / 2

    def whole(x):
        return F.scaled_dot_product_attention(x, x, x)

    flops, peak, off = compare(lambda x: x @ (x.mT @ x), lambda x: x @ (x.mT @ x), 16)
    assert flops == 2 * 4 * (2 * 32 * 16 * 32)
    assert peak >= 4 * 4 * 32 * 32
    assert off < 1e-3
    assert compare(half, whole, 16)[2] > 0.05
    assert compare(whole, whole, 16)[2] < 1e-5


def test_causal_mask_is_full_size():
    mask = causal_mask(torch.zeros(2, 3, 4, 5))
    assert mask.shape == (2, 3, 4, 4)
    assert mask[1, 2].equal(torch.ones(4, 4, dtype=torch.bool).tril())


def test_demonstration(run):
    """What is exact is exact, and the caches that the prose quotes."""
    lines = {line[:15].strip(): line for line in run.output.splitlines()}
    for name in ("dense", "chunked, 128", "flash, tiles", "PyTorch's SDPA"):
        assert lines[name].endswith("rounding"), name
    for name in ("grouped, 2 of 4", "window 128"):
        assert not lines[name].endswith("rounding"), name
    assert "0.50    0.50    0.50" in lines["Mistral 7B    G"]
    assert " 1.00 " in lines["chunked, 128"]
    assert " 0.53 " in lines["flash, tiles"]
    assert "not counted" in lines["PyTorch's SDPA"]
