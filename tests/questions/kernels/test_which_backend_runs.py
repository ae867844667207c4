"""Which backend of SDPA runs; all on the CPU."""


def test_the_cpu_has_a_fused_kernel_with_conditions(evidence):
    """Flash for plain calls and masks; math as soon as one condition fails."""
    assert evidence.names["ran"] == {
        "plain": "flash",
        "is_causal": "flash",
        "float mask": "flash",
        "learned mask": "math",
        "dropout": "math",
        "V ≠ K": "math",
    }


def test_forcing_works(evidence):
    """Each backend runs when it is the only one."""
    assert evidence.names["forced"] == {"MATH": "math", "FLASH_ATTENTION": "flash"}


def test_fallback_is_silent_and_forcing_is_loud(evidence):
    """No warning at all, or the reason and an error."""
    assert evidence.names["silent"] == []
    loud = evidence.names["loud"]
    assert any("dropout" in line for line in loud)
    assert loud[-1].startswith("No available kernel")


def test_a_right_result_does_not_tell_that_the_kernel_ran(evidence):
    """Both sizes pass; with V = 8 it was not launched."""
    assert evidence.names["passed"] == {16: (True, True), 8: (True, False)}
