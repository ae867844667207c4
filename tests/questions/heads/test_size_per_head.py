"""Why heads are small, and that they are."""


def test_a_head_goes_down(evidence):
    """512 components in, 64 out, and scores of rank 64."""
    names = evidence.names
    assert names["w_3HKD"].shape == (3, 8, 64, 512)
    assert names["rank"] == 64


def test_full_size_would_cost_as_many_times_as_heads(evidence):
    """Heads of D/H cost as much as one of D."""
    parameters = evidence.names["parameters"]
    assert parameters[8, 64] == parameters[1, 512] == 1_048_576
    assert parameters[8, 512] == 8 * 1_048_576


def test_some_tens_of_components_are_enough(evidence):
    """Four are not."""
    found = evidence.names["found"]
    assert found[1] < 0.05
    assert 0.05 < found[4] < 0.2
    assert found[64] > 0.99
    assert found[512] > 0.99
