"""Which backend of SDPA runs, and how to tell."""


def test_a_cpu_takes_flash_until_the_input_forbids_it(evidence):
    ran = evidence.names["ran"]
    assert {name for name, backend in ran.items() if backend == "math"} == {
        "learned mask",
        "dropout",
        "V ≠ K",
    }
    assert set(ran.values()) == {"flash", "math"}


def test_the_forced_backend_is_the_one_that_runs(evidence):
    assert evidence.names["forced"] == {"MATH": "math", "FLASH_ATTENTION": "flash"}


def test_falling_back_is_silent_and_forcing_says_why(evidence):
    assert evidence.names["silent"] == []
    assert (
        "Both fused kernels do not support non-zero dropout." in evidence.names["loud"]
    )


def test_right_numbers_do_not_show_that_a_kernel_ran(evidence):
    assert evidence.names["passed"] == {16: (True, True), 8: (True, False)}
