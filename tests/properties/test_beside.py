"""Time and memory of an attempt beside the reference's."""

import base64
import re
import zlib

from snippets.properties.beside import beside, unpack

CODE = "import torch\ndef f(x):\n    return x + 1\n"
PACKED = base64.b85encode(zlib.compress(CODE.encode())).decode()


def workload(attempt):
    """Return a call on a tensor of one MiB."""
    import torch

    x = torch.ones(2**18)
    return lambda: attempt.f(x)


def test_packed_code_is_code():
    assert unpack(PACKED).f(1) == 2


def test_packed_code_has_annotations_of_its_own():
    """The kit's postponed annotations do not reach the reference: dataclasses work."""
    code = "class A:\n    x: int = 1\n"
    packed = base64.b85encode(zlib.compress(code.encode())).decode()
    assert unpack(packed).A.__annotations__ == {"x": int}


def test_ratios_of_time_and_memory():
    attempt = {"f": lambda x: (x + 1, x + 2, x + 3)}
    said = beside(attempt, PACKED, workload, "en")
    assert re.fullmatch(
        r"yours [\d.]+ ms and 3\.00 MiB, the reference [\d.]+ ms and 1\.00 MiB: "
        r"[\d.]+ times its time, 3\.0 times its memory",
        said,
    )
    said = beside(attempt, PACKED, workload, "zh")
    assert re.fullmatch(
        r"你的代码 [\d.]+ 毫秒、3\.00 MiB，参考实现 [\d.]+ 毫秒、1\.00 MiB："
        r"时间是它的 [\d.]+ 倍，内存是它的 3\.0 倍",
        said,
    )


def test_what_raises_is_told():
    def blank(x):
        raise NotImplementedError

    assert beside({"f": blank}, PACKED, workload, "en") == (
        "nothing to measure yet: NotImplementedError"
    )
    assert beside({}, PACKED, workload, "zh").startswith("还没有可以测量的: Attribute")
