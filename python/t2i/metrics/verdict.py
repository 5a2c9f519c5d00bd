"""What figures of a model in training mean, in words: one line a finding, by rules that `docs/metrics.md` states."""

from collections.abc import Mapping, Sequence

from t2i.metrics.retrieval import above_chance, chance

Values = Mapping[str, float]
FOLLOWED, PART = 0.75, 0.25  # of the R-precision of real images: the text is followed, or followed in part
ALIKE = 0.5  # of the diversity of real images of one class: images of a caption are alike below it
COPIES = 0.02  # share of copies above that of real images: the model memorises
GAIN = 0.03  # part by which the distance must have fallen since the evaluations before: still improving


def verdict(history: Sequence[Values], count: int) -> list[str]:
    """Put the last evaluation of a run in words.

    Args:
        history: Figures of all evaluations (`metrics.live`), in order; at least one.
        count: Images of each.
    """
    last = history[-1]
    found = (_text(last, count), _copies(last), _diversity(last), _trend(history))
    return [line for line in found if line]


def too_many_copies(values: Values) -> bool:
    """Return whether more images are near to a training image than real ones are, by more than COPIES."""
    return values["copies"] > values["copies_real"] + COPIES


def distance(values: Values) -> float:
    """Add up the distances to real images: what an evaluation is better or worse by."""
    return values["kid"] + values["kid_pixels"]


def warnings(values: Values) -> dict[str, str]:
    """Return what needs attention now, by cause: copies, or images of one caption that are all alike."""
    found = {}
    if too_many_copies(values):
        found["copies"] = (
            f"{values['copies']:.1%} of the generated images are nearer to a training image than 99% of real images are: "
            "the model memorises; stop earlier (--keep best), or train on more images"
        )
    if "diversity_real" in values and values["diversity"] < ALIKE / 2 * values["diversity_real"]:
        found["alike"] = (
            f"images of one caption hardly differ ({values['diversity']:.3f}; real images of a class "
            f"{values['diversity_real']:.3f}); raise --diversity-weight or --recovery-weight"
        )
    return found


def still_improving(history: Sequence[Values]) -> bool | None:
    """Return whether the distance to real images falls: the mean of the last third of evaluations against the third before.

    Returns:
        None with fewer than three evaluations.
    """
    part = len(history) // 3
    if part < 1:
        return None
    distances = [distance(values) for values in history]
    late, before = sum(distances[-part:]) / part, sum(distances[-2 * part : -part]) / part
    return late < (1 - GAIN) * before


def _text(values: Values, count: int) -> str:
    if "r_precision" not in values:
        return ""
    ours, real = values["r_precision"], values["r_precision_real"]
    bar = above_chance(count)
    figures = f"{ours:.1%} against {real:.1%} for real images, chance {chance():.0%}"
    if real < bar:
        return f"whether the text is followed cannot be said: the scorer fails on real images ({real:.1%})"
    if ours < bar:
        return f"the text is not followed: {figures}"
    if ours < PART * real:
        return f"the text is hardly followed: {figures}"
    return f"the text is followed{'' if ours >= FOLLOWED * real else ' in part'}: {figures}"


def _copies(values: Values) -> str:
    word = "too many copies" if too_many_copies(values) else "copies"
    return f"{word}: {values['copies']:.1%} (real images {values['copies_real']:.1%})"


def _diversity(values: Values) -> str:
    if "diversity_real" not in values:
        return ""
    ours, real = values["diversity"], values["diversity_real"]
    word = "are alike" if ours < ALIKE * real else "differ"
    return f"images of one caption {word}: {ours:.2f} (real images of a class {real:.2f})"


def _trend(history: Sequence[Values]) -> str:
    improving = still_improving(history)
    if improving is None:
        return ""
    return "still improving: more --steps would help" if improving else "no longer improving"
