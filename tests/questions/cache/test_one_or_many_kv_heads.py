"""The facts that the page on MHA, GQA and MQA states."""


def test_only_keys_and_values_shrink(evidence):
    """K and V lose heads; the output keeps its shape."""
    for name, heads in (("MHA  ", 8), ("GQA-2", 2), ("MQA  ", 1)):
        line = f"{name} K and V (2, {heads}, 5, 16), output (2, 8, 5, 16)"
        assert line in evidence.output


def test_cache_saves_more_from_model_size_tokens_on(evidence):
    """Weights shrink by 1536 MiB once; the cache by as much at 4096 tokens."""
    names = evidence.names
    assert names["in_weights"] == 1536 * 2**20
    assert names["in_weights"] == names["model"] * names["a_token"]
    assert "  4096 tokens: cache −   1536.0 MiB, 1 ×" in evidence.output
    assert "524288 tokens: cache − 196608.0 MiB, 128 ×" in evidence.output


def test_work_a_byte_is_the_group_size(evidence):
    """The same FLOPs, on 1, 1/4 and 1/32 of the bytes."""
    assert evidence.names["work"] == {"MHA": 1, "GQA-8": 4, "MQA": 32}
