"""Scaled rotary frequencies: transformers as oracle, ends, bounds, factor, errors."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from snippets.positions.rope import frequencies, rotate_halves
from snippets.positions.rope_scaling import (
    attention_factor,
    by_parts,
    interpolate,
    llama3,
    ntk_aware,
    turns,
    yarn,
)
from tests.running import run_main

HUGE = [8, 64, 128]


def theirs(kind, size, base, trained, seq_len=None, **parameters):
    """Return what transformers computes for a small config."""
    from transformers import LlamaConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = LlamaConfig(
        hidden_size=size,
        num_attention_heads=1,
        head_dim=size,
        max_position_embeddings=trained,
        rope_parameters={
            "rope_type": kind,
            "rope_theta": base,
            "original_max_position_embeddings": trained,
            **parameters,
        },
    )
    table, factor = ROPE_INIT_FUNCTIONS[kind](config, "cpu", seq_len=seq_len)
    return table.double(), factor


def close(ours, other):
    """Compare with float32 tables: a few of their ulps, relatively."""
    assert ours.dtype == torch.float64
    torch.testing.assert_close(ours, other, rtol=4e-6, atol=0)


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("base", [10000.0, 500000.0])
@pytest.mark.parametrize("scale", [1.0, 4.0, 8.0, 32.0])
def test_equals_transformers(size, base, scale):
    """Four kinds: linear, dynamic at a fixed length, yarn, llama3."""
    trained = 4096
    table, _ = theirs("linear", size, base, trained, factor=scale)
    close(interpolate(frequencies(size, base), scale), table)
    table, _ = theirs("dynamic", size, base, trained, int(scale * trained), factor=1.0)
    close(ntk_aware(size, scale, base), table)
    table, factor = theirs("yarn", size, base, trained, factor=scale)
    ours, our_factor = yarn(size, scale, trained, base)
    close(ours, table)
    assert our_factor == pytest.approx(factor, rel=1e-12)
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    table, factor = theirs("llama3", size, base, trained, factor=scale, **bands)
    close(llama3(size, scale, trained, base), table)
    assert factor == 1


@pytest.mark.parametrize("bounds", [(1.0, 32.0), (0.5, 8.0), (2.0, 3.0)])
@pytest.mark.parametrize("trained", [512, 2048, 131072])
def test_equals_transformers_with_other_bounds(bounds, trained):
    """beta_slow and beta_fast, low_freq_factor and high_freq_factor."""
    slow, fast = bounds
    beta = {"beta_slow": slow, "beta_fast": fast}
    table, _ = theirs("yarn", 64, 10000.0, trained, factor=4.0, **beta)
    close(yarn(64, 4.0, trained, slow=slow, fast=fast)[0], table)
    bands = {"low_freq_factor": slow, "high_freq_factor": fast}
    table, _ = theirs("llama3", 64, 10000.0, trained, factor=4.0, **bands)
    close(by_parts(64, 4.0, trained, slow=slow, fast=fast), table)


def test_yarn_where_one_pair_holds_both_bounds():
    """The ramp is a step when the bounds round to one pair."""
    table, _ = theirs("yarn", 4, 1e6, 16384, factor=4.0, beta_fast=1.01)
    close(yarn(4, 4.0, 16384, 1e6, fast=1.01)[0], table)
    # both bounds at or before pair 0: it is kept, all others are slowed
    short, _ = yarn(8, 4.0, 7, 10000.0, fast=1.05)
    torch.testing.assert_close(
        frequencies(8) / short, torch.tensor([1.0, 4, 4, 4]).double()
    )
    # every pair turns more than 32 times: all are kept
    long, _ = yarn(8, 4.0, 10**9)
    assert long.equal(frequencies(8))


@pytest.mark.parametrize(("mscale", "all_dim"), [(1.0, 1.0), (0.707, 1.0), (1.0, 0.5)])
def test_attention_factor_equals_transformers(mscale, all_dim):
    """DeepSeek's two factors; without them the paper's 0.1 ln(s) + 1."""
    both = {"mscale": mscale, "mscale_all_dim": all_dim}
    _, factor = theirs("yarn", 64, 10000.0, 4096, factor=40.0, **both)
    assert attention_factor(40.0, mscale, all_dim) == pytest.approx(factor, rel=1e-12)
    assert attention_factor(math.e**10) == pytest.approx(2)
    assert attention_factor(1) == 1


def test_llama31_as_released():
    """The constants of Llama 3.1: scale 8, 8192 positions, base 500000, bounds 1, 4."""
    bands = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
    table, _ = theirs("llama3", 128, 500000.0, 8192, factor=8.0, **bands)
    close(llama3(128), table)


# --8<-- [start:ends]
def test_what_happens_at_the_ends():
    """Fast pairs are kept by all but PI; slow pairs are slowed by `scale` in all."""
    plain = frequencies(64)
    for name, new in (
        ("PI", interpolate(plain, 8.0)),
        ("NTK-aware", ntk_aware(64, 8.0)),
        ("by parts", by_parts(64, 8.0, 4096)),
        ("YaRN", yarn(64, 8.0, 4096)[0]),
    ):
        slowed = plain / new
        assert abs(slowed[-1].item() - 8) < 1e-9
        assert abs(slowed[0].item() - (8 if name == "PI" else 1)) < 1e-9
        assert (slowed.diff() > -1e-9).all()  # the slower, the more slowed
        print(f"{name}: pair 0 slowed by {slowed[0]:.0f}, last by {slowed[-1]:.0f}")


# --8<-- [end:ends]


# --8<-- [start:halves]
def test_interpolation_divides_positions():
    """Slower frequencies at position 8 p are plain frequencies at position p."""
    x, theta = torch.randn(1, 2, 5, 16).double(), frequencies(16)
    pos = torch.tensor([[0, 3, 70, 1000, 4095]])
    slow = rotate_halves(x, 8 * pos, interpolate(theta, 8.0))
    torch.testing.assert_close(slow, rotate_halves(x, pos, theta))
    print("position 32760 of the long context is position 4095 of training")


# --8<-- [end:halves]


# --8<-- [start:bounds]
def test_parts_by_turns():
    """More than `fast` turns: kept. Fewer than `slow`: slowed. Between: linear."""
    plain = frequencies(128, 500000.0)
    for name, new, slow, fast in (
        ("Llama 3.1", llama3(128), 1, 4),
        ("NTK-by-parts", by_parts(128, 8.0, 8192, 500000.0), 1, 32),
    ):
        turned = turns(plain, 8192)
        kept = (new / plain * 8 - 1) / 7
        assert (kept[turned >= fast] > 1 - 1e-12).all()
        assert (kept[turned <= slow] < 1e-12).all()
        between = (turned > slow) & (turned < fast)
        expected = (turned[between] - slow) / (fast - slow)
        torch.testing.assert_close(kept[between], expected)
        print(f"{name}: {between.sum()} of 64 pairs lie between the bounds")


# --8<-- [end:bounds]


@given(
    size=st.integers(2, 40).map(lambda n: 2 * n),
    base=st.floats(50, 1e6),
    scale=st.floats(1, 64),
    trained=st.integers(16, 10**5),
)
def test_every_map_stays_between(size, base, scale, trained):
    """No pair is sped up or slowed by more than `scale`; scale 1 changes nothing."""
    plain = frequencies(size, base)
    for new in (
        interpolate(plain, scale),
        ntk_aware(size, scale, base),
        by_parts(size, scale, trained, base),
        llama3(size, scale, trained, base),
        yarn(size, scale, trained, base)[0],
    ):
        assert new.shape == plain.shape
        assert (new <= plain * (1 + 1e-12)).all()
        assert (new >= plain / scale * (1 - 1e-12)).all()
    torch.testing.assert_close(interpolate(plain, 1.0), plain)
    torch.testing.assert_close(ntk_aware(size, 1.0, base), plain)
    torch.testing.assert_close(by_parts(size, 1.0, trained, base), plain)
    torch.testing.assert_close(yarn(size, 1.0, trained, base)[0], plain)


def test_turns():
    """A pair of θ radians a position turns trained · θ / 2π times."""
    theta = torch.tensor([2 * math.pi, math.pi / 50])
    assert turns(theta, 100).tolist() == pytest.approx([100, 1])


def test_smallest_sizes():
    """One pair has no slow end; two pairs have both."""
    torch.testing.assert_close(
        frequencies(4) / ntk_aware(4, 8.0), torch.tensor([1.0, 8]).double()
    )
    assert by_parts(2, 8.0, 4096).item() == 1
    assert yarn(2, 8.0, 4096)[0].item() == 1


def test_bad_input_is_named():
    """What came and what was expected."""
    for call in (
        lambda: interpolate(frequencies(8), 0.5),
        lambda: ntk_aware(8, 0.5),
        lambda: by_parts(8, 0.5, 4096),
        lambda: yarn(8, 0.5, 4096),
        lambda: attention_factor(0.5),
    ):
        with pytest.raises(ValueError, match=r"^scale is 0\.5, expected at least 1$"):
            call()
    with pytest.raises(ValueError, match=r"^size is 2, expected at least 4$"):
        ntk_aware(2, 8.0)
    with pytest.raises(
        ValueError, match=r"^size is 7, expected a positive even number$"
    ):
        yarn(7, 8.0, 4096)
    for kind in (by_parts, yarn):
        for slow, fast in ((0, 1), (4.0, 4.0), (-1, 1)):
            wrong = f"^slow is {slow}, fast is {fast}: expected 0 < slow < fast$"
            with pytest.raises(ValueError, match=wrong):
                kind(8, 8.0, 4096, slow=slow, fast=fast)
        wrong = (
            r"^trained is 6, expected at least 6\.3 positions, "
            r"in which the fastest pair turns often enough$"
        )
        with pytest.raises(ValueError, match=wrong):
            kind(8, 8.0, 6)
        assert kind(8, 8.0, 7) is not None
        with pytest.raises(
            ValueError, match=r"^trained is 12, expected at least 12\.6 "
        ):
            kind(8, 8.0, 12, slow=2.0)


def test_demonstration():
    """The page's numbers."""
    out = run_main("snippets.positions.rope_scaling").output
    for line in (
        "   0         1303.80       8.00       1.00       1.00       1.00",
        "  20           21.59       8.00       1.94       1.11       1.00",
        "  30            2.78       8.00       2.69       2.62       1.55",
        "  36            0.81       8.00       3.28       8.00       8.00",
        "  63            0.00       8.00       8.00       8.00       8.00",
        "  8192 positions: cache 131072 B a token, 1 GiB; frequencies 64 numbers",
        "131072 positions: cache 131072 B a token, 16 GiB; frequencies 64 numbers",
        "distance    10: cos off by 0.0001",
        "distance  1000: cos off by 0.8194",
        "distance 10000: cos off by 1.8875",
        "scale 128: factor 1.4852, applied twice 2.2058",
        "scores times 2.21, applied twice times 4.87",
        "mscale = all_dim = 1: factor 1.0000",
        "length 4096: a key cached at 4000 is off by up to 0.00",
        "length 5000: a key cached at 4000 is off by up to 2.00",
        "linear in turns (paper): 25 pairs blended, pair 32 kept 0.18",
        "linear in pairs (code): 25 pairs blended, pair 32 kept 0.54",
    ):
        assert line in out
    largest = [
        float(one.rsplit(" ", 1)[1]) for one in out.splitlines() if "largest" in one
    ]
    trained, extrapolated, interpolated = largest
    assert trained < 2
    assert extrapolated > 10 * trained
    assert interpolated < 2
