"""Ask, Sample a group and One GRPO step in a browser, in the light and the dark theme."""

import os
import re
from pathlib import Path

import pytest
from test_lab import run_all, save_notebook

SETUP = """\
from r1nb import attach_lora, load_policy, load_recipe, load_rows
from r1nb.widgets import Ask, OneStep, SampleGroup
recipe = load_recipe("tiny-cpu", max_completion_length=64)
policy = load_policy(recipe)
attach_lora(policy, recipe)
row = load_rows("bundled", "train")[0]
"""
THEMES = ["Light", "Dark"]
# The contrast of each text with what is behind it (WCAG 2.2, 1.4.3); backgrounds may be translucent.
FAINT = """box => {
    const parse = color => (color.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
    const light = rgb => rgb.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = node => {
        if (!node) return [255, 255, 255];
        const [r, g, b, a = 1] = parse(getComputedStyle(node).backgroundColor);
        return a === 1 ? [r, g, b] : behind(node.parentElement).map((v, i) => v * (1 - a) + [r, g, b][i] * a);
    };
    return [...box.querySelectorAll('*')].filter(node => node.offsetParent && [...node.childNodes].some(
        child => child.nodeType === 3 && child.data.trim())).filter(node => {
        const [a, b] = [light(parse(getComputedStyle(node).color)), light(behind(node))];
        return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 3;
    }).map(node => node.innerText);
}"""


@pytest.fixture
def pressed(open_notebook, folder):
    """Return a function that shows one widget in a theme, and returns the page and the widget."""

    def open_it(call: str, name: str, theme: str):
        save_notebook(folder, f"{name}-{theme}.ipynb", SETUP, call)
        page = open_notebook(f"{name}-{theme}.ipynb")
        page.evaluate(
            "theme => window.jupyterapp.commands.execute('apputils:change-theme', {theme})",
            f"JupyterLab {theme}",
        )
        page.wait_for_function(
            "light => document.body.dataset.jpThemeLight === light", arg=str(theme == "Light").lower()
        )
        run_all(page)
        box = page.locator(f".r1nb-{name}")
        box.wait_for()
        return page, box

    return open_it


def look(page, box, name: str) -> None:
    """Check at two widths that all is inside the page and can be read; R1NB_SHOTS keeps screenshots."""
    for width in (1280, 1100):
        page.set_viewport_size({"width": width, "height": 2000})
        page.wait_for_timeout(300)
        over = "box => [...box.querySelectorAll('*')].some(x => x.getBoundingClientRect().right > innerWidth)"
        assert not box.evaluate(over)
        assert box.evaluate(FAINT) == []
        if shots := os.environ.get("R1NB_SHOTS"):
            box.screenshot(path=Path(shots) / f"{name}-{width}.png")


@pytest.mark.parametrize("theme", THEMES)
def test_ask_answers_a_typed_question(pressed, theme):
    page, box = pressed("Ask(policy, recipe.layout, recipe.greedy, 'What is 3 + 4?')", "ask", theme)
    box.locator("textarea").fill("How much is <b>6</b> * 7?")
    box.get_by_text("show the whole prompt").click()
    box.locator("pre").get_by_text("Respond in the following format:").wait_for()
    button = box.get_by_role("button", name="Ask")
    button.click()
    box.get_by_text("adapter", exact=True).wait_for()
    button.wait_for()  # it is no longer called Answering
    assert button.is_enabled()
    assert box.get_by_text("tokens").count() == 2
    assert "How much is <b>6</b> * 7?" in box.inner_text()
    look(page, box, f"ask-{theme.lower()}")
    box.locator("textarea").fill("")
    button.click()
    box.get_by_text("Write a question first.").wait_for()


@pytest.mark.parametrize("theme", THEMES)
def test_a_group_is_sampled_at_another_temperature(pressed, theme):
    page, box = pressed("SampleGroup(policy, recipe, row)", "sample", theme)
    handle = box.locator(".noUi-handle").first
    handle.focus()
    handle.press("ArrowRight")
    handle.press("ArrowRight")
    box.get_by_text("1.20").wait_for()
    box.get_by_role("button", name="Sample a group").click()
    box.get_by_text("of 8 right").wait_for()
    box.get_by_role("button", name="Sample a group").wait_for()  # no longer "Sampling ..."
    first = box.inner_text()
    assert len(re.findall("[✓✗] (right|wrong)", first)) == 8
    assert "distinct answers" in first
    look(page, box, f"sample-{theme.lower()}")
    box.get_by_role("button", name="Sample a group").click()
    page.wait_for_function(
        "first => document.querySelector('.r1nb-sample').innerText !== first"
        " && document.querySelector('.r1nb-sample button').innerText === 'Sample a group'",
        arg=first,
    )


@pytest.mark.parametrize("theme", THEMES)
def test_one_step_makes_the_chosen_completion_likelier_and_is_undone(pressed, theme):
    page, box = pressed("OneStep(policy, recipe, row)", "one-step", theme)
    assert not box.get_by_role("button", name="Undo").is_visible()
    box.get_by_role("button", name="Sample a group").click()
    rewards = box.get_by_label("reward")
    rewards.first.wait_for()
    assert rewards.count() == 8
    rewards.first.fill("9")
    rewards.first.press("Enter")
    box.get_by_text("advantage +2.").first.wait_for()
    chances = re.findall(r"([\d.]+)% now", box.inner_text())
    assert len(chances) == 8
    box.get_by_role("button", name="Take one GRPO step").click()
    box.get_by_text("Steps taken: 1").wait_for()
    shown = box.inner_text()
    assert re.findall(r"([\d.]+)% before", shown) == chances
    assert float(re.search(r"([\d.]+)% after", shown)[1]) > float(chances[0])
    look(page, box, f"one-step-{theme.lower()}")
    box.get_by_role("button", name="Undo").click()
    box.get_by_text("Steps taken: 0").wait_for()
    assert re.findall(r"([\d.]+)% now", box.inner_text()) == chances
