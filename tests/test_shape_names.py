"""The watcher of names catches what it promises to (CODE-1)."""

import importlib.util
from functools import partial

import pytest
import torch

from tests import running
from tests.shape_names import ShapeNames, lies_of


def test_true_names_pass():
    q_BT, row_1T = torch.ones(2, 3), torch.ones(1, 3)
    assert lies_of({"q_BT": q_BT, "row_1T": row_1T, "T": 3, "loss": q_BT.sum()}) == []


def test_a_name_may_say_any_shape():
    assert lies_of({"result_any": torch.ones(2, 3)}) == []


def test_too_few_axes():
    assert "not 3 axes" in lies_of({"q_BTK": torch.ones(2, 3)})[0]


def test_one_letter_with_two_sizes():
    (lie,) = lies_of({"q_BT": torch.ones(2, 3), "k_BT": torch.ones(2, 4)})
    assert "T is 3" in lie


def test_a_letter_that_is_a_number():
    (lie,) = lies_of({"T": 5, "q_BT": torch.ones(2, 3)})
    assert "T is 5" in lie


def test_a_digit_of_another_size():
    (lie,) = lies_of({"q_B1": torch.ones(2, 3)})
    assert "1 is 1" in lie


def test_no_suffix_at_all():
    (lie,) = lies_of({"scores": torch.ones(2, 3)})
    assert "no suffix" in lie


def test_tensors_in_a_list_are_seen():
    (lie,) = lies_of({"parts_BT": [torch.ones(2, 3), torch.ones(2)]})
    assert "not 2 axes" in lie


def test_functions_of_the_folder_are_watched_and_others_are_not(tmp_path):
    for folder, seen in (("inside", True), ("outside", False)):
        path = tmp_path / folder / "module.py"
        path.parent.mkdir()
        path.write_text("def f(x_BTK):\n    return x_BTK\n")
        spec = importlib.util.spec_from_file_location(folder, path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with ShapeNames(str(tmp_path / "inside")) as watch:
            module.f(torch.ones(2, 3))
        assert bool(watch.lies) == seen


def test_a_call_that_raises_is_let_pass(tmp_path):
    path = tmp_path / "module.py"
    path.write_text("def f(x_BTK):\n    raise ValueError(x_BTK.shape)\n")
    spec = importlib.util.spec_from_file_location("module", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with ShapeNames(str(tmp_path)) as watch, pytest.raises(ValueError, match="2, 3"):
        module.f(torch.ones(2, 3))
    assert watch.lies == []


def test_exhibits_of_the_seed_keep_their_names(tmp_path):
    path = tmp_path / "program_seed.py"
    path.write_text("def f(hidden):\n    return hidden\n")
    spec = importlib.util.spec_from_file_location("program_seed", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with ShapeNames(str(tmp_path)) as watch:
        module.f(torch.ones(2, 3))
    assert watch.lies == []


MARK = "--8" + "<--"  # in one piece it would make sections of this file
SECTIONS = """\
import torch
if __name__ == "__main__":
    # {mark} [start:one]
    T = 2
    a_T = torch.ones(T)
    # {mark} [end:one]
    # {mark} [start:two]
    b_T = torch.ones(3)
    c_T = torch.ones({size})
    # {mark} [end:two]
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A function that runs a file as `run_main` runs snippets."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(running, "ShapeNames", partial(ShapeNames, str(tmp_path)))

    def ran(name: str, text: str):
        (tmp_path / f"{name}.py").write_text(text)
        return running.run_main(name)

    return ran


def test_each_section_of_a_main_block_has_its_own_sizes(run):
    assert run("right_sections", SECTIONS.format(mark=MARK, size=3)).names[
        "b_T"
    ].shape == (3,)


def test_a_main_block_that_lies_is_told_without_the_fixture_of_a_test(run):
    with pytest.raises(AssertionError, match=r"`c_T` has shape \(4,\), but T is 3"):
        run("wrong_sections", SECTIONS.format(mark=MARK, size=4))
