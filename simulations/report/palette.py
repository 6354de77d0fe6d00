"""The colours of the page and of its plot: (on white, on black).

The hues are those of Okabe and Ito, "Color Universal Design" (2008), which people who see red
and green alike tell apart; darkened or lightened until they stand out against the background.
"""

from __future__ import annotations

PAPER = ("#ffffff", "#12161c")
CARD = ("#f6f7f9", "#1b2129")
INK = ("#1f2328", "#e8eaed")
MUTED = ("#57606a", "#a3adb8")
GRID = ("#e2e5e9", "#2d343d")
BLUE = ("#0072b2", "#56b4e9")
PALE_BLUE = ("rgba(0,114,178,0.30)", "rgba(86,180,233,0.32)")
GREEN = ("#007a5a", "#35c995")
ORANGE = ("#946300", "#f0b429")
RED = ("#b93a00", "#ff8a5c")
FAULT_BAND = ("rgba(230,159,0,0.16)", "rgba(240,180,41,0.17)")
FAULT_LINE = ("rgba(148,99,0,0.65)", "rgba(240,180,41,0.75)")
SHADE = ("rgba(31,35,40,0.25)", "rgba(0,0,0,0.75)")
CALM_BAND = ("rgba(87,96,106,0.09)", "rgba(163,173,184,0.10)")

ALL = {
    name.lower().replace("_", "-"): colour
    for name, colour in list(globals().items())
    if name.isupper()
}
"""By name, as the page's style sheet has them."""


def in_the_dark() -> dict[str, str]:
    """For each colour on white the one on black."""
    return dict(ALL.values())
