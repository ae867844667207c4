"""What the page on attention along rows and columns states."""

import pytest

from snippets.questions.vision.rows_and_columns import visible


@pytest.mark.parametrize(
    "line",
    [
        " 64x64   16,777,216    524,288      520,192      32.0",
        "one layer, rows: [10] of 60",
        "one layer, criss-cross: [15] of 60",
        "rows, then rows: sees [10], ways to the far corner 0",
        "rows, then columns: sees [60], ways to the far corner 1",
        "criss-cross, then criss-cross: sees [60], ways to the far corner 2",
        "rows as batch: 600 scores, as a mask: 3600",
    ],
)
def test_the_page_prints_what_it_quotes(evidence, line):
    assert line in evidence.output


@pytest.mark.parametrize(("height", "width"), [(1, 5), (4, 4), (3, 7)])
def test_two_layers_reach_all_and_one_does_not(height, width):
    may = visible(height, width)
    row_PP, column_PP = may["rows"].float(), may["columns"].float()
    assert ((column_PP @ row_PP) == 1).all()  # by exactly one way
    assert may["criss-cross"].sum(1).unique().tolist() == [height + width - 1]
    assert may["criss-cross"].all() == (min(height, width) == 1)


def test_only_axial_ties_the_queries_of_a_column(evidence):
    spread = evidence.names["spread"]
    assert spread["axial"] == pytest.approx(1, abs=1e-9)
    assert spread["full"] > 2
