"""``python -m scripts.demonstration``: see ``--help``."""

from scripts.demonstration.interruption import (
    INTERRUPTED,
    TOLD,
    Interruption,
    end_at_once,
    keep_exit_status,
)

if __name__ == "__main__":
    end_at_once()

import os
import sys

from scripts.demonstration.options import parse
from scripts.demonstration.voice import Voice


def main() -> int:
    """The exit status: 0 if it adds up, 1 if it does not or cannot start, 2 for wrong words,
    130 for a Ctrl-C before the show or a second one."""
    options = parse()
    interruption = Interruption()
    voice = _voice(interruption)
    voice.show("Lessons are booked, and their mails arrive once, whatever crashes.\n")
    # Here, since it takes a second: a person has read the line above by then.
    from scripts.demonstration import show

    with interruption:
        try:
            with voice:
                summary = show.run(options, voice=voice, interruption=interruption)
            voice.show(f"\n{summary.text()}")
            if options.json:
                summary.write(options.json)
        except KeyboardInterrupt:
            sys.stderr.write(TOLD)
            return INTERRUPTED
        except (RuntimeError, TimeoutError, OSError) as error:
            print(f"demo: {error}", file=sys.stderr)
            return 1
        return 0 if summary.adds_up else 1


def _voice(interruption: Interruption) -> Voice:
    """Figures that move in a terminal; lines for a file, a pipe and a dumb terminal."""
    if not sys.stdout.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        return Voice(on_silence=interruption.wish)
    from scripts.demonstration.screen import Screen

    return Screen(on_silence=interruption.wish)


if __name__ == "__main__":
    status = main()
    keep_exit_status()
    sys.exit(status)
