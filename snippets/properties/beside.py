"""Put the time and memory of an attempt beside those of the reference."""

# --8<-- [start:beside]
import base64
import types
import zlib
from collections.abc import Callable

from torch import no_grad

# --8<-- [end:beside]
# isort: split
from snippets.properties.cost import peak_bytes, seconds


# --8<-- [start:beside-functions]
def unpack(packed: str) -> types.SimpleNamespace:
    """Return what packed code defines; packed so that nobody reads it by accident."""
    names: dict[str, object] = {"__name__": "reference"}
    code = zlib.decompress(base64.b85decode(packed)).decode()
    exec(compile(code, "<reference>", "exec", dont_inherit=True), names)
    return types.SimpleNamespace(**names)


def beside(attempt: dict, packed: str, workload: Callable, language: str) -> str:
    """Return one sentence: time and peak memory of both, and their ratios.

    Code that raises is told, not raised: there is nothing to measure yet.
    """
    reference = workload(unpack(packed))
    with no_grad():
        try:
            mine = workload(types.SimpleNamespace(**attempt))
            time, memory = seconds(mine), peak_bytes(mine)
        except Exception as error:
            said = {"en": "nothing to measure yet", "zh": "还没有可以测量的"}[language]
            return f"{said}: {type(error).__name__} {error}".rstrip()
        their_time, their_memory = seconds(reference), peak_bytes(reference)
    words = {
        "en": "yours {:.2f} ms and {:.2f} MiB, the reference {:.2f} ms and {:.2f} MiB: "
        "{:.1f} times its time, {:.1f} times its memory",
        "zh": "你的代码 {:.2f} 毫秒、{:.2f} MiB，参考实现 {:.2f} 毫秒、{:.2f} MiB："
        "时间是它的 {:.1f} 倍，内存是它的 {:.1f} 倍",
    }[language]
    ratio = (time / their_time, memory / max(their_memory, 1))
    mib = 2**20
    shown = (time * 1e3, memory / mib, their_time * 1e3, their_memory / mib)
    return words.format(*shown, *ratio)


# --8<-- [end:beside-functions]
