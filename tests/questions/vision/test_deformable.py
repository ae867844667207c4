"""What the page on deformable attention states."""

import torch

from snippets.questions.vision.deformable import Deformable, sample


def test_offsets_learn_on_a_smooth_map_only(evidence):
    end = evidence.names["end"]
    assert end["smooth"] < 1
    assert end["one bright pixel"] == 5


def test_between_pixels_it_is_the_weighted_mean_of_four():
    map_XYD = torch.randn(5, 6, 3, dtype=torch.float64)
    place_12 = torch.tensor([[1.25, 3.5]], dtype=torch.float64)
    up_D = (map_XYD[1, 3] + map_XYD[1, 4]) / 2
    down_D = (map_XYD[2, 3] + map_XYD[2, 4]) / 2
    torch.testing.assert_close(
        sample(map_XYD, place_12)[0], 0.75 * up_D + 0.25 * down_D
    )


def test_far_pixels_have_no_influence():
    layer = Deformable(8, 2)
    q_TD, origin_T2 = torch.randn(1, 8), torch.tensor([[4.0, 4.0]])
    map_XYD = torch.randn(20, 20, 8, requires_grad=True)
    layer(q_TD, origin_T2, map_XYD).sum().backward()
    assert (map_XYD.grad != 0).any(-1).sum() <= 2 * 4


def test_weights_sum_to_one_and_do_not_see_the_map(evidence):
    sums = evidence.names["weight_TN"].sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert (evidence.names["out_TD"] - evidence.names["other_TD"]).abs().max() > 0.1
