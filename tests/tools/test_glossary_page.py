"""The glossary as the dictionary of the Chinese search."""

from docs._tools import glossary_page


def test_a_term_of_one_character_does_not_cut_the_words_that_hold_it(fixture):
    fixture.edit(fixture.guide.docs / "glossary.yml", "zh: 掩码,", "zh: QK 归一化 块,")
    assert glossary_page.search_dictionary(fixture.guide) == "归一化 100000 n\n"
