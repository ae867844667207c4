"""The facts that the page on caches shared by layers states."""


def test_fewer_caches_decode_as_well(evidence):
    """8 layers keep 8, 4 or 5 caches; decoding equals one pass in each case."""
    assert list(evidence.names["caches"].values()) == [8, 4, 5]
    assert evidence.names["gap"] < 1e-12


def test_only_one_cache_for_the_upper_half_exits_early(evidence):
    """Upper layers may skip the prompt in YOCO, not in CLA."""
    assert evidence.names["off"]["YOCO"] < 1e-12
    assert evidence.names["off"]["CLA"] > 0.01
    assert "80 in full, 44 with early exit" in evidence.output


def test_bytes_at_three_lengths(evidence):
    """YOCO gains with length: 68 MiB against CLA's 64 at 1024, 576 against 8192."""
    room = {
        tokens: [number / 2**20 for number in numbers]
        for tokens, numbers in evidence.names["room"].items()
    }
    assert room == {
        1024: [128, 64, 68],
        8192: [1024, 512, 96],
        131072: [16384, 8192, 576],
    }
