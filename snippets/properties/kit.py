"""Properties that attention must have, to run on anybody's own module."""

# --8<-- [start:imports]
import copy
import math
from collections.abc import Callable, Iterable, Mapping

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

# --8<-- [end:imports]
# isort: split
from snippets.properties.judge import Broken, Draw, Report, judge


# --8<-- [start:compare]
def gap(a_any: Tensor, b_any: Tensor) -> float:
    """Return the largest difference; infinity for another shape or a NaN."""
    if a_any.shape != b_any.shape:
        return math.inf
    if a_any.numel() == 0:
        return 0.0
    worst = (a_any.detach().double() - b_any.detach().double()).abs().max().item()
    return worst if worst == worst else math.inf


def allowed(b_any: Tensor) -> float:
    """Return the difference that rounding explains: half of the digits of the dtype."""
    if not b_any.dtype.is_floating_point or b_any.numel() == 0:
        return 0.0
    largest = b_any.detach().abs().max().item()
    return math.sqrt(torch.finfo(b_any.dtype).eps) * max(1.0, largest)


def agreement(ours_any: Tensor, theirs_any: Tensor, en: str = "", zh: str = "") -> None:
    """Expect two tensors to agree up to rounding; en and zh say what they are."""
    if tuple(ours_any.shape) != tuple(theirs_any.shape):
        came, wanted = tuple(ours_any.shape), tuple(theirs_any.shape)
        raise Broken(
            f"{en or 'the result'} has shape {came}, expected {wanted}",
            f"{zh or '结果'}的形状是 {came}，应为 {wanted}",
        )
    off = gap(ours_any, theirs_any)
    if not off <= allowed(theirs_any):
        raise Broken(
            f"{en or 'the result'} is off by {_size(off)}",
            f"{zh or '结果'}相差 {_size(off)}",
        )


def _size(off: float) -> str:
    return "NaN" if math.isinf(off) else f"{off:.2g}"


# --8<-- [end:compare]


# --8<-- [start:causality]
def causality(f: Callable, x_any: Tensor, draw: Draw, axis: int = 1) -> None:
    """Expect that no output moves when only later inputs change."""
    T = x_any.shape[axis]
    cut = draw.size("first changed position", 1, max(1, T - 1))
    changed_any = x_any.clone()
    future_any = changed_any.narrow(axis, cut, T - cut)
    future_any += 1 + draw.normal(*future_any.shape, dtype=x_any.dtype).abs()
    before_any, after_any = f(x_any), f(changed_any)
    kept_any = before_any.narrow(axis, 0, cut)
    off = gap(after_any.narrow(axis, 0, cut), kept_any)
    if not off <= allowed(kept_any):
        raise Broken(
            f"an output moved by {_size(off)} when only later inputs changed",
            f"只改动后面的输入，前面的输出却变了 {_size(off)}",
        )


# --8<-- [end:causality]


# --8<-- [start:padding-invariance]
def padding_invariance(f: Callable, x_BTD: Tensor, draw: Draw) -> None:
    """Expect `f(x, keep)` on a padded batch to equal `f` without padding.

    `keep` is boolean (B, T), True for what is no padding.
    """
    B, T, _ = x_BTD.shape
    length = draw.size("length without padding", 1, T)
    keep_BT = (torch.arange(T, device=x_BTD.device) < length).expand(B, T)
    padded_BTD = x_BTD.clone()
    padded_BTD[:, length:] = draw.choice("padding", [100.0, math.inf, math.nan])
    long_any = f(padded_BTD, keep_BT)[:, :length]
    off = gap(long_any, f(x_BTD[:, :length], keep_BT[:, :length]))
    if not off <= allowed(long_any.nan_to_num()):
        raise Broken(
            f"with padding the output differs by {_size(off)} from that without",
            f"有填充时的输出与没有填充时相差 {_size(off)}",
        )


# --8<-- [end:padding-invariance]


# --8<-- [start:batch-independence]
def batch_independence(f: Callable, x_any: Tensor, draw: Draw) -> None:
    """Expect a sample's output not to depend on the other samples of its batch."""
    B = len(x_any)
    one = draw.size("sample", 0, B - 1)
    alone_any = f(x_any[one : one + 1])
    off = gap(f(x_any)[one : one + 1], alone_any)
    if not off <= allowed(alone_any):
        raise Broken(
            f"a sample's output differs by {_size(off)} from that of the sample alone",
            f"同一个样本，放在批里与单独计算相差 {_size(off)}",
        )


# --8<-- [end:batch-independence]


# --8<-- [start:permutation-equivariance]
def permutation_equivariance(
    f: Callable, x_any: Tensor, draw: Draw, axis: int = 1
) -> None:
    """Expect permuted positions of the input to permute the output, and no more."""
    T = x_any.shape[axis]
    order = draw.data.draw(st.permutations(range(T)))
    draw.named["order of positions"] = order
    order_T = torch.tensor(order, device=x_any.device)
    expected_any = f(x_any).index_select(axis, order_T)
    off = gap(f(x_any.index_select(axis, order_T)), expected_any)
    if not off <= allowed(expected_any):
        raise Broken(
            f"with positions permuted the output is off by {_size(off)}",
            f"打乱位置后，输出相差 {_size(off)}",
        )


# --8<-- [end:permutation-equivariance]


# --8<-- [start:cached-equals-full]
def cached_equals_full(
    full: Callable, step: Callable, x_any: Tensor, draw: Draw, axis: int = 1
) -> None:
    """Expect pieces fed to `step(piece, cache) -> (output, cache)` to equal `full(x)`.

    The cache begins as None. The pieces have lengths that are drawn.
    """
    T, start, cache_any, parts_any = x_any.shape[axis], 0, None, []
    draw.named["pieces"] = pieces = []
    while start < T:
        length = draw.data.draw(st.integers(1, T - start))
        pieces.append(length)
        out_any, cache_any = step(x_any.narrow(axis, start, length), cache_any)
        parts_any.append(out_any)
        start += length
    whole_any = full(x_any)
    off = gap(torch.cat(parts_any, axis), whole_any)
    if not off <= allowed(whole_any):
        raise Broken(
            f"fed in pieces the output differs by {_size(off)} from that in one go",
            f"分段输入与一次输入的输出相差 {_size(off)}",
        )


# --8<-- [end:cached-equals-full]


# --8<-- [start:chunked-equals-whole]
def chunked_equals_whole(
    whole: Callable, chunked: Callable, x_any: Tensor, draw: Draw, axis: int = 1
) -> None:
    """Expect `chunked(x, chunk)` to equal `whole(x)`, whatever the chunk."""
    chunk = draw.size("chunk", 1, x_any.shape[axis] + 2)
    expected_any = whole(x_any)
    off = gap(chunked(x_any, chunk), expected_any)
    if not off <= allowed(expected_any):
        raise Broken(
            f"in chunks the output differs by {_size(off)} from that in one piece",
            f"分块计算与整体计算相差 {_size(off)}",
        )


# --8<-- [end:chunked-equals-whole]


# --8<-- [start:gradient-flow]
def gradient_flow(f: Callable, *inputs_any: Tensor) -> None:
    """Expect a finite gradient, not all zeros, at every input and parameter."""
    leaves_any = [one_any.detach().clone().requires_grad_() for one_any in inputs_any]
    owned = dict(f.named_parameters()) if isinstance(f, nn.Module) else {}
    named = {f"input {n}": leaf_any for n, leaf_any in enumerate(leaves_any)} | owned
    out_any = f(*leaves_any)
    if not out_any.requires_grad:
        raise Broken(
            "the output has lost its gradient: something was detached",
            "输出没有梯度：计算图在某处断开了",
        )
    # Fixed random weights: a plain sum is constant for whatever sums to one.
    generator = torch.Generator("cpu").manual_seed(1)
    weight_any = torch.randn(out_any.shape, generator=generator, device="cpu")
    loss = (out_any * weight_any.to(out_any)).sum()
    found_any = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    for name, grad_any in zip(named, found_any, strict=True):
        if grad_any is None or not grad_any.any():
            raise Broken(f"no gradient reaches {name}", f"{name} 没有梯度")
        if not grad_any.isfinite().all():
            raise Broken(
                f"the gradient of {name} is not finite", f"{name} 的梯度不是有限值"
            )


# --8<-- [end:gradient-flow]


# --8<-- [start:registered-parameters]
def registered_parameters(module: nn.Module) -> None:
    """Expect every weight that the module holds among its parameters()."""
    known = {id(one_any) for one_any in module.parameters()}
    for owner_name, owner in [("", module), *module.named_modules()]:
        for name, value_any in vars(owner).items():
            if name.startswith("_"):
                continue
            for held_any in _held(value_any):
                if id(held_any) not in known:
                    path = f"{owner_name}.{name}".strip(".")
                    raise Broken(
                        f"a weight in {path} is not registered: no optimizer sees it",
                        f"{path} 中的权重没有注册，优化器看不到它",
                    )


def _held(value_any: object) -> Iterable[Tensor]:
    """Yield the weights that a plain attribute hides, in lists and dicts, too."""
    if isinstance(value_any, nn.Module):
        yield from value_any.parameters()
    elif isinstance(value_any, Tensor):
        if value_any.requires_grad and value_any.is_leaf:
            yield value_any
    elif isinstance(value_any, Mapping):
        for one_any in value_any.values():
            yield from _held(one_any)
    elif isinstance(value_any, (list, tuple)):
        for one_any in value_any:
            yield from _held(one_any)


# --8<-- [end:registered-parameters]


# --8<-- [start:no-input-mutated]
def no_input_mutated(f: Callable, *inputs_any: Tensor) -> None:
    """Expect the call to leave its inputs as they were."""
    before_any = [one_any.clone() for one_any in inputs_any]
    f(*inputs_any)
    for number, (one_any, old_any) in enumerate(
        zip(inputs_any, before_any, strict=True)
    ):
        if not torch.equal(one_any.nan_to_num(), old_any.nan_to_num()):
            raise Broken(
                f"the call changed its input {number} in place",
                f"调用改动了第 {number} 个输入本身",
            )


# --8<-- [end:no-input-mutated]


# --8<-- [start:convexity]
def convexity(f: Callable, v_any: Tensor, draw: Draw, axis: int = -2) -> None:
    """Expect `f(v)` to average: constants come back, extremes are not passed."""
    out_any = f(v_any)
    low_any = v_any.amin(axis, keepdim=True)
    high_any = v_any.amax(axis, keepdim=True)
    room = allowed(v_any)
    if (out_any < low_any - room).any() or (out_any > high_any + room).any():
        raise Broken(
            "an output lies outside the range of its values",
            "有输出超出了值的取值范围",
        )
    one_any = v_any.narrow(axis, 0, 1).expand_as(v_any)
    off = gap(f(one_any), one_any.narrow(axis, 0, 1).expand_as(out_any))
    if not off <= room:
        raise Broken(
            f"all values equal, the output differs from them by {_size(off)}: "
            "weights do not sum to one",
            f"所有值都相同，输出却与之相差 {_size(off)}：权重之和不是一",
        )


# --8<-- [end:convexity]


# --8<-- [start:examine]
TITLES = {
    "causality": ("The future changes nothing", "后面的输入不影响前面的输出"),
    "padding": ("Padding changes nothing", "填充不影响结果"),
    "batch": ("Samples do not mix", "样本之间互不影响"),
    "equivariance": ("Permuting inputs permutes outputs", "打乱输入，输出随之打乱"),
    "gradients": ("Gradients reach everything", "每个输入和参数都有梯度"),
    "registered": ("Every weight is registered", "所有权重都已注册"),
    "unmutated": ("Inputs stay as they were", "不改动输入"),
    "cached": ("In pieces equals in one go", "分段等于一次算完"),
    "reference": ("Agrees with the reference", "与参考实现一致"),
}


def examine(
    module: Callable,
    size: int,
    expect: Iterable[str],
    language: str = "en",
    *,
    padded: Callable | None = None,
    step: Callable | None = None,
    reference: Callable | None = None,
    longest: int = 6,
) -> Report:
    """Examine your own layer, `module(x)` from (B, T, size) to (B, T, anything).

    `expect` names the properties (the keys of TITLES). "padding" calls
    `padded(x, keep)`, "cached" `step(piece, cache) -> (output, cache)`, "reference"
    compares with `reference(x)`, which has your weights already. Returns a report to
    print. Raises ValueError for a name or a callable that is missing.
    """
    needed = {"padding": padded, "cached": step, "reference": reference}
    expect = list(expect)
    for name in expect:
        if name not in TITLES:
            raise ValueError(f"no property {name!r}: there are {', '.join(TITLES)}")
        if name in needed and needed[name] is None:
            word = {"padding": "padded", "cached": "step"}.get(name, name)
            raise ValueError(f"{name!r} needs the argument {word}=")
    subject = copy.deepcopy(module) if isinstance(module, nn.Module) else module
    dtype = torch.float32
    if isinstance(subject, nn.Module):
        subject.eval()
        dtype = next((one_any.dtype for one_any in subject.parameters()), dtype)

    def run(name: str, draw: Draw) -> None:
        B, T = draw.size("B", 1, 3), draw.size("T", 1, longest)
        x_BTD = draw.normal(B, T, size, dtype=dtype)
        if name == "causality":
            causality(subject, x_BTD, draw)
        elif name == "padding":
            padding_invariance(padded, x_BTD, draw)
        elif name == "batch":
            batch_independence(subject, x_BTD, draw)
        elif name == "equivariance":
            permutation_equivariance(subject, x_BTD, draw)
        elif name == "gradients":
            gradient_flow(subject, draw.normal(2, longest, size, dtype=dtype))
        elif name == "registered":
            registered_parameters(subject)
        elif name == "unmutated":
            no_input_mutated(subject, x_BTD)
        elif name == "cached":
            cached_equals_full(subject, step, x_BTD, draw)
        else:
            agreement(subject(x_BTD), reference(x_BTD))

    checks = []
    for name in expect:

        def one(_, draw: Draw, name: str = name) -> None:
            run(name, draw)

        one.__name__ = name
        one.title = dict(zip(("en", "zh"), TITLES[name], strict=True))
        checks.append(one)
    return judge(None, checks, language)


# --8<-- [end:examine]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    expected = ["causality", "batch", "equivariance", "gradients", "registered"]
    print(examine(layer, size=8, expect=expected, language="en"))
    print(examine(layer, size=8, expect=expected, language="zh"))
    # --8<-- [end:first-look]

    # --8<-- [start:show]
    def show(report: Report) -> None:
        """Print what is broken in both languages; stop if nothing is."""
        assert not report, "every property holds: this is no exhibit"
        for language in ("en", "zh"):
            print(report.told(language, only_broken=True))

    # --8<-- [end:show]

    # --8<-- [start:unregistered]
    class Unregistered(nn.Module):
        """Keeps its layers in a plain list."""

        def __init__(self) -> None:
            """Make two layers that no optimizer will see."""
            super().__init__()
            self.layers = [nn.Linear(8, 8), nn.Linear(8, 8)]

        def forward(self, x_BTD: Tensor) -> Tensor:
            """Apply both."""
            return self.layers[1](self.layers[0](x_BTD))

    show(examine(Unregistered(), 8, ["registered"]))
    # --8<-- [end:unregistered]

    # --8<-- [start:implicit-dim]
    def softmax_over_the_batch(x_BTD: Tensor) -> Tensor:
        """Normalize over axis 0, which softmax without dim takes for three axes."""
        return torch.softmax(x_BTD, dim=0) * x_BTD

    show(examine(softmax_over_the_batch, 8, ["causality", "batch"]))
    # --8<-- [end:implicit-dim]

    # --8<-- [start:merge]
    def attend_and_merge_wrongly(x_BTD: Tensor) -> Tensor:
        """Attend in two heads, causally, and merge without moving the axis back."""
        x_BHTK = x_BTD.unflatten(2, (2, -1)).transpose(1, 2)
        out_BHTK = F.scaled_dot_product_attention(
            x_BHTK, x_BHTK, x_BHTK, is_causal=True
        )
        return out_BHTK.reshape(x_BTD.shape)

    show(examine(attend_and_merge_wrongly, 8, ["causality", "batch"]))
    # --8<-- [end:merge]

    # --8<-- [start:tiny-fill]
    def hide_padding_by_a_tiny_number(x_BTD: Tensor, keep_BT: Tensor) -> Tensor:
        """Add -1e-9 to the scores of padding, meaning -1e9."""
        score_BTS = x_BTD @ x_BTD.mT + ~keep_BT.unsqueeze(1) * -1e-9
        return torch.softmax(score_BTS, dim=-1) @ x_BTD

    whole = nn.Identity()
    show(examine(whole, 8, ["padding"], padded=hide_padding_by_a_tiny_number))
    # --8<-- [end:tiny-fill]

    # --8<-- [start:top-left]
    def full(x_BTD: Tensor) -> Tensor:
        """Attend causally over the whole sequence."""
        return F.scaled_dot_product_attention(x_BTD, x_BTD, x_BTD, is_causal=True)

    def step(x_BTD: Tensor, past_any: Tensor | None) -> tuple[Tensor, Tensor]:
        """Append to the cache and attend with a causal mask that starts top left."""
        key_BSD = x_BTD if past_any is None else torch.cat([past_any, x_BTD], 1)
        out_BTD = F.scaled_dot_product_attention(
            x_BTD, key_BSD, key_BSD, is_causal=True
        )
        return out_BTD, key_BSD

    show(examine(full, 8, ["causality", "cached"], step=step))
    # --8<-- [end:top-left]

    # --8<-- [start:in-place]
    def scale_in_place(x_BTD: Tensor) -> Tensor:
        """Scale the caller's own tensor."""
        return torch.softmax(x_BTD.mul_(0.5) @ x_BTD.mT, dim=-1) @ x_BTD

    show(examine(scale_in_place, 8, ["unmutated"]))
    # --8<-- [end:in-place]
