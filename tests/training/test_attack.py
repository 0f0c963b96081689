"""check_reward finds planted holes, leaves r1nb's own rewards in peace, and shows what a policy learns."""

import make_reward_checks
import pytest

from r1nb.errors import UserError
from r1nb.rewards import registry
from r1nb.rewards.registry import reward, reward_names
from r1nb.training.attack import check_reward

# A word of the sentence that names each hole.
NAMED = {
    "any_number": "any answer as much", "length": "pays length", "tag_alone": "tags without content",
    "substring": "a longer number", "no_sign": "the sign must count", "anywhere": "the gold in the reasoning",
    "each_block": "three times", "raises": "IndexError", "too_few": "2 scores for 3",
    "no_comma": "with a comma",
}  # fmt: skip


@pytest.mark.parametrize("hole", make_reward_checks.HOLES, ids=lambda hole: hole.__name__)
def test_a_planted_hole_is_named(hole):
    found = check_reward(hole, make_reward_checks.rows_for(hole.__name__))
    assert any(NAMED[hole.__name__] in problem for problem in found.problems), found.problems
    assert list(found.table.columns) == ["attack", "score", "should earn"]


@pytest.mark.parametrize("own", make_reward_checks.shipped(), ids=lambda own: own.__name__)
def test_rewards_that_ship_are_left_in_peace(own):
    assert check_reward(own, make_reward_checks.rows_for(own.__name__)).problems == []


def test_a_sound_reward_of_the_user_is_left_in_peace(monkeypatch):
    monkeypatch.setattr(registry, "_OWN", dict(registry._OWN))

    @reward(high=1.0, block=True)
    def sound_reward_func(given: str, answer: str):
        return float(given.replace(",", "") == answer)

    assert check_reward(sound_reward_func, make_reward_checks.rows_for("")).problems == []


def test_it_shows_what_the_tiny_policy_learns_from_a_hole():
    names = reward_names()
    found = check_reward(make_reward_checks.tag_alone, make_reward_checks.rows_for(""), steps=3)
    assert 1 <= len(found.learned) <= 3
    assert reward_names() == names  # the attack leaves no name behind


def test_a_reward_that_fails_is_not_trained_on():
    assert check_reward(make_reward_checks.raises, make_reward_checks.rows_for(""), steps=3).learned == []


def test_rows_without_a_gold_are_refused():
    with pytest.raises(UserError, match="No row has a gold"):
        check_reward("int_reward_func", [{"answer": "", "question": "?"}])
