"""Speech, the spoiled triples, masks that hide everything behind them, the race."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score

from snippets.applications import three_modalities as page
from snippets.applications.digits import read_digits
from snippets.applications.three_modalities import (
    LETTERS,
    WORDS,
    AttentionFusion,
    Draw,
    Dropping,
    PooledFusion,
    Speaker,
    band_powers,
    clear,
    hide,
    right,
    shares,
    speak,
    spell,
    train,
)
from snippets.properties.error_budget import error_budget, largest_error

FUSIONS = {
    "attention": lambda: AttentionFusion(16, 40),
    "means": lambda: PooledFusion(16, 40, 30),
}


@pytest.fixture(scope="module")
def draw():
    image_NXY, label_N = read_digits()
    return Draw((image_NXY[:200], label_N[:200]), speak(["m1"], [150], [50]))


@pytest.fixture
def triples(draw):
    torch.manual_seed(3)
    return draw(12)


# ---- speech ----


def test_words_sound_different_and_last_long_enough():
    """Each digit in both languages gives its own samples, 0.1 to 1 second."""
    speaker = Speaker()
    spoken = [
        speaker.say(word, voice, 150, 50)
        for voice, words in zip(("cmn", "en-us"), WORDS, strict=True)
        for word in words
    ]
    assert speaker.rate == 22050
    assert all(2205 < len(wave_T) < 22050 for wave_T in spoken)
    assert all(0.05 < wave_T.abs().max() <= 1 for wave_T in spoken)
    assert len({wave_T.numpy().tobytes() for wave_T in spoken}) == 20


def test_voice_speed_and_pitch_matter():
    """Another voice, a slower or a higher one gives other samples."""
    speaker = Speaker()
    one_T = speaker.say("seven", "en-us+m1", 150, 50)
    assert len(speaker.say("seven", "en-us+m1", 100, 50)) > 1.2 * len(one_T)
    for voice, pitch in (("en-us+f4", 50), ("en-us+m1", 90)):
        other_T = speaker.say("seven", voice, 150, pitch)
        assert len(other_T) != len(one_T) or not other_T.equal(one_T)


def test_an_unknown_voice_is_refused():
    with pytest.raises(ValueError, match="voice is xx-none, which eSpeak NG"):
        Speaker().say("seven", "xx-none", 150, 50)


def test_two_speakers_do_not_take_each_others_samples():
    """The library has one callback; each call sets its own."""
    first, second = Speaker(), Speaker()
    assert len(first.say("七", "cmn", 150, 50)) > 2000
    assert len(second.say("七", "cmn", 150, 50)) > 2000


def test_library_of_another_digest_is_refused(monkeypatch):
    monkeypatch.setattr(page, "SPEECH_DIGEST", "0" * 64)
    with pytest.raises(ValueError, match=r"libespeak-ng\.so of espeakng-loader has"):
        Speaker()


def test_band_powers_equal_numpy():
    """Frame by frame with numpy's transform, padded by reflection."""
    wave_T = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    padded = np.pad(wave_T.double().numpy(), 512, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(1024) / 1024)
    rows = []
    for start in range(0, len(padded) - 1023, 768):
        power = np.abs(np.fft.rfft(padded[start : start + 1024] * window)) ** 2
        rows.append([power[1 + 12 * b : 13 + 12 * b].mean() for b in range(32)])
    expected = torch.tensor(np.array(rows))
    found = band_powers(wave_T)
    assert found.shape == (len(rows), 32)
    assert torch.allclose(found.double(), expected / expected.mean(), rtol=1e-4)
    assert found.mean().item() == pytest.approx(1, abs=1e-5)


def test_speech_table_holds_every_way_and_its_length():
    """10 digits, 2 languages × 1 voice × 2 speeds; zeros only after the last frame."""
    power_any, size_any = speak(["m1"], [130, 200], [50])
    assert size_any.shape == (10, 4)
    assert power_any.shape == (10, 4, size_any.max(), 32)
    for digit in range(10):
        for way in range(4):
            size = size_any[digit, way]
            assert power_any[digit, way, :size].mean().item() == pytest.approx(1)
            assert (power_any[digit, way, size:] == 0).all()


# ---- words and triples ----


def test_spelling_can_be_read_back():
    words_any = spell()
    back = [
        ["".join(LETTERS[n - 1] for n in row if n) for row in rows]
        for rows in words_any.tolist()
    ]
    assert back == [list(WORDS[0]), WORDS[1]]


def test_without_noise_all_three_are_the_digit(draw, monkeypatch):
    """With every random number 0 the patches, letters and frames are those stored."""
    monkeypatch.setattr(torch, "rand", lambda *size: torch.zeros(size))
    (patch_BPD, letter_B5, sound_BSR), masks, noise_B3, label_B = draw(20)
    assert (noise_B3 == 0).all()
    assert masks[0].all()
    stored = {
        image_XY.numpy().tobytes(): label
        for image_XY, label in zip(draw.image_NXY, draw.label_N.tolist(), strict=True)
    }
    for b, label in enumerate(label_B.tolist()):
        patch_44XY = patch_BPD[b].unflatten(1, (7, 7)).unflatten(0, (4, 4))
        image_XY = patch_44XY.transpose(1, 2).flatten(2).flatten(0, 1)
        assert stored[image_XY.contiguous().numpy().tobytes()] == label
        word = "".join(LETTERS[n - 1] for n in letter_B5[b][masks[1][b]].tolist())
        assert word in (WORDS[0][label], WORDS[1][label])
        size = masks[2][b].sum()
        assert masks[2][b, :size].all()
        power_any = (3 * sound_BSR[b, :size]).exp()
        gaps = [
            (power_any[:, :] - draw.power_any[label, way, :size]).abs().max()
            for way in range(2)
            if draw.size_any[label, way] == size
        ]
        assert min(gaps) < 0.3


def test_full_noise_erases_picture_and_word(draw, monkeypatch):
    """With noise 1 no pixel is left and every letter is drawn anew."""
    real = torch.rand
    monkeypatch.setattr(
        torch, "rand", lambda *size: torch.ones(size) if size[1] == 3 else real(*size)
    )
    (patch_BPD, letter_B5, _), masks, _, label_B = draw(50)
    assert (patch_BPD == 0).all()
    assert ((letter_B5 > 0) == masks[1]).all()
    kept = [
        "".join(LETTERS[n - 1] for n in row[seen].tolist()) in {w[d] for w in WORDS}
        for row, seen, d in zip(letter_B5, masks[1], label_B.tolist(), strict=True)
    ]
    assert sum(kept) < 10


# ---- masks ----


def test_what_is_hidden_changes_nothing():
    """NaN in a hidden modality changes neither scores nor gradients; none is finite."""
    for make in (lambda: AttentionFusion(16, 9), lambda: PooledFusion(16, 9, 20)):
        torch.manual_seed(0)
        model = make()
        streams = [torch.randn(8, 16, 49), torch.randint(1, 9, (8, 5))]
        streams.append(torch.randn(8, 9, 32))
        masks = [torch.ones(x.shape[:2], dtype=torch.bool) for x in streams]
        keep_B3 = torch.cartesian_prod(*[torch.tensor([False, True])] * 3)
        masks, results = hide(masks, keep_B3), []
        for poison in (0.0, float("nan")):
            streams[0][~masks[0]] = streams[2][~masks[2]] = poison
            streams[1][~masks[1]] = 0 if poison == 0 else 10**6
            model.zero_grad()
            logit_BN = model(streams, masks)
            logit_BN.square().sum().backward()
            grads = [part.grad.clone() for part in model.parameters()]
            results.append([logit_BN.detach(), *grads])
        assert all(one.equal(two) for one, two in zip(*results, strict=True))
        assert all(one.isfinite().all() for one in results[0])
        print(type(model).__name__, [round(x, 2) for x in logit_BN[0].tolist()[:3]])


@given(size=st.integers(1, 8), extra=st.integers(0, 5))
@settings(max_examples=20)
@pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)
def test_more_padding_changes_nothing(make, size, extra):
    """However many frames and letters are padded, the scores stay."""
    torch.manual_seed(size)
    model = make().double()
    letter_B5 = torch.randint(1, 9, (2, 5)) * (torch.arange(5) < 3)
    sound_BSR = torch.randn(2, size, 32).double()
    patch_BPD = torch.randn(2, 16, 49).double()
    logits = []
    for more in (0, extra):
        padded_BSR = torch.nn.functional.pad(sound_BSR, (0, 0, 0, more), value=7.0)
        heard_BS = (torch.arange(size + more) < size).expand(2, -1)
        streams = patch_BPD, letter_B5[:, : 3 + min(more, 2)], padded_BSR
        masks = torch.ones(2, 16, dtype=torch.bool), streams[1] > 0, heard_BS
        logits.append(model(streams, masks))
    assert largest_error(logits[1], logits[0]) <= error_budget(
        logits[0].float(), logits[0]
    )


@pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)
def test_with_nothing_there_every_row_gets_one_answer(make, triples):
    """All three hidden: finite, and the same whatever stood there."""
    streams, masks, _, label_B = triples
    gone_B3 = torch.zeros(len(label_B), 3, dtype=torch.bool)
    logit_BN = make()(streams, hide(masks, gone_B3))
    assert logit_BN.isfinite().all()
    assert torch.allclose(logit_BN, logit_BN[:1].expand_as(logit_BN))


def test_clear_leaves_what_is_shown(triples):
    streams, masks, *_ = triples
    for stream_any, cleared_any, mask_BS in zip(
        streams, clear(streams, masks), masks, strict=True
    ):
        assert cleared_any[mask_BS].equal(stream_any[mask_BS])
        assert (cleared_any[~mask_BS] == 0).all()


# ---- the models ----


@pytest.mark.parametrize("make", FUSIONS.values(), ids=FUSIONS)
@pytest.mark.parametrize("n", range(3))
def test_every_modality_reaches_the_scores(make, n, triples):
    """Hiding any one of the three changes the scores."""
    streams, masks, _, label_B = triples
    keep_B3 = torch.ones(len(label_B), 3, dtype=torch.bool)
    keep_B3[:, n] = False
    model = make()
    change = model(streams, masks) - model(streams, hide(masks, keep_B3))
    assert (change.abs().max(1).values > 1e-5).all()


def test_attention_is_used(triples):
    """Equal weights in place of the learned ones change the scores."""
    model = AttentionFusion(16, 40)
    model.block.mix.to_q.weight.data.mul_(20)
    equal = copy.deepcopy(model)
    for part in equal.block.mix.to_q.parameters():
        part.data.zero_()
    assert (model(*triples[:2]) - equal(*triples[:2])).abs().max() > 1e-3


def test_places_matter(triples):
    """Patches in another order give other scores: places are told apart."""
    streams, masks, *_ = triples
    other = streams[0].flip(1), *streams[1:]
    for make in FUSIONS.values():
        model = make()
        assert (model(streams, masks) - model(other, masks)).abs().max() > 1e-4


def test_shares_are_the_summarys_weights(triples):
    """Shares and the summary's own weight sum to 1; hidden ones are 0; equal if flat."""
    streams, masks, _, label_B = triples
    keep_B3 = torch.ones(len(label_B), 3, dtype=torch.bool)
    keep_B3[0] = torch.tensor([True, False, True])
    masks = hide(masks, keep_B3)
    model = AttentionFusion(16, 40)
    share_B3 = shares(model, streams, masks)
    assert share_B3.shape == (len(label_B), 3)
    assert (share_B3.sum(1) < 1).all()
    assert share_B3[0, 1] == 0
    for part in model.block.mix.to_q.parameters():
        part.data.zero_()
    count_B3 = torch.stack([mask_BS.sum(1) for mask_BS in masks], 1)
    assert torch.allclose(
        shares(model, streams, masks), count_B3 / (1 + count_B3.sum(1, keepdim=True))
    )


def test_dropping_hides_in_training_only(triples):
    """At rate 1 everything is hidden in training, nothing in eval."""
    model = Dropping(AttentionFusion(16, 40), 1.0)
    trained = model(*triples[:2])
    assert torch.allclose(trained, trained[:1].expand_as(trained))
    model.eval()
    assert model(*triples[:2]).equal(model.fusion(*triples[:2]))


def test_dropping_hides_each_modality_at_its_rate():
    seen = []

    class Spy(torch.nn.Module):
        pace = 1e-2

        def forward(self, streams, masks):
            seen.append(torch.stack([mask_BS.any(1) for mask_BS in masks], 1))

    torch.manual_seed(0)
    masks = [torch.ones(4000, n, dtype=torch.bool) for n in (16, 5, 9)]
    Dropping(Spy(), 0.3)(None, masks)
    assert seen[0].float().mean(0).tolist() == pytest.approx([0.7] * 3, abs=0.03)
    assert seen[0].all(1).float().mean().item() == pytest.approx(0.343, abs=0.03)


def test_loss_goes_down(draw):
    """A few steps on a few digits of one voice teach something."""
    for make in FUSIONS.values():
        torch.manual_seed(0)
        losses = train(make(), draw, steps=60)
        assert len(losses) == 60
        assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_right_equals_sklearn(triples):
    streams, masks, _, label_B = triples
    model = AttentionFusion(16, 40)
    there = (True, False, True)
    keep_B3 = torch.tensor(there).expand(len(label_B), 3)
    guess = model(streams, hide(masks, keep_B3)).argmax(1)
    assert right(model, triples, there) == pytest.approx(accuracy_score(label_B, guess))


def test_contestants_are_equal_in_size():
    """48 numbers a token, 22 frames: parameters within 4 %."""
    sizes = [
        sum(part.numel() for part in model.parameters())
        for model in (AttentionFusion(48, 22), PooledFusion(48, 22, 130))
    ]
    assert max(sizes) < 1.04 * min(sizes)
