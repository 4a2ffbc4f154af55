"""Numbers as the page writes them."""

import math

MINUS = "\N{MINUS SIGN}"


def count(value: float) -> str:
    """Returns a whole number, its thousands set apart; one decimal where it is not whole."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"


def percent(share: float) -> str:
    """Returns a share in per cent, to three digits; never 0 or 100 where it only rounds to it."""
    value = 100 * share
    if 99.95 <= value < 100:
        return "> 99.9\N{NO-BREAK SPACE}%"
    if 0 < value < 0.001:
        return "< 0.001\N{NO-BREAK SPACE}%"
    return f"{value:.3g}\N{NO-BREAK SPACE}%"


def signed(value: float) -> str:
    """Returns a difference of accuracies with its sign, to three decimals."""
    if not math.isfinite(value):
        return ("+" if value > 0 else MINUS) + "\N{INFINITY}"
    return f"{value:+.3f}".replace("-", MINUS)


def figure(value: float) -> str:
    """Returns a measured value of any size, to four digits."""
    return f"{value:.4g}".replace("-", MINUS)


def decimals(value: float) -> str:
    """Returns a value between 0 and 1, to three decimals."""
    return f"{value:.3f}"


def duration(seconds: float) -> str:
    """Returns a time, in the two units that matter."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min"


def short(text: str, length: int = 28) -> str:
    """Returns a name for where room is scarce: on one line, its middle left out if it is long."""
    text = " ".join("".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
                    .split())  # fmt: skip
    if len(text) <= length:
        return text
    half = (length - 1) // 2
    return f"{text[:half]}\N{HORIZONTAL ELLIPSIS}{text[-half:]}"
