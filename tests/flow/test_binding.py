from hypothesis import given
from hypothesis import strategies as st

from msgflo.flow.binding import Binding, Kind, diff

BINDINGS = st.frozensets(
    st.builds(Binding, st.sampled_from(Kind), st.sampled_from("abc"), st.sampled_from("xyz"))
)


@given(BINDINGS, BINDINGS)
def test_a_diff_applied_to_what_there_is_gives_what_is_wanted(have, want):
    change = diff(have, want)
    assert (have - set(change.remove)) | set(change.add) == want
    assert not set(change.add) & have
    assert set(change.remove) <= have
    assert list(change.add) == sorted(change.add)
    assert list(change.remove) == sorted(change.remove)
    assert diff(want, want) == diff((), ())


def test_a_binding_says_what_goes_where():
    assert str(Binding(Kind.ROUNDROBIN, "a.OUT", "b.IN")) == "ROUNDROBIN: a.OUT -> b.IN"
