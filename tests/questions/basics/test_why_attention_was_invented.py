"""The bottleneck of one vector, in dimensions and in distance."""


def test_one_vector_passes_its_own_size_and_no_more(evidence):
    """However long the sentence; attention passes about all of it."""
    rank = evidence.names["rank"]
    assert [rank[False, S] for S in (1, 2, 4, 8)] == [4, 4, 4, 4]
    assert [rank[True, S] for S in (1, 2, 4)] == [4, 8, 16]
    assert 28 <= rank[True, 8] <= 32


def test_the_first_word_fades_with_the_length(evidence):
    """In the last state of an untrained encoder."""
    trace = evidence.names["trace"]
    assert trace[2] > trace[4] > trace[8] > trace[16] > trace[32]
    assert 1e-4 < trace[16] < 2e-3
