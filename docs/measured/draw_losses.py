"""Draws the loss curves of runs of the train bench side by side.

    python docs/measured/draw_losses.py OUT.svg NAME=FILE...

Each FILE holds the JSON line that `slow` of the train bench prints, with `losses`, one a step, `seconds` of the timed ones, and
`sent_bytes`. A point of a curve is the mean of the ten steps up to it.
"""

import json
import pathlib
import sys

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 860, 380, 60, 28, 46
# Told apart by lightness, too.
COLOURS = ["#1b4f72", "#d35400", "#7d3c98", "#229954", "#7f8c8d"]
DASHES = ["", "7 4", "2 3", "10 3 2 3", "4 4"]
MEAN = 10


def smooth(losses):
    return [sum(losses[max(0, step - MEAN) : step]) / min(MEAN, step) for step in range(1, len(losses) + 1)]


def main(out, *sides):
    runs = []
    for side in sides:
        name, file = side.split("=", 1)
        found = json.loads(pathlib.Path(file).read_text().splitlines()[-1])
        runs.append((name, found, smooth(found["losses"])[MEAN - 1 :]))
    steps = max(len(curve) for _, _, curve in runs)
    low, high = min(min(curve) for *_, curve in runs), max(max(curve) for *_, curve in runs)
    low, high = int(low * 10) / 10, int(high + 1)
    x = lambda step: LEFT + step / steps * (WIDTH - LEFT - 20)
    y = lambda loss: TOP + (high - loss) / (high - low) * (HEIGHT - TOP - BOTTOM)
    text = lambda x, y, words, more="": f'<text x="{x:.0f}" y="{y:.0f}" {more}>{words}</text>'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for tick in range(int(low) + (low > int(low)), high + 1):
        lines.append(f'<path d="M{LEFT} {y(tick):.1f}H{WIDTH - 20}" stroke="#ddd"/>')
        lines.append(text(LEFT - 8, y(tick) + 4, tick, 'text-anchor="end"'))
    for tick in range(0, steps + MEAN, 50):
        if tick >= MEAN:
            lines.append(text(x(tick - MEAN), HEIGHT - BOTTOM + 18, tick, 'text-anchor="middle"'))
    lines.append(text(WIDTH / 2, HEIGHT - 8, "step", 'text-anchor="middle"'))
    lines.append(text(14, TOP - 12, "loss (mean of ten steps)"))
    for place, (name, found, curve) in enumerate(runs):
        path = "L".join(f"{x(step):.1f} {y(loss):.1f}" for step, loss in enumerate(curve))
        look = f'stroke="{COLOURS[place]}" stroke-width="2" stroke-dasharray="{DASHES[place]}" fill="none"'
        lines.append(f'<path d="M{path}" {look}/>')
        row = TOP + 18 * (place + 1)
        seconds = found["seconds"][20:]
        each = 1e3 * sum(seconds) / len(seconds)
        sent = found["sent_bytes"] / 1e6 / len(found["losses"])
        lines.append(f'<path d="M{WIDTH - 520} {row - 4}h36" {look}/>')
        lines.append(text(WIDTH - 476, row, f"{name}: {each:.0f} ms a step, {sent:.2f} MB sent, ends at {curve[-1]:.2f}"))
    pathlib.Path(out).write_text("\n".join([*lines, "</svg>", ""]))


if __name__ == "__main__":
    main(*sys.argv[1:])
