"""Before training: does the policy as it is earn anything that GRPO could choose from?"""

from statistics import pstdev

from r1nb.rewards import REWARDS, best_total


def check_groups(policy, rows, recipe, groups: int = 4) -> list[str]:
    """Sample some groups as training will and say what is wrong, a sentence each; [] if nothing is.

    Looks for rewards that never fire, groups without variance, and completions cut off.
    """
    size, limit = recipe.group_size, recipe.grpo["max_completion_length"]
    rows = rows.select(range(min(groups, len(rows))))
    prompts = [prompt for prompt in rows["prompt"] for _ in range(size)]
    answers = [answer for answer in rows["answer"] for _ in range(size)]
    sampling = {key: recipe.grpo[key] for key in ("temperature", "top_p") if key in recipe.grpo}
    completions = policy.generate(prompts, limit, **sampling)
    scores = {name: REWARDS[name]([c.text for c in completions], answer=answers) for name in recipe.rewards}
    totals = [
        sum(scores[name][i] * weight for name, weight in recipe.rewards.items())
        for i in range(len(completions))
    ]
    spread = [pstdev(totals[i : i + size]) for i in range(0, len(totals), size)]
    cut = sum(c.cut for c in completions)
    n, found = len(completions), []
    if not any(spread):
        found.append(
            f"In each of {len(spread)} groups all {size} completions earn the same ({totals[0]:g} of "
            f"{best_total(recipe.rewards):g} in the first): GRPO has "
            "nothing to choose from. Give the policy a short SFT start (the recipe's sft section), "
            "or problems that it solves now and then."
        )
    elif silent := [name for name in scores if not any(scores[name])]:
        found.append(f"On {n} completions these rewards never fired: {', '.join(silent)}.")
    if cut > n / 2:
        found.append(f"{cut} of {n} completions were cut off at {limit} tokens: raise max_completion_length.")
    return found
