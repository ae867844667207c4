"""Documents in one row: the mask and the test for leaks."""


def test_packed_equals_separate_only_with_the_document_mask(evidence):
    """The causal mask alone gives another output."""
    error = evidence.names["error"]
    assert error["causal and document"] < 1e-6
    assert error["causal only"] > 0.1


def test_no_gradient_crosses_a_document(evidence):
    """Not in one layer and not in three."""
    leaks = evidence.names["leaks"]
    assert leaks["causal and document", 1] == leaks["causal and document", 3] == 0
    assert leaks["causal", 1] == leaks["causal", 3] == 3 * 1 + 4 * 4


def test_each_output_depends_on_all_that_it_may_see(evidence):
    """A mask that hides too much would fail, too."""
    names = evidence.names
    assert names["reach_88"].equal(names["past_88"] & names["same_88"])


def test_a_window_leaks_further_with_each_layer(evidence):
    """Two boundaries in one layer; three layers reach three back."""
    leaks = evidence.names["leaks"]
    assert leaks["causal and window of 2", 1] == 2
    assert leaks["causal and window of 2", 3] == 9


def test_or_shows_everything_to_the_last_document(evidence):
    """Joined by "or", the masks of 8 tokens let 4 queries see all."""
    assert "[3, 3, 3, 4, 8, 8, 8, 8]" in evidence.output
