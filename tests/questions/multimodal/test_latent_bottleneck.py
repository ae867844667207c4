"""What the page on latents states."""


def test_counts_of_the_published_model(evidence):
    names = evidence.names
    assert names["cross"] == 205_520_896
    assert names["latent"] == 12_582_912
    assert names["full"] == 120_846_286_848
    assert "554 times as many" in evidence.output


def test_reading_by_latents_is_linear_in_the_inputs(evidence):
    counted = evidence.names["counted"]
    for length in (256, 512):
        few, all_of_them = counted[length]
        assert counted[2 * length] == [2 * few, 4 * all_of_them]
    assert counted[256][1] == 16 * counted[256][0]


def test_no_more_than_the_latents_comes_back(evidence):
    assert evidence.names["rank"] == {"no latents": 32, 1: 1, 4: 4, 16: 16, 64: 32}


def test_latents_read_a_set(evidence):
    moved = evidence.names["moved"]
    assert moved["bare"] < 1e-12
    assert moved["with places"] > 0.01
