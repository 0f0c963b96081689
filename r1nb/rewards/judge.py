"""A language model as judge, at any OpenAI-compatible endpoint: set judge_url and judge_model.

The prompt for the judge is in judge_prompt.txt.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

from r1nb.errors import UserError
from r1nb.rewards.registry import reward

PROMPT = Path(__file__).with_name("judge_prompt.txt").read_text(encoding="utf-8").strip()


@reward(high=1.0, judges="answer", threads=8, library="openai")
def judge_reward_func(text: str, answer: str, question, judge_url, judge_model):
    """The judge's score, 0.0 to 1.0; None if the judge gives no score or cannot be reached.

    OPENAI_API_KEY is sent if it is set. The openai client retries, and stops after 30 seconds.
    """
    from openai import OpenAIError

    prompt = PROMPT.format(question=question, answer=answer, text=text[:20_000])
    try:
        reply = _client(judge_url).chat.completions.create(
            model=judge_model, messages=[{"role": "user", "content": prompt}], temperature=0
        )
    except OpenAIError as error:
        return None, f"the judge could not be asked: {str(error)[:80]}"
    said = (reply.choices[0].message.content or "") if reply.choices else ""
    match = re.fullmatch(r"\s*SCORE:\s*(10|[0-9])\s*", said, re.ASCII)
    return (int(match[1]) / 10, f"judged {match[1]} of 10") if match else (None, f"no score: {said[:40]!r}")


def require_judge(url: str, model: str) -> None:
    """Test the judge with a right reply; raises UserError if it gives no score."""
    judge = judge_reward_func.bind(judge_url=url, judge_model=model)
    score, reason = judge.explain("2 + 2 = 4", "4", question="What is 2 + 2?")
    if score is None:
        raise UserError(
            f"judge_url = {url!r}, judge_model = {model!r}: {reason}; start the judge or "
            "correct these settings."
        )


@lru_cache
def _client(url: str):
    from openai import OpenAI

    return OpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "none"), timeout=30, max_retries=1)
