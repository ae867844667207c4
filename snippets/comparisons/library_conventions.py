"""Conventions of libraries, compared: a cell behind each row of a table."""

# --8<-- [start:imports]
import math
import warnings
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

with warnings.catch_warnings():  # about progress bars that nobody needs here
    warnings.simplefilter("ignore")
    from transformers import DynamicCache, LlamaConfig, LlamaModel
    from transformers.integrations.sdpa_attention import (
        repeat_kv,
        sdpa_attention_forward,
    )
    from transformers.masking_utils import create_causal_mask
    from transformers.models.gptj import modeling_gptj
    from transformers.models.llama import modeling_llama

# --8<-- [end:imports]
# isort: split
from snippets.foundations.scaled_dot_product import masked_softmax


# --8<-- [start:row]
def row(name: str, came: object, expected: object) -> None:
    """Print one row of a table; stop when the table says otherwise."""
    print(f"{name}: {came}")
    assert came == expected, f"{name}: {came}, but the table says {expected}"


def seen(weight_any: Tensor) -> str:
    """Write the weights (…, T, S) of the first head: 1 if positive, else 0."""
    rows = weight_any.reshape(-1, *weight_any.shape[-2:])[0].tolist()
    return " ".join("".join(str(int(w > 0)) for w in one) for one in rows)


# --8<-- [end:row]


# --8<-- [start:rope]
def rotate_as_llama(x_HTK: Tensor) -> Tensor:
    """Rotate by the function of transformers' Llama."""
    both_TK = modeling_gptj.create_sinusoidal_positions(*x_HTK.shape[1:])
    sin_TK, cos_TK = (half_any.repeat(1, 2) for half_any in both_TK.chunk(2, dim=1))
    rotate = modeling_llama.apply_rotary_pos_emb
    return rotate(x_HTK, x_HTK, cos_TK, sin_TK, unsqueeze_dim=0)[0]


def rotate_as_gptj(x_HTK: Tensor) -> Tensor:
    """Rotate by the function of transformers' GPT-J; it wants positions before heads."""
    both_TK = modeling_gptj.create_sinusoidal_positions(*x_HTK.shape[1:])
    sin_cos_any = both_TK[None].chunk(2, dim=2)
    x_1THK = x_HTK.transpose(0, 1)[None]
    return modeling_gptj.apply_rotary_pos_emb(x_1THK, *sin_cos_any)[0].transpose(0, 1)


def pairs_to_halves(weight_any: Tensor, heads: int) -> Tensor:
    """Put the even rows of each head first, then the odd ones; for biases, too."""
    pairs_any = weight_any.unflatten(0, (heads, -1, 2))
    return pairs_any.transpose(1, 2).reshape(weight_any.shape)


# --8<-- [end:rope]


# --8<-- [start:mixed-axes]
def mixed_axes(f: Callable, x_any: Tensor) -> list[int]:
    """Return the axes, all but the last, along which `f` carries a change on."""
    changed_any = x_any.clone()
    changed_any[(0,) * x_any.ndim] += 1
    moved_any = f(changed_any) != f(x_any)
    later = [moved_any.transpose(0, axis)[1:].any() for axis in range(x_any.ndim - 1)]
    return [axis for axis, moved in enumerate(later) if moved]


def itself(attention: Callable) -> Callable:
    """Return attention of an input to itself, without the weights."""

    def run(x_any: Tensor) -> Tensor:
        out_any = attention(x_any, x_any, x_any)
        return out_any if isinstance(out_any, Tensor) else out_any[0]

    return run


# --8<-- [end:mixed-axes]


# --8<-- [start:blind]
def blind(out_any: Tensor) -> str:
    """Say what came out for query 1, with outputs (…, T, S)."""
    out_S = out_any[..., 1, :].reshape(-1, out_any.shape[-1])[0]
    if out_S.isnan().any():
        return "NaN"
    if not out_S.any():
        return "zeros"
    return "uniform" if out_S.allclose(out_S.mean()) else "something else"


# --8<-- [end:blind]


if __name__ == "__main__":
    # --8<-- [start:first-look]
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    warnings.simplefilter("ignore")  # FlexAttention asks to be compiled
    sizes = {"hidden_size": 32, "intermediate_size": 8, "vocab_size": 8}
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
    config = LlamaConfig(**sizes, **heads, num_hidden_layers=1, attention_dropout=0.5)
    config._attn_implementation = "eager"
    llama = LlamaModel(config).eval()
    llama_attention, x_14D = llama.layers[0].self_attn, torch.randn(1, 4, 32)
    mha, sdpa = (
        nn.MultiheadAttention(32, 4, batch_first=True),
        F.scaled_dot_product_attention,
    )
    # --8<-- [end:first-look]

    # --8<-- [start:takes]
    q_114K, eye_1144 = torch.zeros(1, 1, 4, 4), torch.eye(4)[None, None]
    qkv_any = q_114K, q_114K, eye_1144  # equal scores, V = 1: the output is the weights

    def by_flex(mask_TS: Tensor) -> Tensor:
        """Return FlexAttention's weights for equal scores."""
        T, S = mask_TS.shape
        block_mask = create_block_mask(
            lambda b, h, t, s: mask_TS[t, s], None, None, T, S
        )
        q_11TK, k_11SK = torch.zeros(1, 1, T, 4), torch.zeros(1, 1, S, 4)
        eye_11SS = torch.eye(S)[None, None]
        return flex_attention(q_11TK, k_11SK, eye_11SS, block_mask=block_mask)

    takes = {
        "SDPA": lambda mask_TS: sdpa(*qkv_any, mask_TS),
        "masked_softmax of this guide": lambda mask_TS: masked_softmax(
            torch.zeros(1, 1, 4, 4), mask_TS[None, None]
        ),
        "FlexAttention": by_flex,
        "masked_fill(mask, -inf)": lambda mask_TS: (
            torch.zeros(4, 4).masked_fill(mask_TS, -math.inf).softmax(-1)
        ),
        "nn.MultiheadAttention, attn_mask": lambda mask_TS: mha(
            x_14D, x_14D, x_14D, attn_mask=mask_TS
        )[1],
        "nn.MultiheadAttention, key_padding_mask": lambda mask_TS: mha(
            x_14D, x_14D, x_14D, key_padding_mask=mask_TS[:1]
        )[1],
    }
    # --8<-- [end:takes]

    # --8<-- [start:polarity]
    mask_44 = torch.tensor([[True, True, False, False]]).expand(4, 4)
    for number, (name, take) in enumerate(takes.items()):
        row(name, seen(take(mask_44))[-4:], "1100" if number < 3 else "0011")
    row("SDPA, float, 1 and 0", seen(sdpa(*qkv_any, mask_44.float()))[-4:], "1111")
    given = {
        "attention_mask": mask_44[:1].long(),
        "position_ids": torch.arange(4)[None],
    }
    out = llama(inputs_embeds=x_14D, **given, output_attentions=True)
    row("transformers, (B, S)", seen(out.attentions[0])[-4:], "1100")
    added_1144 = create_causal_mask(config, x_14D, cache=None, **given)
    lowest, last = torch.finfo(torch.float32).min, added_1144[0, 0, -1].tolist()
    row("transformers, (B, 1, T, S)", last == [0, 0, lowest, lowest], True)
    # --8<-- [end:polarity]

    # --8<-- [start:alignment]
    top_left, bottom_right = "10000 11000", "11110 11111"
    q_112K, k_115K, eye_1155 = (
        torch.zeros(1, 1, 2, 4),
        torch.zeros(1, 1, 5, 4),
        torch.eye(5)[None, None],
    )
    two_five_any = q_112K, k_115K, eye_1155
    row("SDPA, is_causal=True", seen(sdpa(*two_five_any, is_causal=True)), top_left)
    out_1125 = sdpa(*two_five_any, causal_lower_right(2, 5))
    row("SDPA, causal_lower_right(T, S)", seen(out_1125), bottom_right)
    t_21, s_5 = torch.arange(2)[:, None], torch.arange(5)
    row("FlexAttention, t >= s", seen(by_flex(t_21 >= s_5)), top_left)
    row("FlexAttention, t + S - T >= s", seen(by_flex(t_21 + 3 >= s_5)), bottom_right)
    mask_1125 = torch.ones(1, 1, 2, 5, dtype=torch.bool).tril(5 - 2)
    ours_1125 = masked_softmax(torch.zeros(1, 1, 2, 5), mask_1125)
    row("masked_softmax, tril(S - T)", seen(ours_1125), bottom_right)
    x_15D, cache = torch.randn(1, 5, 32), DynamicCache(config=config)
    llama(inputs_embeds=x_15D[:, :3], cache=cache)
    out = llama(inputs_embeds=x_15D[:, 3:], cache=cache, output_attentions=True)
    row("transformers, 2 tokens after 3", seen(out.attentions[0]), bottom_right)
    # --8<-- [end:alignment]

    # --8<-- [start:layouts]
    unit_128 = torch.zeros(1, 2, 8)
    unit_128[..., 0] = 1  # channel 0 of 8; where does a rotation carry it?
    for name, rotate, expected in (
        ("Llama", rotate_as_llama, [0, 4]),
        ("GPT-J", rotate_as_gptj, [0, 1]),
    ):
        reached = rotate(unit_128)[0, 1].nonzero().flatten().tolist()
        row(f"{name}, of 8 channels a pair is", reached, expected)
    # --8<-- [end:layouts]

    # --8<-- [start:conversion]
    x_TD, q_DD, k_DD = torch.randn(6, 32), torch.randn(32, 32), torch.randn(32, 32)

    def scores(q_DD: Tensor, k_DD: Tensor, rotate: Callable) -> Tensor:
        """Return the scores of eight heads, (H, T, T)."""
        q_HTK = rotate((x_TD @ q_DD.T).unflatten(1, (8, 4)).transpose(0, 1))
        k_HTK = rotate((x_TD @ k_DD.T).unflatten(1, (8, 4)).transpose(0, 1))
        return q_HTK @ k_HTK.mT

    wanted_HTT = scores(q_DD, k_DD, rotate_as_gptj)
    moved_q_DD, moved_k_DD = pairs_to_halves(q_DD, 8), pairs_to_halves(k_DD, 8)
    for name, weights_any, expected in (
        ("weights as they are", (q_DD, k_DD), "other scores"),
        ("W_Q and W_K reordered", (moved_q_DD, moved_k_DD), "same scores"),
        ("only W_Q reordered", (moved_q_DD, k_DD), "other scores"),
    ):
        same = scores(*weights_any, rotate_as_llama).allclose(wanted_HTT, atol=1e-3)
        row(f"half-split, {name}", "same scores" if same else "other scores", expected)
    # --8<-- [end:conversion]

    # --8<-- [start:gqa]
    v_1GTK = torch.arange(2.0).view(1, 2, 1, 1).expand(1, 2, 6, 4)
    grouped_any = torch.randn(1, 8, 6, 4), torch.randn(1, 2, 6, 4), v_1GTK
    groups = llama_attention.num_key_value_groups
    for name, out_any, expected in (
        ("SDPA, enable_gqa", sdpa(*grouped_any, enable_gqa=True), "00001111"),
        ("FlexAttention", flex_attention(*grouped_any, enable_gqa=True), "00001111"),
        ("transformers, repeat_kv", repeat_kv(v_1GTK, groups), "00001111"),
        ("repeat", v_1GTK.repeat(1, 4, 1, 1), "01010101"),
    ):  # the value of a key/value head is its number
        row(name, "".join(f"{n:.0f}" for n in out_any[0, :, 0, 0].tolist()), expected)
    counted = config.num_key_value_heads, groups
    row("transformers, num_key_value_heads and _groups", counted, (2, 4))
    # --8<-- [end:gqa]

    # --8<-- [start:layout]
    x_BHTK, x_BTHK = torch.randn(2, 8, 6, 4), torch.randn(2, 6, 8, 4)
    for name, f, x_any in (
        ("SDPA on (B, H, T, K)", sdpa, x_BHTK),
        ("SDPA on (B, T, H, K)", sdpa, x_BTHK),
    ):
        row(f"{name} mixes axis", mixed_axes(itself(f), x_any), [2])
    k_BGTK = x_BHTK[:, :2]
    out_BTHK, _ = sdpa_attention_forward(llama_attention, x_BHTK, k_BGTK, k_BGTK, None)
    row("transformers on (B, H, T, K) returns", tuple(out_BTHK.shape), (2, 6, 8, 4))
    # --8<-- [end:layout]

    # --8<-- [start:batch-first]
    def states(x_BTD: Tensor) -> Tensor:
        """Return what the transformers model computes."""
        return llama(inputs_embeds=x_BTD).last_hidden_state

    x_BTD = torch.randn(2, 6, 32)
    for name, f, expected in (
        ("nn.MultiheadAttention", itself(nn.MultiheadAttention(32, 4)), [0]),
        ("the same, batch_first=True", itself(mha), [1]),
        ("transformers", states, [1]),
    ):
        row(f"{name} mixes axis", mixed_axes(f, x_BTD), expected)
    # --8<-- [end:batch-first]

    # --8<-- [start:dropout]
    dropping = nn.MultiheadAttention(32, 4, dropout=0.5, batch_first=True)
    for mode in (True, False):
        dropping.train(mode), llama.train(mode)
        for name, f, expected in (
            ("SDPA, dropout_p=0.5", itself(partial(sdpa, dropout_p=0.5)), True),
            ("F.dropout", F.dropout, True),
            ("nn.MultiheadAttention", itself(dropping), mode),
            ("transformers", states, mode),
        ):
            dropped = not f(x_BTD).equal(f(x_BTD))
            row(f"{name}, {'train' if mode else 'eval'}: drops", dropped, expected)
    # --8<-- [end:dropout]

    # --8<-- [start:masked-rows]
    mask_44 = torch.ones(4, 4, dtype=torch.bool).tril()
    mask_44[1] = False  # query 1 may see nothing
    for name, mask_any, expected in (
        ("masked_fill(mask, -inf)", ~mask_44, "NaN"),
        ("SDPA", mask_44, "zeros"),
        ("FlexAttention", mask_44, "zeros"),
        ("masked_softmax of this guide", mask_44, "zeros"),
    ):
        row(name, blind(takes[name](mask_any)), expected)
    lowest_44 = torch.zeros(4, 4).masked_fill(~mask_44, lowest)
    row("SDPA, float, finfo.min", blind(sdpa(*qkv_any, lowest_44)), "uniform")
    given["attention_mask"] = torch.tensor([[0, 0, 1, 1]])  # query 1 sees padding only
    many_any = [one_any.expand(1, 2, 4, 4) for one_any in qkv_any]
    many_any[0] = q_114K.expand(1, 8, 4, 4)
    for name, forward, expected in (
        ("eager", modeling_llama.eager_attention_forward, "uniform"),
        ("sdpa", sdpa_attention_forward, "zeros"),
    ):
        config._attn_implementation = name
        mask_1144 = create_causal_mask(config, x_14D, cache=None, **given)
        out_14H4, _ = forward(llama_attention, *many_any, mask_1144, scaling=1.0)
        row(f"transformers, {name}", blind(out_14H4.transpose(1, 2)), expected)
    # --8<-- [end:masked-rows]

    # --8<-- [start:fast-path]
    device = torch.get_default_device()
    torch.set_default_device(None)  # a default device switches the fast path off
    mha.eval()
    for name, weights, fast, expected in (
        ("nn.MultiheadAttention", True, True, "NaN"),
        ("need_weights=False", False, False, "zeros"),
        ("need_weights=False, fast path", False, True, "NaN"),
    ):
        torch.backends.mha.set_fastpath_enabled(fast)
        asked = {"attn_mask": ~mask_44, "need_weights": weights}
        with torch.no_grad():
            row(name, blind(mha(x_14D, x_14D, x_14D, **asked)[0]), expected)
    torch.backends.mha.set_fastpath_enabled(True)
    torch.set_default_device(device)
    # --8<-- [end:fast-path]

    # --8<-- [start:batch-size]
    for name, f, x_any in (
        ("nn.Linear", nn.Linear(256, 256), torch.randn(8, 1, 256)),
        ("SDPA", itself(sdpa), x_BHTK),
    ):
        alone_any, among_any = f(x_any[:1]), f(x_any)[:1]
        torch.testing.assert_close(among_any, alone_any)  # as its dtype rounds
        print(f"{name} differs by {(among_any - alone_any).abs().max():.1e}")
    row("F.softmax without dim mixes axis", mixed_axes(F.softmax, x_BTD), [0])
    # --8<-- [end:batch-size]
