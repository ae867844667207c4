"""The kit: each property holds for what has it, and names what breaks it."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from snippets.properties import kit
from snippets.properties.judge import Broken, hold
from snippets.properties.kit import examine
from tests.running import run_main


def says(prop, *words: str) -> Broken:
    """Return the Broken of a property that must not hold, with these words in it."""
    with pytest.raises(Broken) as found:
        hold(prop)
    for word in words:
        assert word in str(found.value)
    return found.value


def causal(x):
    """Return the running mean: it looks back only."""
    return x.cumsum(1) / torch.arange(1, x.shape[1] + 1).unsqueeze(-1)


def test_gap_is_infinite_for_another_shape_and_for_nan():
    one = torch.ones(2, 3)
    assert kit.gap(one, one) == 0.0
    assert kit.gap(one, one + 2) == 2.0
    assert kit.gap(one, one - 3) == 3.0
    assert math.isinf(kit.gap(one, one[:1]))
    assert math.isinf(kit.gap(one * math.nan, one))
    assert kit.gap(one[:0], one[:0]) == 0.0


def test_the_difference_allowed_is_half_of_the_digits():
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        eps = torch.finfo(dtype).eps
        assert kit.allowed(torch.full((2,), 0.5, dtype=dtype)) == math.sqrt(eps)
        assert kit.allowed(torch.full((2,), -8.0, dtype=dtype)) == 8 * math.sqrt(eps)
    assert kit.allowed(torch.ones(2, dtype=torch.int64)) == 0.0
    assert kit.allowed(torch.ones(0)) == 0.0


def test_agreement():
    x = torch.randn(2, 3).double()
    kit.agreement(x, x + 1e-12)
    with pytest.raises(Broken) as found:
        kit.agreement(x, x + 0.25)
    assert found.value.said == {
        "en": "the result is off by 0.25",
        "zh": "结果相差 0.25",
    }
    with pytest.raises(Broken) as found:
        kit.agreement(x[:1], x, "the output", "输出")
    assert found.value.said == {
        "en": "the output has shape (1, 3), expected (2, 3)",
        "zh": "输出的形状是 (1, 3)，应为 (2, 3)",
    }
    with pytest.raises(Broken, match="is off by NaN"):
        kit.agreement(x * math.nan, x)


def test_causality():
    hold(lambda draw: kit.causality(causal, draw.normal(2, 5, 3), draw))
    hold(lambda draw: kit.causality(causal, draw.normal(1, 1, 3), draw))
    broken = says(
        lambda draw: kit.causality(
            lambda x: x.flip(1), draw.normal(2, draw.size("T", 2, 6), 3), draw
        ),
        "when only later inputs changed",
        "只改动后面的输入",
    )
    assert broken.drawn == {"T": 2, "first changed position": 1}


def test_causality_sees_a_leak_of_the_last_position_only():
    def leaky(x):
        return causal(x) + (x[:, -1:] if x.shape[1] > 4 else 0) * 1e-3

    says(lambda draw: kit.causality(leaky, draw.normal(1, 5, 2), draw))


def test_causality_along_another_axis():
    hold(lambda d: kit.causality(lambda x: x.cumsum(2), d.normal(1, 2, 4, 3), d, 2))
    says(lambda d: kit.causality(lambda x: x.flip(2), d.normal(1, 2, 4, 3), d, 2))


def mean_of_kept(x, keep):
    """Return each row plus the mean of what is no padding, whatever padding holds."""
    kept = x.masked_fill(~keep.unsqueeze(-1), 0.0)
    return kept + kept.sum(1, keepdim=True) / keep.sum(1)[:, None, None]


def test_padding_invariance():
    hold(lambda d: kit.padding_invariance(mean_of_kept, d.normal(2, 5, 3), d))
    for wrong in (
        lambda x, keep: x + x.mean(1, keepdim=True),
        lambda x, keep: x + (x * keep.unsqueeze(-1)).sum(1, keepdim=True),  # 0 · NaN
        lambda x, keep: mean_of_kept(x, ~keep),
    ):
        says(
            lambda d, f=wrong: kit.padding_invariance(f, d.normal(2, 4, 3), d),
            "with padding the output differs by",
            "有填充时的输出",
        )


def test_batch_independence():
    hold(lambda d: kit.batch_independence(causal, d.normal(3, 4, 2), d))
    says(
        lambda d: kit.batch_independence(lambda x: x.softmax(0), d.normal(3, 4, 2), d),
        "from that of the sample alone",
        "放在批里与单独计算相差",
    )
    says(  # only the last sample is wrong
        lambda d: kit.batch_independence(
            lambda x: torch.cat([x[:-1], x[-1:] + x[:1] * (len(x) > 1)]),
            d.normal(3, 4, 2),
            d,
        ),
        "sample = 2",
    )


def test_permutation_equivariance():
    def attend(x):
        return F.scaled_dot_product_attention(x, x, x)

    hold(lambda d: kit.permutation_equivariance(attend, d.normal(1, 4, 3), d))
    hold(lambda d: kit.permutation_equivariance(attend, d.normal(1, 2, 4, 3), d, 2))
    says(
        lambda d: kit.permutation_equivariance(causal, d.normal(1, 4, 3), d),
        "with positions permuted the output is off by",
        "打乱位置后",
        "order of positions = ",
    )


def test_cached_equals_full():
    def step(x, past):
        whole = x if past is None else torch.cat([past, x], 1)
        return causal(whole)[:, -x.shape[1] :], whole

    hold(lambda d: kit.cached_equals_full(causal, step, d.normal(1, 5, 2), d))
    broken = says(
        lambda d: kit.cached_equals_full(
            causal, lambda x, past: (causal(x), 0), d.normal(1, 3, 2), d
        ),
        "fed in pieces the output differs by",
        "分段输入与一次输入的输出相差",
    )
    assert sum(broken.drawn["pieces"]) == 3
    assert len(broken.drawn["pieces"]) > 1


def test_chunked_equals_whole():
    def doubled(x, chunk):
        return torch.cat([2 * one for one in x.split(chunk, 1)], 1)

    def without_rest(x, chunk):
        return doubled(x[:, : x.shape[1] // chunk * chunk], chunk)

    whole = lambda x: 2 * x  # noqa: E731
    hold(lambda d: kit.chunked_equals_whole(whole, doubled, d.normal(1, 5, 2), d))
    broken = says(
        lambda d: kit.chunked_equals_whole(whole, without_rest, d.normal(1, 5, 2), d),
        "in chunks the output differs by",
        "分块计算与整体计算相差",
    )
    assert broken.drawn == {"chunk": 2}
    chunks = set()
    hold(
        lambda d: kit.chunked_equals_whole(
            whole, lambda x, c: (chunks.add(c), 2 * x)[1], d.normal(1, 2, 2), d
        ),
        examples=60,
    )
    assert chunks == {1, 2, 3, 4}


def test_gradient_flow():
    torch.manual_seed(0)
    x = torch.randn(2, 3).double()
    layer = nn.Linear(3, 3).double()
    kit.gradient_flow(layer, x)
    kit.gradient_flow(lambda x: x.softmax(-1), x)  # a plain sum would have none
    cases = {
        "the output has lost its gradient": lambda x: x.detach(),
        "no gradient reaches input 1": lambda x, y: x + y.detach(),
        "the gradient of input 0 is not finite": lambda x: (x - x).sqrt(),
    }
    for words, f in cases.items():
        inputs = (x, x) if "input 1" in words else (x,)
        with pytest.raises(Broken, match=words) as found:
            kit.gradient_flow(f, *inputs)
        assert "梯度" in found.value.said["zh"]
    with pytest.raises(Broken, match="no gradient reaches input 0"):
        kit.gradient_flow(lambda x, y: 0 * x + y, x, x)
    layer.extra = nn.Parameter(torch.ones(2).double())
    with pytest.raises(Broken, match="no gradient reaches extra"):
        kit.gradient_flow(layer, x)
    assert x.grad is None
    assert layer.weight.grad is None


def test_registered_parameters():
    good = nn.Sequential(nn.Linear(2, 2), nn.ModuleList([nn.Linear(2, 2)]))
    good.note = [torch.zeros(2), 3, "x", {"y": torch.ones(1)}]
    kit.registered_parameters(good)
    shared = nn.Linear(2, 2)
    good.alias = [shared]
    good.append(shared)
    kit.registered_parameters(good)
    hidden = {
        "list": [nn.Linear(2, 2)],
        "dict": {"a": nn.Linear(2, 2)},
        "tuple": ((nn.Parameter(torch.ones(2)),),),
    }
    for kind, value in hidden.items():
        module = nn.Sequential(nn.Identity())
        module[0].secret = value
        with pytest.raises(Broken) as found:
            kit.registered_parameters(module)
        assert found.value.said["en"] == (
            "a weight in 0.secret is not registered: no optimizer sees it"
        ), kind
        assert found.value.said["zh"] == "0.secret 中的权重没有注册，优化器看不到它"
    module = nn.Identity()
    module.plain = torch.ones(2, requires_grad=True)
    with pytest.raises(Broken, match="a weight in plain is not registered"):
        kit.registered_parameters(module)


def test_no_input_mutated():
    x, y = torch.randn(2, 3), torch.full((2,), math.nan)
    kit.no_input_mutated(lambda x, y: x + 1, x, y)
    with pytest.raises(Broken, match="changed its input 1 in place") as found:
        kit.no_input_mutated(lambda x, y: y.fill_(1), x, torch.zeros(2))
    assert found.value.said["zh"] == "调用改动了第 1 个输入本身"


def test_convexity():
    def average(weight):
        return lambda v: torch.einsum("TS,BSV->BTV", weight, v)

    good = torch.randn(3, 4).double().softmax(-1)
    hold(lambda d: kit.convexity(average(good), d.normal(2, 4, 3), d))
    hold(lambda d: kit.convexity(lambda v: v.mean(0, True), d.normal(4, 3), d, 0))
    says(
        lambda d: kit.convexity(average(1.5 * good), d.normal(2, 4, 3), d),
    )
    says(
        lambda d: kit.convexity(average(0.999 * good), d.normal(2, 4, 3), d),
        "weights do not sum to one",
        "权重之和不是一",
    )
    for shift in (-9.0, 9.0):
        says(
            lambda d, s=shift: kit.convexity(
                lambda v: average(good)(v) + s * (v.std() > 0), d.normal(2, 4, 3), d
            ),
            "outside the range of its values",
            "超出了值的取值范围",
        )


class Layer(nn.Module):
    """Causal attention with every property but the equivariance."""

    def __init__(self):
        """Mix, then drop while training."""
        super().__init__()
        self.mix = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        """Attend to the past."""
        x = self.drop(self.mix(x))
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)


def test_examine_a_module_of_one_s_own():
    layer = Layer().train()

    def step(x, past):
        whole = x if past is None else torch.cat([past, x], 1)
        return reference(whole)[:, -x.shape[1] :], whole

    def reference(x):
        x = F.linear(x, layer.mix.weight, layer.mix.bias)
        return F.scaled_dot_product_attention(x, x, x, is_causal=True)

    def padded(x, keep):
        return reference(x.masked_fill(~keep.unsqueeze(-1), 0.0))

    everything = list(kit.TITLES)
    report = examine(
        layer, 4, everything, padded=padded, step=step, reference=reference
    )
    assert list(report.broken) == ["equivariance"]
    assert "8 / 9 hold" in str(report)
    assert "✓ 每个输入和参数都有梯度" in report.told("zh")
    assert layer.training, "the reader's module was put into eval mode"


def test_examine_uses_the_dtype_of_the_module_and_its_longest():
    seen = set()

    class Watch(nn.Linear):
        def forward(self, x):
            seen.add((x.dtype, x.shape[1], x.shape[0]))
            return super().forward(x)

    assert examine(Watch(3, 3).double(), 3, ["batch"], longest=2)
    assert {dtype for dtype, *_ in seen} == {torch.float64}
    assert {length for _, length, _ in seen} == {1, 2}
    assert {size for *_, size in seen} == {1, 2, 3}
    assert examine(lambda x: x, 3, ["batch"])


def test_examine_names_what_is_wrong_with_its_arguments():
    with pytest.raises(ValueError, match="no property 'causal': there are causality, "):
        examine(nn.Identity(), 3, ["causal"])
    for name, word in (
        ("padding", "padded"),
        ("cached", "step"),
        ("reference", "reference"),
    ):
        with pytest.raises(ValueError, match=f"^{name!r} needs the argument {word}=$"):
            examine(nn.Identity(), 3, [name])


def test_demonstration():
    """The gallery: every exhibit breaks the property that its page names."""
    out = run_main("snippets.properties.kit").output
    first, *gallery = out.split("4 / 5 成立")
    assert "✗ The future changes nothing" in first
    told = "\n".join(gallery)
    for words in (
        "a weight in layers is not registered",
        "✗ Samples do not mix",
        "✗ The future changes nothing",
        "✗ Padding changes nothing",
        "✗ In pieces equals in one go",
        "the call changed its input 0 in place",
    ):
        assert words in told
    assert told.count("✗") == 12
