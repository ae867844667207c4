"""The questions, the reader that may see them or not, the measures, the retrieval."""

import json
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from snippets.applications import question_answering as page
from snippets.applications.blocks import equal_weights
from snippets.applications.encoder import Encoder, batch_of, load_minilm
from snippets.applications.package_data import package_file
from snippets.applications.question_answering import (
    Question,
    Reader,
    exact,
    f1,
    f1_of_each,
    interval,
    locate,
    looks,
    normalized,
    overlap_answer,
    prepare,
    read,
    read_questions,
    split_questions,
    train,
    visible,
)
from snippets.properties.error_budget import error_budget, largest_error


@pytest.fixture(scope="module")
def questions():
    """Return all questions, read once."""
    return read_questions()


@pytest.fixture(scope="module")
def minilm():
    """Return the encoder and its tokenizer, read once."""
    return load_minilm()


@pytest.fixture
def few(questions):
    """Return three questions of different lengths."""
    return questions[:3]


def reader(minilm, blind=False):
    """Return a reader whose head is not zero."""
    model = Reader(minilm[0], blind).eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def squeezed(text):
    return "".join(text.split())


# ---- the data ----


@given(st.text("ab .,", max_size=12), st.text("ab .,", max_size=4))
@example("8 , 000 men", "8,000")
def test_locate_finds_the_answer_whatever_the_spaces(passage, answer):
    """What it cuts out is the answer, and it finds one wherever one is."""
    place = locate(answer, passage)
    if squeezed(answer) and squeezed(answer) in squeezed(passage):
        start, end = place
        assert squeezed(passage[start:end]) == squeezed(answer)
        assert passage[start:end] == passage[start:end].strip()
        before = squeezed(passage[: end - 1])
        assert squeezed(answer) not in before, "a first one stands before it"
    else:
        assert place is None


def test_every_question_with_an_answer_is_kept(questions):
    """Of 1,000 rows 245 have no answer; the other 755 are all found."""
    path = package_file(
        page.QUESTIONS_PACKAGE, "DisflQA/test.jsonl", page.QUESTIONS_DIGEST
    )
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    answered = [row for row in rows if row["answer"] != "unknown"]
    assert (len(rows), len(answered), len(questions)) == (1000, 755, 755)
    for row, question in zip(answered, questions, strict=True):
        assert (question.text, question.passage) == (row["question"], row["passage"])
        assert squeezed(question.answer) == squeezed(row["answer"])


def test_excerpts_are_64_words_of_the_passage_around_the_answer(questions):
    """No shorter than 64 words unless the passage is, and the answer is anywhere."""
    places = []
    for question in questions:
        length = len(question.excerpt.split())
        assert question.excerpt in question.passage
        assert length == min(64, len(question.passage.split()))
        places.append(question.start / len(question.excerpt))
    assert read_questions() == questions
    assert read_questions(seed=1) != questions
    quarters = Counter(int(4 * place) for place in places)
    assert min(quarters[n] for n in range(4)) > 100


def test_split_keeps_passages_together(questions):
    """No passage is on two sides, and no question is lost."""
    parts = split_questions(questions, [120, 80])
    passages = [{q.passage for q in part} for part in parts]
    assert [len(p) for p in passages] == [120, 80, 392]
    assert not passages[0] & passages[1]
    assert not passages[2] & (passages[0] | passages[1])
    assert Counter(q for part in parts for q in part) == Counter(questions)


def test_no_two_passages_are_nearly_equal(questions):
    """No passage shares half of its three-word runs with another."""
    runs = []
    for passage in sorted({q.passage for q in questions}):
        words = passage.lower().split()
        runs.append(set(zip(words, words[1:], words[2:], strict=False)))
    owners = Counter(run for part in runs for run in part)
    for part in runs:
        assert sum(owners[run] > 1 for run in part) < 0.5 * len(part)


# ---- the measures ----


def squad_normalized(text):
    """Normalize as SQuAD's rules say, with regular expressions."""
    text = re.sub(r"[!-/:-@\[-`{-~]", "", text.lower())
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


TEXT = st.text("aAn theTHE.,-0 b", max_size=20)


@given(TEXT, TEXT)
@example("The 8 , 000 men", "8 , 000 of a hill")
@example("", "the")
def test_f1_equals_an_independent_one(guess, answer):
    """Counted one word at a time."""
    ours, theirs = squad_normalized(guess).split(), squad_normalized(answer).split()
    assert normalized(guess) == ours
    left, common = list(theirs), 0
    for word in ours:
        if word in left:
            left.remove(word)
            common += 1
    if not ours or not theirs:
        expected = float(ours == theirs)
    elif common == 0:
        expected = 0.0
    else:
        precision, recall = common / len(ours), common / len(theirs)
        expected = 2 * precision * recall / (precision + recall)
    assert f1(guess, answer) == pytest.approx(expected)


def test_exact_and_f1_over_questions():
    """Articles and case do not count; a wrong answer gets nothing."""
    asked = [
        Question("?", "in the year 1901 .", 3, 16, ""),
        Question("?", "red", 0, 3, ""),
    ]
    assert asked[0].answer == "the year 1901"
    assert exact(["Year 1901", "blue"], asked) == 0.5
    assert f1_of_each(["1901", "blue"], asked).tolist() == pytest.approx([2 / 3, 0])
    with pytest.raises(ValueError, match="longer"):
        exact(["1901"], asked)


def test_interval_holds_the_mean_and_narrows():
    """The interval covers the mean, is a point for equal values, narrows with more."""
    value_N = torch.rand(100)
    low, high = interval(value_N)
    assert low < value_N.mean() < high
    wide = interval(value_N[:10])
    assert high - low < wide[1] - wide[0]
    expected = 2 * 1.96 * value_N.std() / 10
    assert high - low == pytest.approx(expected.item(), rel=0.2)
    assert interval(torch.ones(5)) == (1, 1)


def test_overlap_answers_from_the_closest_sentence():
    """New words of the sentence that shares most with the question."""
    excerpt = "Cats eat big fish . The fast dog chased Lord Byron in Rome . It rains ."
    vectorizer = TfidfVectorizer().fit([excerpt, "dogs run"])
    question = Question("Who did the dog chase , chased ?", excerpt, 0, 4, "")
    assert overlap_answer(vectorizer, question) == "Lord Byron"
    question = Question("What do cats eat ?", excerpt, 0, 4, "")
    assert overlap_answer(vectorizer, question) == "big fish"


# ---- the reader ----


def test_visible_masks():
    """Padding is hidden from all; the blind see their own text only."""
    keep_BT = torch.tensor([[1, 1, 1, 0]]).bool()
    kind_BT = torch.tensor([[0, 1, 1, 0]])
    assert visible(keep_BT, kind_BT, False)[0].tolist() == 4 * [[1, 1, 1, 0]]
    blind_BTT = visible(keep_BT, kind_BT, True)
    assert blind_BTT[0, :3].tolist() == [[1, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0]]


def test_prepared_spans_hold_the_answers(questions, minilm):
    """First and last token cover the answer, in the excerpt, in the order given."""
    for blind in (False, True):
        items = prepare(questions[:12], *minilm, blind)
        for item, question in zip(items, questions, strict=False):
            start, end = item.span_2.tolist()
            cut = question.excerpt[item.offsets[start][0] : item.offsets[end][1]]
            assert question.answer in cut
            assert len(cut) <= len(question.answer) + 4
            assert item.answer_T[start : end + 1].all()
            assert not item.answer_T[item.kind_T == 0].any()
            assert not item.answer_T[-1], "the last token is [SEP]"
            assert len(item.x_TD) == len(item.kind_T) == len(item.offsets)


def test_layers_equal_the_encoder(few, minilm):
    """Lower and upper layers together are the whole encoder, so nothing is lost."""
    encoder, tokenizer = minilm
    items = prepare(few, encoder, tokenizer, blind=False)
    model = reader(minilm)
    with torch.no_grad():
        score_BT2 = model(items)
        for row, question in enumerate(few):
            batch = batch_of(tokenizer, [(question.text, question.excerpt)])
            expected = model.head(encoder(*batch))[0]
            length = len(items[row].x_TD)
            held = items[row].answer_T
            found = score_BT2[row, :length]
            assert torch.allclose(found[held], expected[held], atol=1e-3)
            assert found[~held].isneginf().all()
            assert score_BT2[row, length:].isneginf().all()


@pytest.mark.parametrize("blind", [False, True])
def test_padding_changes_nothing(few, minilm, blind):
    """A question in a padded batch is scored as it is alone."""
    items = prepare(few, *minilm, blind)
    model = reader(minilm, blind)
    with torch.no_grad():
        batch = model(items)
        alone = [model([item])[0] for item in items]
        model.double()
        for row, item in enumerate(items):
            exact_T2 = model([replace(item, x_TD=item.x_TD.double())])[0]
            held = item.answer_T
            error = largest_error(batch[row, : len(held)][held], exact_T2[held])
            assert error <= error_budget(alone[row][held], exact_T2[held], factor=2)


@pytest.mark.parametrize("blind", [False, True])
def test_only_the_seeing_reader_depends_on_the_question(few, minilm, blind):
    """Another question of the same length changes the scores, unless blind."""
    question = few[0]
    other = question._replace(text=question.text.replace("part", "north"))
    assert other.text != question.text
    model = reader(minilm, blind)
    with torch.no_grad():
        scores = [model(prepare([q], *minilm, blind)) for q in (question, other)]
    assert scores[0].shape == scores[1].shape
    assert torch.equal(*scores) is blind


def test_both_readers_train_the_same_parts(few, minilm):
    """Equal parameters, equal beginnings, and a step moves all of them but to_k.bias."""
    shapes, starts = [], []
    for blind in (False, True):
        torch.manual_seed(0)
        model = Reader(minilm[0], blind)
        before = {name: part.clone() for name, part in model.named_parameters()}
        shapes.append({name: part.shape for name, part in before.items()})
        starts.append(torch.cat([part.flatten() for part in before.values()]))
        train(model, prepare(few[:1], *minilm, blind), steps=2)
        for name, part in model.named_parameters():
            # One number added to all scores of a row leaves its weights alone.
            assert not torch.equal(part, before[name]) or "to_k.bias" in name, name
    assert shapes[0] == shapes[1]
    assert torch.equal(*starts)
    assert len(model.layers) == page.TRAINED


def test_training_leaves_the_encoder_alone(few, minilm):
    """The layers are copies: a second reader starts where the first did."""
    encoder = minilm[0]
    before = encoder.layers[-1].mix.to_q.weight.clone()
    train(Reader(encoder, False), prepare(few[:1], *minilm, False), steps=1)
    assert torch.equal(encoder.layers[-1].mix.to_q.weight, before)


def test_loss_goes_down(few, minilm):
    """A dozen steps learn two questions by heart."""
    items = prepare(few[:2], *minilm, False)
    model = Reader(minilm[0], False)
    losses = train(model, items, steps=14)
    assert len(losses) == 14
    assert sum(losses[-3:]) < 0.5 * sum(losses[:3])
    assert exact(read(model.eval(), items, few[:2]), few[:2]) >= 0.5


def test_training_visits_every_item(few, minilm, monkeypatch):
    """One pass shows each item once before any comes again."""
    items = prepare(few, *minilm, False)
    model, shown = Reader(minilm[0], False), []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda batch: shown.extend(map(id, batch)) or forward(batch)
    )
    train(model, items, steps=2, size=2)
    assert Counter(shown) == Counter(map(id, items))


def test_read_equals_a_naive_search(few, minilm):
    """The best of all spans of 15 tokens at most, tried one by one."""
    items = prepare(few, *minilm, False)
    model = reader(minilm)
    found = read(model, items, few)
    with torch.no_grad():
        for guess, item, question in zip(found, items, few, strict=True):
            score = model([item])[0].tolist()
            places = item.answer_T.nonzero().flatten().tolist()
            _, start, end = max(
                (score[a][0] + score[b][1], a, b)
                for a in places
                for b in places
                if a <= b < a + 15
            )
            offsets = item.offsets
            assert guess == question.excerpt[offsets[start][0] : offsets[end][1]]


def test_equal_weights_change_the_scores(few, minilm):
    """Attention is used: even weights in its place give other scores."""
    items = prepare(few, *minilm, False)
    model = reader(minilm)
    with torch.no_grad():
        learned, equal = model(items), equal_weights(model, "to_q")(items)
    held = learned.isfinite()
    assert (learned[held] - equal[held]).abs().max() > 0.1


def test_looks_are_rows_of_weights(few, minilm):
    """Each row sums to one; the blind one puts nothing on the question."""
    for blind in (False, True):
        (item,) = prepare(few[:1], *minilm, blind)
        look_LT = looks(reader(minilm, blind), item)
        assert look_LT.shape == (page.TRAINED, len(item.kind_T))
        assert torch.allclose(look_LT.sum(1), torch.ones(page.TRAINED))
        assert (look_LT[:, item.kind_T == 0] == 0).all() == blind


def test_encoder_too_shallow_has_no_lower_layers(few, minilm):
    """With as many layers as are trained, the states are the embeddings."""
    encoder = Encoder(30522, page.TRAINED, 2, 8)
    items = prepare(few[:1], encoder, minilm[1], blind=False)
    token_BT, _, kind_BT = batch_of(minilm[1], [(few[0].text, few[0].excerpt)])
    T = token_BT.shape[1]
    x = encoder.word(token_BT) + encoder.position.weight[:T] + encoder.kind(kind_BT)
    assert torch.allclose(items[0].x_TD, encoder.norm(x)[0])
