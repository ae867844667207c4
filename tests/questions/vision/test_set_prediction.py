"""What the page on predicting a set states."""

import pytest
import torch

from snippets.questions.vision.set_prediction import decode, train


def test_only_matching_gives_each_object_one_slot(evidence):
    assert evidence.names["found"] == {
        "list order": [0, 0],
        "nearest": [3, 3],
        "matched": [1, 1],
    }


def test_the_page_prints_what_it_quotes(evidence):
    assert "nearest   : 6 slots report" in evidence.output
    assert "they stand near ['0.50', '0.45']" in evidence.output
    assert "equal    queries: outputs differ by 0.00" in evidence.output
    assert "self-attention False: the others move by 0.00" in evidence.output


@pytest.mark.parametrize("seed", [1, 2])
def test_matching_finds_both_objects_from_other_starts(seed):
    torch.manual_seed(seed)
    place_T2, sure_T = train("matched", slots=4)
    object_S2 = torch.tensor([[0.2, 0.2], [0.8, 0.7]])
    off_ST = torch.cdist(object_S2, place_T2[sure_T > 0.5])
    assert (off_ST < 0.05).sum(1).tolist() == [1, 1]


def test_queries_are_told_apart_by_nothing_but_themselves():
    query_TK, map_SK = torch.randn(4, 8), torch.randn(9, 8)
    order_T = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(
        decode(query_TK[order_T], map_SK), decode(query_TK, map_SK)[order_T]
    )


def test_without_self_attention_queries_do_not_hear_of_each_other(evidence):
    assert "self-attention True : the others move by 0.00" not in evidence.output
    query_TK, map_SK = torch.randn(4, 8), torch.randn(9, 8)
    alone_TK = torch.cat(
        [decode(query_1K, map_SK, talk=False) for query_1K in query_TK.split(1)]
    )
    torch.testing.assert_close(decode(query_TK, map_SK, talk=False), alone_TK)
