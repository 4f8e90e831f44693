"""Draws one step of a profile as a picture: which rank does what when.

    unimse trace JOB trace.json
    python docs/measured/draw_trace.py trace.json docs/measured/two-ranks.svg [STEP]

Only the trainer's own phases are drawn; `trace.json` itself has every operator and opens in Perfetto. Needs nothing but Python.
"""

import json
import re
import sys

COLOURS = {
    "data": "#9aa5b1", "forward": "#4c78a8", "backward": "#f58518", "all-reduce": "#54a24b", "reduce": "#b6d7a8",
    "update": "#b279a2", "save": "#e45756", "evaluate": "#72b7b2",
}
WIDTH, LEFT, LANE, GAP = 1000, 150, 26, 10


def kind(name):
    return next((known for known in COLOURS if name.startswith(known)), None)


def draw(events, wanted):
    steps = [event for event in events if event["name"] == f"step {wanted}"]
    begin = min(event["ts"] for event in steps)
    end = max(event["ts"] + event["dur"] for event in steps)
    scale = (WIDTH - LEFT - 20) / (end - begin)
    lanes, shapes = {}, []
    inside = [
        event for event in events
        if event.get("cat") == "trainer" and kind(event["name"]) and begin <= event["ts"] and event["ts"] + event["dur"] <= end + 1
    ]
    main = {event["pid"]: event["tid"] for event in steps}
    for event in sorted(inside, key=lambda event: (event["pid"], event["tid"] != main[event["pid"]], event["ts"])):
        # A pass that adds up gradients has a thread of its own each time; they share a line.
        lane = (event["pid"], event["tid"] == main[event["pid"]])
        row = lanes.setdefault(lane, len(lanes))
        x = LEFT + (event["ts"] - begin) * scale
        width = max(event["dur"] * scale, 0.8)
        y = 40 + row * (LANE + GAP)
        title = f"{event['name']}: {event['dur'] / 1e3:.1f} ms"
        shapes.append(
            f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{LANE}" fill="{COLOURS[kind(event["name"])]}" stroke="#fff" '
            f'stroke-width="0.6"><title>{title}</title></rect>'
        )
    labels = [
        f'<text x="8" y="{40 + row * (LANE + GAP) + 17}">rank {pid}, {"computes" if own else "adds up"}</text>'
        for (pid, own), row in lanes.items()
    ]
    height = 40 + len(lanes) * (LANE + GAP) + 40
    legend, x = [], LEFT
    for name in dict.fromkeys(kind(event["name"]) for event in inside):
        legend.append(f'<rect x="{x}" y="{height - 28}" width="12" height="12" fill="{COLOURS[name]}"/>')
        legend.append(f'<text x="{x + 17}" y="{height - 18}">{name}</text>')
        x += 110
    head = f'<text x="8" y="22" font-weight="bold">Step {wanted}: {(end - begin) / 1e3:.0f} ms</text>'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" font-family="sans-serif" font-size="13">'
        f'<rect width="100%" height="100%" fill="#fff"/>{head}{"".join(labels + shapes + legend)}</svg>\n'
    )


if __name__ == "__main__":
    trace = json.load(open(sys.argv[1]))["traceEvents"]
    numbers = sorted(int(m[1]) for event in trace if (m := re.fullmatch(r"step (\d+)", event["name"])))
    wanted = int(sys.argv[3]) if len(sys.argv) > 3 else numbers[len(numbers) // 2]
    open(sys.argv[2], "w").write(draw(trace, wanted))
