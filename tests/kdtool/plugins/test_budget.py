import pytest

from kdtool import Budget, UsageError
from kdtool.plugins.budget import LatencyBudget, SizeBudget, short


@pytest.mark.parametrize(
    ("text", "limit"),
    [("0.25x", 200), (".5x", 400), ("90M", 90e6), ("1.2G", 1.2e9), ("250k", 250e3), ("250K", 250e3), ("1234", 1234)],
)
def test_a_budget_is_a_share_or_an_amount(text, limit):
    assert Budget.parse(text).limit(of=800) == limit


@pytest.mark.parametrize("text", ["0.25x", "0.0000001x", "0.333333333333x", "90M", "1.2G", "0.8M", "1234567", "123.5"])
def test_its_text_makes_the_same_budget_again(text):
    budget = Budget.parse(text)
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("budget", "text"),
    [("0.250x", "0.25x"), ("90000k", "90M"), ("0.8M", "800k"), ("1.2G", "1200M"), ("1234567", "1234567")],
)
def test_its_text_is_short_and_exact(budget, text):
    assert str(Budget.parse(budget)) == text


def test_a_budget_is_reached_at_its_limit():
    assert Budget.parse("0.25x").reached(25, of=100)
    assert not Budget.parse("0.25x").reached(26, of=100)
    assert Budget.parse("1k").reached(1000, of=5000)
    assert not Budget.parse("1k").reached(1001, of=5000)


@pytest.mark.parametrize("text", ["0.25y", "-1", "", "x", "M", "nan", "inf", "0.25 M", "1e6", "9MM", "1,5M", "9" * 400])
def test_other_text_is_refused_with_the_ways_to_write_it(text):
    with pytest.raises(UsageError, match=r"is not a budget; write a share .*0\.25x.* or an amount .*90M") as caught:
        Budget.parse(text)
    assert len(str(caught.value)) < 150


@pytest.mark.parametrize("text", ["0x", "1x", "2x"])
def test_a_share_lies_between_0_and_1(text):
    with pytest.raises(UsageError, match=f"^{text} is not a share"):
        Budget.parse(text)


@pytest.mark.parametrize("text", ["0", "0.25", "0.0001k"])
def test_an_amount_is_at_least_1(text):
    with pytest.raises(UsageError, match=f"^{text} is not an amount of 1 or more; write a share .* with an x"):
        Budget.parse(text)


def test_a_size_is_told_with_three_digits():
    sizes = [0, 7, 999, 1000, 40_912_345, 1_234_000_000, 3e12]
    assert [short(size) for size in sizes] == ["0", "7", "999", "1k", "40.9M", "1.23G", "3000G"]


@pytest.mark.parametrize(
    ("cls", "text", "amount", "relative", "shown"),
    [
        (LatencyBudget, "5ms", 5e-3, False, "5ms"),
        (LatencyBudget, "1.5ms", 1.5e-3, False, "1500us"),
        (LatencyBudget, "800us", 8e-4, False, "800us"),
        (LatencyBudget, "0.4x", 0.4, True, "0.4x"),
        (SizeBudget, "2MB", 2_000_000, False, "2MB"),
        (SizeBudget, "2mb", 2_000_000, False, "2MB"),
        (SizeBudget, "500kB", 500_000, False, "500kB"),
        (SizeBudget, "0.25x", 0.25, True, "0.25x"),
    ],
)
def test_budgets_of_time_and_of_bytes(cls, text, amount, relative, shown):
    budget = cls.parse(text)
    assert (budget.amount, budget.relative, str(budget)) == (amount, relative, shown)
    assert cls.parse(str(budget)) == budget


@pytest.mark.parametrize(
    ("cls", "text"),
    [(LatencyBudget, "5"), (LatencyBudget, "5M"), (SizeBudget, "2"), (SizeBudget, "5ms"), (Budget, "5ms")],
)
def test_an_amount_of_another_unit_is_refused(cls, text):
    with pytest.raises(UsageError, match="is not a budget"):
        cls.parse(text)
