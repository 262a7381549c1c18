"""What `ortc init` writes, checked."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from tests.support.examples import examples

from ortc.__main__ import run
from ortc.plan.checks import CheckedSpec, check_spec

relaxed = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


def written(*arguments: str) -> CheckedSpec:
    """The spec that `ortc init` writes for the arguments."""
    assert run(["init", *arguments, "-o", "specs/out.yaml", "--force"]) == 0
    return check_spec("specs/out.yaml")


junk = st.none() | st.booleans() | st.integers(-5, 10**12) | st.text(max_size=5) | st.lists(st.integers(), max_size=2)
