from tests.running import run_main


def test_the_demonstration_prints_what_the_page_quotes():
    assert "(4, 8)" in run_main("snippets.questions.types.sigmoid_or_softmax").output
