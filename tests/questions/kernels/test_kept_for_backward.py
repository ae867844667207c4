"""What the backward of FlashAttention keeps."""


def test_output_and_log_sum_exp_are_enough(evidence):
    """Gradients equal those of autograd, which kept the weights."""
    assert max(evidence.names["gap"]["with D"]) < 1e-12


def test_the_output_is_needed_for_d(evidence):
    """Without it, dQ and dK are off by about 1; dV does not need it."""
    dq, dk, dv = evidence.names["gap"]["without D"]
    assert min(dq, dk) > 0.3
    assert dv < 1e-12


def test_kept_bytes_grow_with_the_square_or_with_the_length(evidence):
    """Weights of T × T by hand; output and one number a query in the fused kernel."""
    kept = evidence.names["kept"]
    assert kept["by_hand", 1024] == 4 * 1024 * 1024
    assert kept["by_hand", 2048] == 4 * kept["by_hand", 1024]
    for length in (1024, 2048):
        fused = kept["scaled_dot_product_attention", length]
        assert fused == 4 * length * (64 + 1)
